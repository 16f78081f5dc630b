"""Labelling: the sample represents all explanations, labels are on the disk at once, and wrong ones change nothing."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.labelling.sample import Candidate, read_candidates, stratified, weighted_share
from audit.labelling.session import ADJUDICATOR, open_labelling
from graders.labelled.labels import Label, LabelledText, read_labels
from nla.support.errors import ConfigError, DataError
from reports.cli import labelling_summary
from tests.label_source import write_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path)


def candidates(sizes: dict[Any, int]) -> list[Candidate]:
    return [Candidate(f"{verdict}-{i}", f"text {i}", "", verdict, "") for verdict, size in sizes.items() for i in range(size)]


SIZES = st.fixed_dictionaries({verdict: st.integers(0, 60) for verdict in ("YES", "UNCLEAR", "NO", None)})


@given(SIZES, st.integers(4, 80), st.integers(0, 9))
def test_the_sample_has_the_size_asked_for_and_its_weights_add_up_to_all(sizes: dict[Any, int], n: int, seed: int) -> None:
    everything = candidates(sizes)
    items = stratified(everything, n, seed)
    assert len(items) == min(n, len(everything)) == len({item.id for item in items})
    assert sum(item.weight for item in items) == pytest.approx(len(everything))
    assert items == stratified(everything, n, seed)
    chosen = {item.id.split("-")[0] for item in items}
    assert chosen == {str(verdict) for verdict, size in sizes.items() if size}  # each stratum is there


def test_rare_verdicts_are_sampled_more_often_and_the_share_stays_unbiased() -> None:
    everything = candidates({"YES": 20, "UNCLEAR": 10, "NO": 970})
    truly_yes = {f"YES-{i}" for i in range(15)} | {f"NO-{i}" for i in range(97)}  # the grader errs both ways
    shares = []
    for seed in range(150):
        items = stratified(everything, 100, seed)
        assert sum(item.id.startswith("YES") for item in items) == 20
        texts = [
            LabelledText(
                id=item.id,
                text=item.text,
                split="test",
                weight=item.weight,
                labels=(Label(annotator="a", kind="person", verdict="YES" if item.id in truly_yes else "NO"),),
            )
            for item in items
        ]
        shares.append(weighted_share(texts, "a", "YES").estimate or 0)
    assert sum(shares) / len(shares) == pytest.approx(len(truly_yes) / 1000, abs=0.01)
    assert weighted_share([], "a", "YES").estimate is None


def test_labels_are_on_disk_at_once_and_can_be_taken_back(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    labelling = open_labelling(source, out, 10, 0)
    first, second = labelling.order("ann")[:2]
    labelling.give("ann", first.id, {"verdict": "NO", "format_only": True, "rule": "prompt_format", "evidence": first.text[:5]})
    labelling.give("ben", first.id, {"verdict": "YES"})
    labelling.give("ann", second.id, {"verdict": "UNCLEAR"})
    assert labelling.undo("ann") == second.id
    labelling.give("ann", first.id, {"verdict": "YES"})
    assert labelling.undo("ann") == first.id
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("labels*")} == {
        "labels.jsonl": 0o600,
        "labels.jsonl.session.json": 0o600,
    }
    again = open_labelling(source, out, 10, 0)
    assert again.label_of(first.id, "ann") == labelling.label_of(first.id, "ann")
    assert again.label_of(first.id, "ann").verdict == "NO"  # type: ignore[union-attr]
    [text] = read_labels(out).items
    assert [label.annotator for label in text.labels] == ["ben", "ann"]
    assert (text.weight, text.blurb) == (1, "A test of knowledge.")
    [(item, labels)] = again.disputes()
    assert item == first
    assert {label.verdict for label in labels} == {"YES", "NO"}
    again.give(ADJUDICATOR, first.id, {"verdict": "NO"})
    assert read_labels(out).reference(read_labels(out).items[0]) == "NO"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"verdict": "MAYBE"}, "not a label: verdict"),
        ({"verdict": "NO", "rule": "mine"}, "no rule"),
        ({"verdict": "NO", "evidence": "not there"}, "is not in the text"),
        ({"verdict": "NO", "evidence": "\ud800"}, "is not in the text"),
        ({"verdict": "YES", "format_only": True}, "cannot be combined with YES"),
        ({"verdict": "NO", "format_only": float("nan")}, "not a label: format_only"),
        ({"verdict": "NO", "weight": 3}, "not a label: weight"),
        ({"verdict": "NO", "item": "x"}, "not a label: item"),
        ({"verdict": "NO", "self": "x", "annotator": "y", "kind": "model"}, "not a label: self"),
        ({"verdict": "NO", "\ud800": 1}, "not a label"),
        ({"verdict": 10**400}, "not a label: verdict"),
        ({}, "not a label: verdict: Field required"),
    ],
)
def test_what_is_no_label_is_refused_and_changes_nothing(source: Path, tmp_path: Path, answer: dict[str, Any], message: str) -> None:
    labelling = open_labelling(source, tmp_path / "labels.jsonl", 10, 0)
    with pytest.raises(DataError, match=message):
        labelling.give("ann", labelling.session.items[0].id, answer)
    with pytest.raises(DataError, match="no item"):
        labelling.give("ann", "other", {"verdict": "NO"})
    assert not labelling.out.exists()


def test_a_file_is_not_mixed_with_another_sample(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    open_labelling(source, out, 3, 0)
    with pytest.raises(ConfigError, match="was started with"):
        open_labelling(source, out, 4, 0)
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}")
    with pytest.raises(ConfigError, match="not started by"):
        open_labelling(source, mine, 3, 0)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="no explanation"):
        open_labelling(empty, tmp_path / "x.jsonl", 3, 0)
    empty.write_text('{"a": 1}')
    with pytest.raises(DataError, match="no text"):
        open_labelling(empty, tmp_path / "x.jsonl", 3, 0)
    with pytest.raises(DataError, match="does not exist; expected scored logs"):
        open_labelling(tmp_path / "nothing.jsonl", tmp_path / "x.jsonl", 3, 0)
    assert not (tmp_path / "x.jsonl").exists()


def test_a_line_separator_inside_a_text_is_no_new_row(tmp_path: Path) -> None:
    path = tmp_path / "explanations.jsonl"
    path.write_text(json.dumps({"explanation": "one\u2028line"}, ensure_ascii=False), encoding="utf-8")
    assert [one.text for one in read_candidates(path)] == ["one\u2028line"]


def test_a_file_whose_only_label_was_taken_back_is_resumed(source: Path, tmp_path: Path) -> None:
    labelling = open_labelling(source, tmp_path / "labels.jsonl", 10, 0)
    item = labelling.session.items[0].id
    labelling.give("ann", item, {"verdict": "NO"})
    assert (labelling.undo("ann"), labelling.undo("ann")) == (item, None)
    again = open_labelling(source, labelling.out, 10, 0)
    assert again.counts() == {}
    again.give("ann", item, {"verdict": "YES"})
    assert [label.verdict for text in read_labels(labelling.out).items for label in text.labels] == ["YES"]


def test_two_windows_on_one_file_see_each_others_labels_and_undo_takes_back_only_ones_own(source: Path, tmp_path: Path) -> None:
    first, second = (open_labelling(source, tmp_path / "labels.jsonl", 10, 0) for _ in range(2))
    a, b = (item.id for item in first.session.items[:2])
    first.give("ann", a, {"verdict": "NO"})
    second.give("ben", a, {"verdict": "YES"})
    second.give("ann", b, {"verdict": "YES"})
    assert first.counts() == second.counts() == {"ann": 2, "ben": 1}
    second.give("ann", a, {"verdict": "UNCLEAR"})
    with pytest.raises(DataError, match="changed in another window"):
        first.undo("ann")
    assert str(first.label_of(a, "ann").verdict) == "UNCLEAR"  # type: ignore[union-attr]
    assert first.undo("ann") is None
    assert second.undo("ann") == a
    assert str(first.label_of(a, "ann").verdict) == "NO"  # type: ignore[union-attr]


def test_an_explanation_that_occurs_twice_in_a_source_is_one_item(tmp_path: Path) -> None:
    path = tmp_path / "explanations.jsonl"
    rows = [{"id": "a", "explanation": "same"}, {"id": "a", "explanation": "same"}, {"id": "b", "explanation": "same"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert len(read_candidates(path)) == 2
    assert sum(item.weight for item in open_labelling(path, tmp_path / "labels.jsonl", 10, 0).session.items) == 2


def test_lone_surrogates_and_control_characters_in_a_source_can_be_labelled(tmp_path: Path) -> None:
    path = tmp_path / "explanations.jsonl"
    path.write_text(json.dumps({"explanation": "odd \ud800 text \x1b]0;title\x07", "blurb": "\udfff"}))
    labelling = open_labelling(path, tmp_path / "labels.jsonl", 10, 0)
    [item] = labelling.session.items
    assert item.text == "odd \ufffd text \x1b]0;title\x07"
    labelling.give("[/b]", item.id, {"verdict": "NO", "evidence": "odd \ufffd"})
    assert read_labels(labelling.out).items[0].text == item.text
    assert labelling_summary(labelling)[0].startswith("[/b]: 1 of 1 labelled")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"source": "x", "n": 1e999, "seed": 0, "items": []}', "[" * 10_000, "\udcff"])
def test_a_damaged_session_is_named(content: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    out.with_name("labels.jsonl.session.json").write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=r"labels\.jsonl\.session\.json cannot be read"):
        open_labelling(source, out, 10, 0)
