"""The file to which people's labels are added. Several annotators, servers and processes can use the same file.

A label is on the disk before the page reports it as saved. To add a label, the process takes a lock, reads the file again, adds the label
and replaces the file in one step. Labels of another process are therefore never overwritten. If a process is killed, the file is complete,
with or without the new label. Only the user who runs the process can read the files.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from audit.labelling.sample import Item, read_candidates, stratified
from graders.base import Verdict
from graders.labelled.labels import Label, LabelledText, read_labels
from graders.rubric import RULES
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, first_line
from nla.support.files import remove_leftovers, replacing
from nla.support.locks import exclusive_lock
from nla.support.seeds import seeded_generator

ADJUDICATOR = "adjudicated"
"""Name under which labels that settle disagreements are saved."""
SESSION_SUFFIX = ".session.json"
_PURPOSE = "audit label"


class Session(BaseModel):
    """The sample to which a file of labels belongs. It is stored beside that file so that labelling can be resumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    n: int
    seed: int
    items: tuple[Item, ...]


class Answer(BaseModel):
    """The fields of a label that an annotator chooses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    format_only: StrictBool = False
    rule: str = Field(default="", max_length=200)
    evidence: str = ""


@dataclass(frozen=True)
class _Step:
    """A label that an annotator gave, and the label it replaced."""

    item: str
    before: Label | None
    given: Label


LabelsByItem = dict[str, dict[str, Label]]
"""Item id -> annotator -> label."""


class Labelling:
    """The labels in one file. Several threads can use an object, and several processes can use the same file.

    Args:
        out: the file of labels; the session file is in the same folder.
        session: the sample.

    Raises:
        DataError: the file cannot be read, or has a label of a text that is not in the sample.
    """

    def __init__(self, out: Path, session: Session) -> None:
        self.out, self.session = out, session
        self._lock = threading.RLock()
        self._items = {item.id: item for item in session.items}
        self._history: dict[str, list[_Step]] = {}
        self._state: tuple[int, ...] = ()
        self._labels: LabelsByItem = {}
        self._read()

    def order(self, annotator: str) -> list[Item]:
        """Return the items of the sample in the order in which this annotator sees them."""
        return [self.session.items[i] for i in seeded_generator("order", self.session.seed, annotator).permutation(len(self.session.items))]

    def label_of(self, item: str, annotator: str) -> Label | None:
        """Return the label of an item by an annotator, or None."""
        return self._current().get(item, {}).get(annotator)

    def disputes(self) -> list[tuple[Item, list[Label]]]:
        """Return the items on which annotators differ, with their labels in an order that does not identify the annotators."""
        disputed = []
        for name, by_annotator in self._current().items():
            labels = [label for label in by_annotator.values() if label.annotator != ADJUDICATOR]
            if len({label.verdict for label in labels}) > 1:
                order = seeded_generator("dispute", self.session.seed, name).permutation(len(labels))
                disputed.append((self._items[name], [labels[i] for i in order]))
        return disputed

    def give(self, annotator: str, item: str, answer: Mapping[str, Any]) -> None:
        """Record an annotator's label of an item, replacing their earlier one. The label is on the disk when this returns.

        Args:
            annotator: name of the annotator.
            item: id of an item of the sample.
            answer: the fields of `Answer`.

        Raises:
            DataError: unknown item, field, verdict or rule, evidence that is not in the text, or a file that cannot be written.
        """
        if item not in self._items:
            raise DataError(f"The sample has no item '{visible(item, limit=40)}'; reload the page.")
        label = _checked_label(annotator, answer, self._items[item].text)
        with self._lock, exclusive_lock(self.out, _PURPOSE, blocking=True, folder=False):
            self._read()
            step = _Step(item, self._labels.get(item, {}).get(annotator), label)
            self._write(item, annotator, label)
            self._history.setdefault(annotator, []).append(step)

    def undo(self, annotator: str) -> str | None:
        """Take back the newest label that an annotator gave through this object. Return its item, or None if there is no such label.

        Raises:
            DataError: another process has changed the label in the meantime, or the file cannot be written.
        """
        with self._lock, exclusive_lock(self.out, _PURPOSE, blocking=True, folder=False):
            history = self._history.get(annotator, [])
            if not history:
                return None
            step = history[-1]
            self._read()
            if self._labels.get(step.item, {}).get(annotator) != step.given:
                history.pop()
                raise DataError("This label has been changed in another window, so it was not taken back. Reload the page to see it.")
            self._write(step.item, annotator, step.before)
            history.pop()
            return step.item

    def texts(self) -> list[LabelledText]:
        """Return the labelled texts in the file, in the order of the sample."""
        return self._texts(self._current())

    def counts(self) -> dict[str, int]:
        """Return the number of labels of each annotator."""
        names = [name for by_annotator in self._current().values() for name in by_annotator]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def _current(self) -> LabelsByItem:
        """Return the labels in the file. The file is read again if another process has replaced it."""
        with self._lock:
            if self._file_state() != self._state:
                self._read()
            return self._labels

    def _read(self) -> None:
        """Read the labels from the file, and replace those in memory."""
        state = self._file_state()
        labels: LabelsByItem = {}
        for text in read_labels(self.out).items if state and state[-1] else ():  # the file is empty if the only label was taken back
            if text.id not in self._items:
                raise DataError(
                    f"{self.out} has a label of text '{visible(text.id, limit=40)}', which is not in its sample; give another file (-o)."
                )
            labels[text.id] = {label.annotator: label for label in text.labels}
        self._state, self._labels = state, labels

    def _file_state(self) -> tuple[int, ...]:
        """Return values that change when the file is replaced, with its size as the last; empty if there is no file."""
        try:
            stat = self.out.stat()
        except FileNotFoundError:
            return ()
        except OSError as ex:
            raise DataError(f"{self.out} cannot be read: {first_line(ex)}.") from None
        return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _write(self, item: str, annotator: str, label: Label | None) -> None:
        """Replace a label (None removes it) in the file and then in memory. The caller must hold the lock."""
        others = {name: other for name, other in self._labels.get(item, {}).items() if name != annotator}
        changed = self._labels | {item: others | ({annotator: label} if label else {})}
        with replacing(self.out, private=True) as scratch:
            scratch.write_text("".join(f"{text.model_dump_json()}\n" for text in self._texts(changed)), encoding="utf-8")
        self._state, self._labels = self._file_state(), changed

    def _texts(self, labels: LabelsByItem) -> list[LabelledText]:
        order = (item for item in self.session.items if labels.get(item.id))
        return [_labelled(item, labels[item.id]) for item in order]


def _checked_label(annotator: str, answer: Mapping[str, Any], text: str) -> Label:
    """Check that an answer is valid for a text, and return it as a label."""
    try:
        fields = Answer.model_validate(dict(answer))
        label = Label(annotator=annotator, kind="person", **fields.model_dump())
    except ValidationError as ex:
        problem = ex.errors(include_url=False, include_context=False, include_input=False)[0]
        place = visible(".".join(str(part) for part in problem["loc"]), limit=60)
        raise DataError(f"This is not a label: {place}: {problem['msg']}.") from None
    if label.rule and label.rule not in RULES:
        raise DataError(f"The rubric has no rule '{visible(label.rule, limit=40)}'; choose a rule from the list.")
    if label.evidence not in text:
        raise DataError("The evidence is not in the text; mark a passage of the text.")
    if label.format_only and label.verdict is Verdict.YES:
        raise DataError("format_only cannot be combined with YES; expected NO or UNCLEAR.")
    return label


def _labelled(item: Item, labels: dict[str, Label]) -> LabelledText:
    return LabelledText(
        id=item.id, text=item.text, blurb=item.blurb, split="test", labels=tuple(labels.values()), note=item.where, weight=item.weight
    )


def open_labelling(source: Path, out: Path, n: int, seed: int) -> Labelling:
    """Start a new file of labels, or resume labelling in an existing one.

    Args:
        source: logs or a table of explanations; see `read_candidates`.
        out: the file of labels.
        n: number of explanations to label.
        seed: seed of the sample.

    Raises:
        ConfigError: the file was started with another source, n or seed, or not by `audit label`.
        DataError: the source has no explanation, or a file cannot be read or written.
    """
    path = out.with_name(out.name + SESSION_SUFFIX)
    with exclusive_lock(out, _PURPOSE, blocking=True, folder=False):
        remove_leftovers(out.parent)
        if out.is_dir():
            raise DataError(f"{out} is a folder; give the path of a file (-o).")
        if path.exists():
            session = _stored_session(path)
            stored, wanted = (session.source, session.n, session.seed), (str(source), n, seed)
            if stored != wanted:
                raise ConfigError(f"{out} was started with (source, n, seed) {stored}, not {wanted}; give the same, or another file (-o).")
        elif out.exists():
            raise ConfigError(f"{out} exists and was not started by `audit label`; give another file (-o).")
        else:
            session = Session(source=str(source), n=n, seed=seed, items=tuple(stratified(read_candidates(source), n, seed)))
            with replacing(path, private=True) as scratch:
                scratch.write_text(session.model_dump_json(indent=1), encoding="utf-8")
    return Labelling(out, session)


def _stored_session(path: Path) -> Session:
    try:
        return Session.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as ex:  # pydantic's errors are ValueErrors
        raise DataError(
            f"{path} cannot be read ({first_line(ex)}); it belongs to the file of labels beside it. Give another file (-o)."
        ) from None
