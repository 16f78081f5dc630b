"""Labelling by people: a stratified sample of explanations, and the file of labels that grows as they work.

The sample takes more of what the grader called YES or UNCLEAR than chance would, since those are rare, and keeps for each
explanation how many it stands for, so that shares over all explanations stay unbiased. The grader's verdicts are not kept: an
annotator must not see them. Every label is on disk before the page hears of it.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audit.labelling.references import read_logs
from audit.stats.rates import Estimate
from graders.base import Verdict
from graders.labelled.labels import Label, LabelledText, read_labels
from graders.rubric import RULES
from nla.support.errors import ConfigError, DataError
from nla.support.files import replacing
from nla.support.rows import read_file
from nla.support.seeds import seeded_generator

ADJUDICATOR = "adjudicated"
"""The annotator who settles disputes."""
SESSION_SUFFIX = ".session.json"
_STRATA: tuple[Verdict | None, ...] = (Verdict.YES, Verdict.UNCLEAR, Verdict.NO, None)
_RARE_SHARE: dict[Verdict | None, float] = {Verdict.YES: 0.35, Verdict.UNCLEAR: 0.15}
"""Shares of the sample kept for them, as far as there are so many."""


@dataclass(frozen=True)
class Candidate:
    """An explanation that could be labelled."""

    id: str
    text: str
    blurb: str
    predicted: Verdict | None
    """What a grader said; None where it has said nothing."""
    where: str


class Item(BaseModel):
    """An explanation of the sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str
    blurb: str
    weight: float = Field(gt=0)
    where: str


class Session(BaseModel):
    """What a file of labels was drawn from, kept beside it so that work goes on after a stop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    n: int
    seed: int
    items: tuple[Item, ...]


def read_candidates(path: Path) -> list[Candidate]:
    """Explanations of Inspect logs (a file or folder), or of a .parquet, .jsonl or .csv file with a column `text` or `explanation`.

    Raises:
        DataError: it is neither, or holds no explanation.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give scored logs, or a .parquet, .jsonl or .csv file with a column `explanation`.")
    found = list(_of_table(path) if path.suffix.lower() in (".parquet", ".jsonl", ".csv") else _of_logs(path))
    if not found:
        raise DataError(f"{path} has no explanation; give scored logs, or a .parquet, .jsonl or .csv file with a column `explanation`.")
    return found


def _of_logs(path: Path) -> Iterator[Candidate]:
    for log in read_logs(path):
        blurb = (log.eval.metadata or {}).get("blurb", "")
        for sample in log.samples or []:
            score = (sample.scores or {}).get("nla_awareness")
            for token in (score.metadata or {}).get("tokens", []) if score else []:
                where = f"{log.eval.task}, {sample.id}, epoch {sample.epoch}, position {token['position']}"
                if token["explanation"].strip():
                    yield _candidate(token["explanation"], blurb, token["verdict"], f"{log.eval.run_id} {where}", where)


def _of_table(path: Path) -> Iterator[Candidate]:
    for number, row in enumerate(read_file(path), 1):
        text = row.get("explanation") or row.get("text")
        if not isinstance(text, str):
            raise DataError(f"{path}, row {number}, has no text; expected a column `text` or `explanation`.")
        verdict = row.get("verdict") if row.get("verdict") in _STRATA else None
        if text.strip():
            yield _candidate(text, str(row.get("blurb") or ""), verdict, f"{row.get('id') or number}", f"row {number}")


def _candidate(text: str, blurb: str, predicted: Any, key: str, where: str) -> Candidate:
    digest = hashlib.sha256(f"{key}\0{text}".encode(errors="surrogatepass")).hexdigest()[:16]
    return Candidate(digest, text, blurb, predicted, where)


def stratified(candidates: Sequence[Candidate], n: int, seed: int) -> list[Item]:
    """At most n of the candidates, in a shuffled order, with the number of candidates each stands for.

    Strata are the predicted verdicts; every stratum that has anything gets at least one place while there are places.

    Args:
        candidates: all explanations.
        n: size of the sample.
        seed: of the draw.
    """
    strata = {verdict: [one for one in candidates if one.predicted == verdict] for verdict in _STRATA}
    places = _places({verdict: len(ones) for verdict, ones in strata.items()}, n)
    draws = seeded_generator("label", seed)
    items = [
        Item(id=ones[i].id, text=ones[i].text, blurb=ones[i].blurb, weight=len(ones) / places[verdict], where=ones[i].where)
        for verdict, ones in strata.items()
        for i in draws.permutation(len(ones))[: places[verdict]]
    ]
    return [items[i] for i in draws.permutation(len(items))]


def _places(sizes: dict[Verdict | None, int], n: int) -> dict[Verdict | None, int]:
    """Places of each stratum: the rare verdicts' shares first, what is left in proportion to what is left of each stratum."""
    places = {verdict: min(size, max(1, round(n * _RARE_SHARE.get(verdict, 0)))) if size else 0 for verdict, size in sizes.items()}
    while sum(places.values()) > n:  # fewer places than strata
        places[max(places, key=lambda verdict: places[verdict])] -= 1
    while sum(places.values()) < min(n, sum(sizes.values())):
        open_to = {verdict: (size - places[verdict]) / (places[verdict] + 1) for verdict, size in sizes.items()}
        places[max(open_to, key=lambda verdict: open_to[verdict])] += 1
    return places


class Labelling:
    """The labels of one file, given by one or several annotators; safe to use from several threads.

    Args:
        out: the file of labels; its session lies beside it.
        session: the sample.
    """

    def __init__(self, out: Path, session: Session) -> None:
        self.out, self.session = out, session
        self._lock = threading.Lock()
        self._items = {item.id: item for item in session.items}
        self._labels: dict[str, dict[str, Label]] = {item.id: {} for item in session.items}
        self._history: dict[str, list[tuple[str, Label | None]]] = {}
        if out.exists():
            for text in read_labels(out).items:
                if text.id not in self._labels:
                    raise DataError(f"{out} has a label on {text.id}, which is not in its sample; give another file (-o).")
                self._labels[text.id] = {label.annotator: label for label in text.labels}

    def order(self, annotator: str) -> list[Item]:
        """The sample in this annotator's own order."""
        return [self.session.items[i] for i in seeded_generator("order", self.session.seed, annotator).permutation(len(self.session.items))]

    def label_of(self, item: str, annotator: str) -> Label | None:
        """What an annotator said of an item."""
        with self._lock:
            return self._labels[item].get(annotator)

    def disputes(self) -> list[tuple[Item, list[Label]]]:
        """Items on which annotators differ, with their labels in an order that does not give them away."""
        with self._lock:
            found = []
            for name, given in self._labels.items():
                labels = [label for label in given.values() if label.annotator != ADJUDICATOR]
                if len({label.verdict for label in labels}) > 1:
                    order = seeded_generator("dispute", self.session.seed, name).permutation(len(labels))
                    found.append((self._items[name], [labels[i] for i in order]))
            return found

    def give(self, annotator: str, item: str, **said: Any) -> None:
        """Record what an annotator says of an item, in place of what they said before; on disk when this returns.

        Raises:
            DataError: no such item, verdict or rule, or evidence that does not stand in the text.
        """
        if item not in self._items:
            raise DataError(f"there is no item {item[:40]!r} in the sample.")
        try:
            label = Label(annotator=annotator, kind="person", **said)
        except (ValidationError, TypeError) as ex:
            raise DataError(f"this is no label: {str(ex).splitlines()[0]}") from None
        if label.rule and label.rule not in RULES:
            raise DataError(f"there is no rule {label.rule[:40]!r} in the rubric.")
        if label.evidence not in self._items[item].text:
            raise DataError("the evidence does not stand in the text.")
        if label.format_only and label.verdict == "YES":
            raise DataError("format_only goes with NO or UNCLEAR, not with YES.")
        with self._lock:
            before = self._labels[item].get(annotator)
            self._put(item, annotator, label)
            self._history.setdefault(annotator, []).append((item, before))

    def undo(self, annotator: str) -> str | None:
        """Take back an annotator's newest label; returns its item, or None where there is nothing to take back."""
        with self._lock:
            history = self._history.get(annotator, [])
            if not history:
                return None
            item, before = history[-1]
            self._put(item, annotator, before)
            history.pop()
            return item

    def _put(self, item: str, annotator: str, label: Label | None) -> None:
        """Change a label on disk first, and in memory only when that went well."""
        changed = self._labels | {
            item: {name: one for name, one in self._labels[item].items() if name != annotator} | ({annotator: label} if label else {})
        }
        texts = self._texts(changed)
        with replacing(self.out) as scratch:
            scratch.write_text("".join(f"{text.model_dump_json()}\n" for text in texts), encoding="utf-8")
        self._labels = changed

    def texts(self) -> list[LabelledText]:
        """What has been labelled, as it stands in the file."""
        with self._lock:
            return self._texts(self._labels)

    def _texts(self, labels: dict[str, dict[str, Label]]) -> list[LabelledText]:
        return [_labelled(self._items[name], given) for name, given in labels.items() if given]

    def counts(self) -> dict[str, int]:
        """Labels given, by annotator."""
        with self._lock:
            names = [name for labels in self._labels.values() for name in labels]
            return {name: names.count(name) for name in dict.fromkeys(names)}


def _labelled(item: Item, labels: dict[str, Label]) -> LabelledText:
    return LabelledText(
        id=item.id, text=item.text, blurb=item.blurb, split="test", labels=tuple(labels.values()), note=item.where, weight=item.weight
    )


def open_labelling(source: Path, out: Path, n: int, seed: int) -> Labelling:
    """Start a file of labels, or go on with it.

    Raises:
        ConfigError: the file was begun with another source, size or seed, or is no file of this kind.
        DataError: the source has no explanation, or a file cannot be read or written.
    """
    path = out.with_name(out.name + SESSION_SUFFIX)
    try:
        if path.exists():
            session = Session.model_validate_json(path.read_bytes())
            found, asked = (session.source, session.n, session.seed), (str(source), n, seed)
            if found != asked:
                raise ConfigError(f"{out} was begun with (source, n, seed) {found}, not {asked}; give the same, or another file (-o).")
        elif out.exists():
            raise ConfigError(f"{out} exists and was not begun by `audit label`; give another file (-o).")
        else:
            session = Session(source=str(source), n=n, seed=seed, items=tuple(stratified(read_candidates(source), n, seed)))
            with replacing(path) as scratch:
                scratch.write_text(session.model_dump_json(indent=1), encoding="utf-8")
    except ValidationError as ex:
        raise DataError(f"{path} cannot be read: {str(ex).splitlines()[0]}") from None
    except OSError as ex:
        raise DataError(f"{out} cannot be written: {ex.strerror}.") from ex
    return Labelling(out, session)


def weighted_share(texts: Sequence[LabelledText], annotator: str, verdict: Literal["YES", "NO", "UNCLEAR"], seed: int = 0) -> Estimate:
    """Share of all explanations with a verdict, from a sample with unequal chances: the weighted mean (Hajek), bootstrap interval.

    Args:
        texts: labelled texts with their weights.
        annotator: whose labels.
        verdict: the one counted.
        seed: of the bootstrap over texts (2,000 draws).
    """
    pairs = [(text.weight, said == verdict) for text in texts if (said := text.verdict_of(annotator)) is not None]
    if not pairs:
        return Estimate(None, None, None, 0, "weighted mean", len(texts), f"{annotator} labelled nothing")
    weights, hits = np.array([weight for weight, _ in pairs]), np.array([float(hit) for _, hit in pairs])
    picks = seeded_generator("share", seed).integers(0, len(pairs), size=(2000, len(pairs)))
    shares = (weights * hits)[picks].sum(axis=1) / weights[picks].sum(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    mean = float((weights * hits).sum() / weights.sum())
    return Estimate(mean, float(low), float(high), len(pairs), "weighted mean, bootstrap over texts", len(texts) - len(pairs))
