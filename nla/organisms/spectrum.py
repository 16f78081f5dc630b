"""`audit readers`: every reader on the same vectors of known groups, from labelled vectors to open descriptions.

Per reader: AUROC for identical replies under paired contexts of held-out families, with intervals over prompts; the labelled examples it
was fitted on; seconds per 1,000 vectors; and the memory that reading adds. What a reader is fitted on never holds a tested wording.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla.models.loaded import LoadedModel
from nla.organisms.areas import Areas
from nla.organisms.cases import known_cases
from nla.organisms.groups import Case, KnownGroups
from nla.organisms.measures import Measure, Reads
from nla.organisms.readers import all_readers
from nla.organisms.statistics import Estimate
from nla.support.memory import memory_use

_MEGABYTE = 2**20


@dataclass(frozen=True)
class ReaderResult:
    """What one reader gave."""

    auroc: Estimate
    auroc_by_family: dict[str, float]
    labels: int
    """Labelled examples that it was fitted on."""
    reads: Reads
    n_read: int
    """Vectors that were read; conversations, where the reader reads no vector."""
    seconds_per_1000: float
    """Seconds per 1,000 vectors (or conversations), without fitting."""
    megabytes: float | None
    """Resident memory that reading added at its peak; None where the system does not tell."""


@dataclass(frozen=True)
class Spectrum:
    """Every reader on one model's known groups."""

    model: dict[str, Any]
    layer: int
    n: int
    tokens: int
    """Tokens per reply that verbalizers explain."""
    readers: dict[str, ReaderResult]


def read_spectrum(
    model: LoadedModel,
    *,
    n: int = 40,
    tokens: int = 2,
    layer: int | None = None,
    pair: str | None = None,
    sae: Path | None = None,
    oracle: Path | None = None,
    contexts: Path | None = None,
    prompts: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Spectrum:
    """Take every reader on known groups.

    Args:
        model: an organism, or any model.
        n: number of prompts.
        tokens: tokens per reply that verbalizers explain; other readers read every token.
        layer: K; None takes two thirds of the depth.
        pair: the NLA; None takes the one that is known for the base model.
        sae: folder of a sparse autoencoder; None takes the shipped one.
        oracle: folder of a question-answering oracle; None leaves it out.
        contexts: the user's own paired contexts; None takes the held-out families.
        prompts: the user's own requests.
        say: receives a line for each step.

    Raises:
        ConfigError, DataError, ContractError: see `known_cases` and `read_sae`.
    """
    layer = model.check_layer(layer)
    cases = known_cases(model, layer, n, contexts=contexts, prompts=prompts, say=say)
    groups = KnownGroups(model, layer, cases.fit, cases.test, tokens=tokens, pair=pair, sae=sae, oracle=oracle)
    say("fitting the readers")
    results = {}
    for reader in all_readers(groups):
        say(f"reader {reader.name}")
        results[reader.name] = _taken(reader, cases.test, tokens)
    return Spectrum(model.describe(), layer, cases.n, tokens, results)


def _taken(reader: Measure, cases: Sequence[Case], tokens: int) -> ReaderResult:
    with memory_use() as use:
        started = time.monotonic()
        scores = reader.score(cases)
        seconds = time.monotonic() - started
    areas = Areas.of(scores, cases)
    n_read = {
        "every token": sum(len(case.vectors) for case in cases),
        "sampled tokens": sum(min(tokens, len(case.vectors)) for case in cases),
        "conversation": len(cases),
    }[reader.reads]
    return ReaderResult(
        auroc=areas.over_prompts(),
        auroc_by_family=areas.by_family(),
        labels=reader.labels,
        reads=reader.reads,
        n_read=n_read,
        seconds_per_1000=1_000 * seconds / max(n_read, 1),
        megabytes=None if use.added is None else use.added / _MEGABYTE,
    )
