"""Files of labels with anything in them are read or refused, and names in them reach the terminal as plain text."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.log import EvalLog, EvalSample, EvalSpec, write_eval_log
from inspect_ai.log._log import EvalConfig, EvalDataset
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score

import audit.cli
from audit.labelling.reference_texts import read_reference_texts
from audit.labelling.sample import read_candidates
from graders.labelled.labels import read_labels
from nla.support.display import visible
from nla.support.errors import DataError
from tests.fuzz_inputs import inputs

CHARACTERS = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["\ud800", "\x1b[2J", "[/b]", "\u202e", "\x00", "NaN", "person:a", "model:"]
)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | CHARACTERS | st.sampled_from([10**4000, float("inf"), float("nan"), -0.0])
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CHARACTERS, inner, max_size=3), max_leaves=6)
VERDICTS = st.sampled_from(["YES", "NO", "UNCLEAR"]) | VALUES
LABEL = st.fixed_dictionaries(
    {"annotator": st.just("a") | VALUES, "kind": st.sampled_from(["person", "model"]) | VALUES, "verdict": VERDICTS}
)
KEYS = {
    "id": st.sampled_from(["1", "2"]) | VALUES,
    "text": st.just("x") | VALUES,
    "split": st.just("test") | VALUES,
    "labels": st.lists(LABEL, max_size=2) | VALUES,
    "annotator": st.just("a") | VALUES,
    "verdict": VERDICTS,
    "kind": VALUES,
    "format_only": VALUES,
    "weight": VALUES,
}
ROWS = st.lists(
    st.fixed_dictionaries({}, optional=KEYS) | st.dictionaries(st.sampled_from([*KEYS, "a"]) | CHARACTERS, VALUES, max_size=5) | VALUES,
    max_size=4,
)


def dumped(value: Any) -> str:
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value)
    finally:
        sys.set_int_max_str_digits(4300)


def is_read_or_refused(path: Path) -> None:
    """The documented error with one line, or labels that can be written again."""
    labels, refused = None, ""
    try:
        labels = read_labels(path)
    except DataError as ex:
        refused = ex.text
    assert (refused == visible(refused), len(refused) < 1000) == (True, True), refused
    for item in labels.items if labels else ():
        assert item.model_dump_json().encode()
        assert labels is not None
        assert labels.reference(item) in ("YES", "NO", "UNCLEAR", None)


@given(ROWS)
@settings(max_examples=inputs(300), deadline=None)
def test_a_jsonl_file_with_anything_in_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_text("\n".join(map(dumped, rows)), encoding="utf-8")
    is_read_or_refused(path)


@given(
    st.lists(
        st.lists(st.sampled_from(["id", "text", "a", "YES", "NO", "1", "", "verdict", "annotator"]) | CHARACTERS, max_size=4), max_size=5
    )
)
@settings(max_examples=inputs(200), deadline=None)
def test_a_csv_file_with_anything_in_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path, buffer = tmp_path_factory.getbasetemp() / "fuzz.csv", io.StringIO()
    csv.writer(buffer).writerows(rows)
    path.write_text(buffer.getvalue(), encoding="utf-8", errors="surrogatepass")
    is_read_or_refused(path)


@given(st.binary(max_size=60))
@settings(max_examples=inputs(100), deadline=None)
def test_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for suffix in (".csv", ".jsonl"):
        path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
        path.write_bytes(content)
        is_read_or_refused(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"id": ' + "[" * 900 + "]" * 900 + "}", "line 1"),
        ('{"id": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"id": "1", "text": "x", "a": "YES", "a": "NO"}', "the key 'a' is repeated"),
        ('{"id": "1", "text": "\\ud800", "a": "YES"}', "surrogate"),
        ('{"id": "1", "text": "x", "split": "test", "labels": [], "weight": Infinity}', "weight: Input should be a finite number"),
        ('{"id": "1", "text": "x", "annotator": "a", "verdict": "YES", "kind": ["person"]}', "labels.0.kind"),
    ],
)
def test_hostile_lines_are_refused_with_their_place(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(line)
    with pytest.raises(DataError, match="line 1") as refused:
        read_labels(path)
    assert said in refused.value.text


def test_names_and_texts_of_a_file_are_plain_text_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = ["[/b]", "[red]x", "a\x1b]0;title\x07", "\u202egnirts"]
    path = tmp_path / "labels.jsonl"
    rows = [
        {"id": f"[/i]{i}", "text": f"[/INST] \x1b[2J text {i}", "split": "test", "rule": "[/r]\x9b", "style": "[bold]", "labels": [
            {"annotator": name, "kind": "person", "verdict": "YES" if name == hostile[i % 4] else "NO"} for name in hostile
        ]}
        for i in range(6)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["audit", "agreement", str(path)])
    with pytest.raises(SystemExit) as left:
        audit.cli.main()
    shown = capsys.readouterr().out
    assert left.value.code in (0, None)
    assert all(
        text in shown for text in ("[/b]", "[red]x", "a\\x1b]0;title\\x07", "\\u202egnirts", "[/r]\\x9b", "[bold]", "[/INST] \\x1b[2J")
    )
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


def scored_log(path: Path, created: str, status: str = "success", *, error: bool = False) -> None:
    """A log of one task with two samples of two explanations each, as a run of the same cell would write it."""
    token = {"token": "a", "token_id": 1, "pass": 0, "message": 1, "channel": "answer", "verdict": "NO"}
    samples = [
        EvalSample(
            id=i, epoch=1, input="hello", target="", output=ModelOutput(model="m"),
            scores={"nla_awareness": Score(value=0, metadata={
                "tokens": [token | {"position": j, "explanation": f"Text {i} {j}."} for j in range(2)]})},
        )
        for i in range(2)
    ]  # fmt: skip
    if error:
        from inspect_ai._util.error import EvalError

        samples.append(
            EvalSample(id=9, epoch=1, input="hello", target="", error=EvalError(message="boom", traceback="", traceback_ansi=""))
        )
    spec = EvalSpec(
        created=created, task="wildchat", dataset=EvalDataset(), model="local/m", config=EvalConfig(), run_id=created, task_id="t"
    )
    write_eval_log(EvalLog(eval=spec, status=status, samples=samples), str(path))  # type: ignore[arg-type]


def test_after_a_kill_and_a_resume_label_and_agreement_count_each_item_once(tmp_path: Path) -> None:
    scored_log(tmp_path / "killed.eval", "2026-01-01T00:00:00+00:00", "started")
    scored_log(tmp_path / "first.eval", "2026-01-01T01:00:00+00:00")
    scored_log(tmp_path / "resumed.eval", "2026-01-01T02:00:00+00:00", error=True)
    (tmp_path / "cut.eval").write_bytes((tmp_path / "first.eval").read_bytes()[:1000])
    candidates = read_candidates(tmp_path)
    assert sorted(candidate.text for candidate in candidates) == [f"Text {i} {j}." for i in range(2) for j in range(2)]
    read = read_reference_texts([tmp_path, tmp_path / "first.eval"])
    assert (len(read.logs), len(read.texts), read.n_failed) == (1, 4, 1)
    assert read_reference_texts([tmp_path / "first.eval"]).n_failed == 0


def test_the_flat_long_form_is_the_same_labels(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("id,text,annotator,verdict\n1,x,a,YES\n1,x,b,NO\n2,y,a,NO\n")
    rows = [{"id": "1", "text": "x", "a": "YES", "b": "NO"}, {"id": "2", "text": "y", "a": "NO", "b": None}]
    (tmp_path / "wide.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = read_labels(tmp_path / "long.csv"), read_labels(tmp_path / "wide.jsonl")
    assert first.items == second.items
    assert first.assumed == second.assumed == ("a", "b")
    assert {item.split for item in first.items} == {"test"}
