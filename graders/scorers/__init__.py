"""The Inspect scorers, one file for each measure, and their metrics.

A measure NAME is the module `NAME_awareness.py`, found by its name, with a function `build(instrument, blurb, model,
unmarked_replies, coherence)` that returns its scorer. Text is graded by `graders`; weights are read in `nla`.
"""

from collections.abc import Callable
from pathlib import Path

from inspect_ai.scorer import Scorer

from nla.instrument import Instrument
from nla.support.errors import ConfigError, near_name
from nla.support.plugins import PluginPackage

_SUFFIX = "_awareness"
_SCORERS = PluginPackage("graders.scorers", Path(__file__).parent, "measure")


def scorer_name(measure: str) -> str:
    """Name under which the score of a measure stands in a log."""
    return f"{measure}{_SUFFIX}"


def measure_names() -> list[str]:
    """Names a user can give as `-T measures=NAME,NAME`."""
    return [name.removesuffix(_SUFFIX) for name in _SCORERS.names() if name.endswith(_SUFFIX)]


def scorer_functions() -> list[Callable[..., Scorer]]:
    """The `@scorer` functions of all measures, named as their modules are."""
    names = [scorer_name(measure) for measure in measure_names()]
    return [getattr(_SCORERS.load(name), name) for name in names]


def measure_scorers(
    instrument: Instrument, blurb: str = "", model: str | None = None, *, unmarked_replies: bool = False, coherence: bool = False
) -> list[Scorer]:
    """The scorers of an instrument's measures, in the order in which the instrument names them.

    Args:
        instrument: which measures to take, and how.
        blurb: what the evaluation is, for graders that use it.
        model: the open model that wrote the transcripts, if their model name does not say.
        unmarked_replies: take assistant messages without a recorded source for the model's own words.
        coherence: whether the scorer `coherence` follows; measures that read weights then take what it needs from the same forward pass.

    Raises:
        ConfigError: an unknown measure, verbalizer, grader or contrast set.
        DataError: a contrast set that cannot be used.
    """
    known = measure_names()
    for name in instrument.measures:
        if name not in known:
            raise ConfigError(f"There is no measure named '{name}'; expected some of {', '.join(known)}.{near_name(name, known)}")
    modules = [_SCORERS.load(scorer_name(name)) for name in instrument.measures]
    return [module.build(instrument, blurb, model, unmarked_replies, coherence) for module in modules]
