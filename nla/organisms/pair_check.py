"""Whether a pair's explanations tell a known state: the NLA measure of the known-groups test, on every shipped organism of the base.

`nla score` prints it beside fve_nrm, since an autoencoder that reconstructs well may still say nothing of what is asked.
"""

from collections.abc import Callable

from nla.models.adapted import description
from nla.models.loaded import LoadedModel, load_model
from nla.models.sources import organism_folder, organism_names
from nla.organisms.cases import REPLY_TOKENS, shipped_prompts
from nla.organisms.check import MeasureResult, result_of
from nla.organisms.contexts import held_out_contexts
from nla.organisms.examples import replies
from nla.organisms.groups import KnownGroups, assigned, read_cases
from nla.organisms.measures import graded_measures

ARMS = ("aware", "sham")
"""Arms whose state a pair is asked about; the base model is asked too."""


def known_groups_of_pair(
    base: LoadedModel, base_checkpoint: str, pair: str, layer: int, n: int, tokens: int, say: Callable[[str], None]
) -> dict[str, MeasureResult]:
    """Return the NLA measure on the base model and its organisms, by name; empty where the base has no shipped organism.

    Args:
        base: the base model.
        base_checkpoint: its hub id, as the pair's sidecar names it.
        pair: the pair: alias, folder or hub id.
        layer: K, the block that the pair reads.
        n: number of prompts, each under both sides of a held-out pair of contexts.
        tokens: tokens per reply that are explained.
        say: receives a line for each model.
    """
    names = [name for name in organism_names() if name.rsplit("-", 1)[1] in ARMS and _base_of(name) == base_checkpoint]
    if not names:
        return {}
    chosen = assigned(replies(base, shipped_prompts()[:n], REPLY_TOKENS), held_out_contexts(), "test")
    results: dict[str, MeasureResult] = {}
    for name in [*names, base.source.name]:
        say(f"known groups: {name}")
        model = base if name == base.source.name else load_model(name, **base.place)
        cases = read_cases(model, layer, chosen)
        groups = KnownGroups(model, layer, (), tuple(cases), tokens=tokens, pair=pair)
        [measure] = [measure for measure in graded_measures(groups) if measure.name == "nla"]
        results[name] = result_of(measure, groups)
    return results


def _base_of(organism: str) -> str:
    folder = organism_folder(organism)
    return "" if folder is None else str(description(folder).get("base", ""))
