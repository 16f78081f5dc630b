"""The cases of the known-groups test: prompts, the base model's replies to them, and the paired contexts they are read under."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nla.models.loaded import LoadedModel
from nla.organisms.contexts import HELD_OUT, ContextPair, held_out_contexts, read_contexts, shipped_contexts
from nla.organisms.examples import replies
from nla.organisms.groups import Case, assigned, read_cases
from nla.support.display import visible
from nla.support.errors import DataError
from nla.support.rows import read_file
from nla.support.seeds import seeded_generator

PROMPTS = Path(__file__).parent / "prompts.jsonl"
"""Requests written for this project, on which nothing is trained."""
REPLY_TOKENS = 32
"""Longest replies that are read, as in the recipes."""
_MOST_FIT = 60
"""Prompts that supervised measures are fitted on, at most."""
_ALL_FROM = 100
"""From so many prompts on, all are also put under unseen wordings of the trained families; of fewer, half of them, which saves time."""
_FEWEST = 10
"""With fewer prompts, an interval over prompts says nothing."""


@dataclass(frozen=True)
class KnownCases:
    """Cases whose prompts and wordings differ between the three sets."""

    fit: tuple[Case, ...]
    """Trained wordings; for measures that are fitted."""
    test: tuple[Case, ...]
    """Held-out families, or the user's own contexts. Cued ones first; the second half are their partners, in the same order."""
    unseen: tuple[Case, ...]
    """Unseen wordings of the trained families, in the same order; none with a user's own contexts."""
    n: int
    """Prompts that were tested."""


def known_cases(
    model: LoadedModel,
    layer: int,
    n: int,
    *,
    contexts: Path | None = None,
    prompts: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> KnownCases:
    """Let the base model answer prompts, and read the replies under both sides of paired contexts.

    Args:
        model: the model that is read.
        layer: K.
        n: number of prompts that are tested.
        contexts: the user's own paired contexts; None takes the held-out families.
        prompts: the user's own requests, a file with the column `prompt`.
        say: receives a line for each step.

    Raises:
        DataError: prompts or contexts cannot be read, or there are fewer prompts than `n`.
        ConfigError: a conversation is longer than the context window.
    """
    trained, unseen, test_pairs = _pairs(contexts)
    test_rows, fit_rows = _prompts(prompts, n)
    say(f"the base model answers {len(test_rows) + len(fit_rows)} prompts")
    tests, fits = (replies(model.base, rows, REPLY_TOKENS) for rows in (test_rows, fit_rows))
    say("reading replies under paired contexts")
    fit = read_cases(model, layer, assigned(fits, trained, "fit"))
    test = read_cases(model, layer, assigned(tests, test_pairs, "test"))
    shared = tests if len(tests) >= _ALL_FROM else tests[: max(len(tests) // 2, _FEWEST)]
    other = read_cases(model, layer, assigned(shared, unseen, "unseen")) if unseen else []
    return KnownCases(tuple(fit), tuple(test), tuple(other), len(tests))


def _pairs(contexts: Path | None) -> tuple[list[ContextPair], list[ContextPair], list[ContextPair]]:
    """Return pairs to fit on, unseen wordings of the same families, and the pairs to test on."""
    shipped = shipped_contexts("evaluation")
    trained = [pair for pair in shipped if pair.family not in HELD_OUT]
    fit, unseen = [pair for pair in trained if not pair.unseen], [pair for pair in trained if pair.unseen]
    if contexts is not None:
        return fit, [], read_contexts(contexts)
    return fit, unseen, held_out_contexts()


def _prompts(path: Path | None, n: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return prompts `(id, text)` to test on, and others to fit on."""
    shipped = shipped_prompts()
    given = shipped if path is None else _read_prompts(path)
    if len(given) < n or n < _FEWEST:
        raise DataError(
            f"{'The built-in prompts' if path is None else visible(path)}: {len(given)} prompts, and n is {n}; expected n from {_FEWEST} "
            f"to the number of prompts. Give another --n, or a file with more prompts."
        )
    test = given[:n]
    rest = [row for row in shipped if row not in test]
    if len(rest) < _FEWEST:
        raise DataError(f"n={n} leaves {len(rest)} built-in prompts to fit on; expected n of at most {len(shipped) - _FEWEST}.")
    return test, rest[:_MOST_FIT]


def shipped_prompts() -> list[tuple[str, str]]:
    """Return the built-in requests, `(id, text)`, in a seeded order."""
    prompts = _read_prompts(PROMPTS)
    return [prompts[i] for i in seeded_generator("check prompts").permutation(len(prompts))]


def _read_prompts(path: Path) -> list[tuple[str, str]]:
    texts = [row.get("prompt") for row in read_file(path)]
    if wrong := [number for number, text in enumerate(texts, start=1) if not isinstance(text, str) or not text.strip()]:
        raise DataError(f"{visible(path)}, row {wrong[0]} has no text `prompt`; expected one request per row.")
    return [(f"{path.stem}/{number}", str(text).strip()) for number, text in enumerate(texts)]
