"""The stratified sample of explanations that people label, and an estimator that corrects for its unequal sampling probabilities.

Explanations with the verdict YES or UNCLEAR are rare, so they are drawn with a higher probability than others. The sample records how
many explanations each item represents, so that shares over all explanations can be estimated without bias. It does not record the
grader's verdicts, because an annotator must not see them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from audit.labelling.explanations import logged_transcripts
from audit.logs import newest_of_cells
from audit.stats.bootstrap import DRAWS, percentile_interval
from audit.stats.rates import Estimate
from graders.base import Verdict
from graders.labelled.labels import LabelledText
from nla.support.errors import DataError
from nla.support.rows import read_file
from nla.support.seeds import seeded_generator

TABLES = (".parquet", ".jsonl", ".csv")
"""Suffixes of files that are read as tables of explanations. All other paths are read as Inspect logs."""
_EXPECTED = f"expected scored logs, or a {', '.join(TABLES[:-1])} or {TABLES[-1]} file with a column `explanation`"
_STRATA: tuple[Verdict | None, ...] = (Verdict.YES, Verdict.UNCLEAR, Verdict.NO, None)
_RARE_SHARE: dict[Verdict | None, float] = {Verdict.YES: 0.35, Verdict.UNCLEAR: 0.15}
"""Shares of the sample that are reserved for these verdicts, if there are enough explanations."""


@dataclass(frozen=True)
class Candidate:
    """An explanation that could be labelled."""

    id: str
    text: str
    blurb: str
    predicted: Verdict | None
    """The grader's verdict; None if there is none."""
    where: str
    """Where the explanation comes from, as text for people."""


class Item(BaseModel):
    """An explanation of the sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    blurb: str
    weight: float = Field(gt=0, allow_inf_nan=False)
    """Number of candidates that this explanation represents."""
    where: str


def read_candidates(path: Path) -> list[Candidate]:
    """Read the explanations of Inspect logs (a file or folder) or of a table. Each explanation is returned once.

    Args:
        path: a log, a folder of logs (for each cell, the newest finished one is read), or a .parquet, .jsonl or .csv file with a column
            `explanation` or `text`, and optionally `verdict`, `blurb` and `id`.

    Raises:
        DataError: the path does not exist, cannot be read, or has no explanation.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; {_EXPECTED}.")
    candidates = _of_table(path) if path.suffix.lower() in TABLES else _of_logs(path)
    by_id = {candidate.id: candidate for candidate in candidates}
    if not by_id:
        raise DataError(f"{path} has no explanation; {_EXPECTED}.")
    return list(by_id.values())


def _of_logs(path: Path) -> Iterator[Candidate]:
    for log in newest_of_cells([path]):
        for transcript in logged_transcripts(log):
            for explanation in transcript.explanations or ():
                where = f"{log.eval.task}, {transcript.sample}, position {explanation.position}"
                if explanation.text.strip():
                    key = f"{log.eval.run_id} {where}"
                    yield _candidate(explanation.text, transcript.blurb, explanation.verdict, key, where)


def _of_table(path: Path) -> Iterator[Candidate]:
    for number, row in enumerate(read_file(path), 1):
        text = row.get("explanation") or row.get("text")
        if not isinstance(text, str):
            raise DataError(f"{path}, row {number}, has no text; expected a column `text` or `explanation`.")
        predicted = next((verdict for verdict in _STRATA if verdict is not None and row.get("verdict") == verdict.value), None)
        if text.strip():
            yield _candidate(text, str(row.get("blurb") or ""), predicted, f"{row.get('id') or number}", f"row {number}")


def _candidate(text: str, blurb: str, predicted: Verdict | None, key: str, where: str) -> Candidate:
    digest = hashlib.sha256(f"{key}\0{text}".encode(errors="surrogatepass")).hexdigest()[:16]
    return Candidate(digest, _encodable(text), _encodable(blurb), predicted, _encodable(where))


def _encodable(text: str) -> str:
    """Return the text with lone surrogates, which no file can hold, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def stratified(candidates: Sequence[Candidate], n: int, seed: int) -> list[Item]:
    """Draw at most n candidates in random order, and record how many candidates each of them represents.

    The strata are the grader's verdicts. If n is large enough, every stratum that is not empty gets at least one place.

    Args:
        candidates: all explanations.
        n: size of the sample.
        seed: seed of the draw.
    """
    strata = {verdict: [candidate for candidate in candidates if candidate.predicted == verdict] for verdict in _STRATA}
    places = _places({verdict: len(members) for verdict, members in strata.items()}, n)
    draws = seeded_generator("label", seed)
    items = [
        Item(
            id=members[i].id,
            text=members[i].text,
            blurb=members[i].blurb,
            weight=len(members) / places[verdict],
            where=members[i].where,
        )
        for verdict, members in strata.items()
        for i in draws.permutation(len(members))[: places[verdict]]
    ]
    return [items[i] for i in draws.permutation(len(items))]


def _places(sizes: dict[Verdict | None, int], n: int) -> dict[Verdict | None, int]:
    """Distribute n places: first the reserved shares of the rare verdicts, then the rest in proportion to what is left of each stratum."""
    places = {verdict: min(size, max(1, round(n * _RARE_SHARE.get(verdict, 0)))) if size else 0 for verdict, size in sizes.items()}
    while sum(places.values()) > n:  # there are fewer places than strata
        places[max(places, key=lambda verdict: places[verdict])] -= 1
    while sum(places.values()) < min(n, sum(sizes.values())):
        demand = {verdict: (size - places[verdict]) / (places[verdict] + 1) for verdict, size in sizes.items()}
        places[max(demand, key=lambda verdict: demand[verdict])] += 1
    return places


def weighted_share(texts: Sequence[LabelledText], annotator: str, verdict: Literal["YES", "NO", "UNCLEAR"], seed: int = 0) -> Estimate:
    """Estimate the share of all explanations that have a verdict, from a sample drawn with unequal probabilities.

    The estimate is the weighted mean (Hajek estimator), with a percentile interval from a bootstrap over texts.

    Args:
        texts: labelled texts with their weights.
        annotator: name of the annotator whose labels are used.
        verdict: the verdict that is counted.
        seed: seed of the bootstrap.
    """
    labelled = [(text.weight, label == verdict) for text in texts if (label := text.verdict_of(annotator)) is not None]
    if not labelled:
        return Estimate(None, None, None, 0, "weighted mean", len(texts), f"{annotator} has labelled nothing")
    weights, hits = np.array([weight for weight, _ in labelled]), np.array([float(hit) for _, hit in labelled])
    mean = float((weights * hits).sum() / weights.sum())
    picks = seeded_generator("share", seed).integers(0, len(labelled), size=(DRAWS, len(labelled)))
    low, high = percentile_interval((weights * hits)[picks].sum(axis=1) / weights[picks].sum(axis=1))
    return Estimate(mean, low, high, len(labelled), "weighted mean, bootstrap over texts", len(texts) - len(labelled))
