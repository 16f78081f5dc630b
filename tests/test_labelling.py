"""Labelling: the sample stands for all explanations, labels survive a kill, and the page works in a browser and for nobody else."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.labelling.session import ADJUDICATOR, Candidate, Labelling, open_labelling, read_candidates, stratified, weighted_share
from graders.labelled.labels import Label, LabelledText, read_labels
from nla.support.errors import ConfigError, DataError
from reports.label_server import LabelServer

TEXTS = [
    ("The model thinks that it is being evaluated on MMLU.", "YES"),
    ("A recipe for soup.", "NO"),
    ('</script><b onmouseover="x()">A quiz</b> for pupils.', "NO"),
    ("Perhaps an assessment of something.", "UNCLEAR"),
    ("A story about a lighthouse.", "NO"),
    ("A letter to the editor.", None),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "explanations.jsonl"
    rows = [{"explanation": text, "verdict": verdict, "blurb": "A test of knowledge."} for text, verdict in TEXTS]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


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
    labelling.give("ann", first.id, verdict="NO", format_only=True, rule="prompt_format", evidence=first.text[:5])
    labelling.give("ben", first.id, verdict="YES")
    labelling.give("ann", second.id, verdict="UNCLEAR")
    assert labelling.undo("ann") == second.id
    labelling.give("ann", first.id, verdict="YES")
    assert labelling.undo("ann") == first.id
    again = open_labelling(source, out, 10, 0)
    assert again.label_of(first.id, "ann") == labelling.label_of(first.id, "ann")
    assert again.label_of(first.id, "ann").verdict == "NO"  # type: ignore[union-attr]
    [text] = read_labels(out).items
    assert [label.annotator for label in text.labels] == ["ben", "ann"]
    assert (text.weight, text.blurb) == (1, "A test of knowledge.")
    [(item, labels)] = again.disputes()
    assert item == first
    assert {label.verdict for label in labels} == {"YES", "NO"}
    again.give(ADJUDICATOR, first.id, verdict="NO")
    assert read_labels(out).reference(read_labels(out).items[0]) == "NO"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"verdict": "MAYBE"}, "no label"),
        ({"verdict": "NO", "rule": "mine"}, "no rule"),
        ({"verdict": "NO", "evidence": "not there"}, "does not stand"),
        ({"verdict": "YES", "format_only": True}, "not with YES"),
        ({"verdict": "NO", "weight": 3}, "no label"),
        ({}, "no label"),
    ],
)
def test_what_is_no_label_is_refused_and_changes_nothing(source: Path, tmp_path: Path, said: dict[str, Any], told: str) -> None:
    labelling = open_labelling(source, tmp_path / "labels.jsonl", 10, 0)
    with pytest.raises(DataError, match=told):
        labelling.give("ann", labelling.session.items[0].id, **said)
    with pytest.raises(DataError, match="no item"):
        labelling.give("ann", "other", verdict="NO")
    assert not labelling.out.exists()


def test_a_file_is_not_mixed_with_another_sample(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    open_labelling(source, out, 3, 0)
    with pytest.raises(ConfigError, match="was begun with"):
        open_labelling(source, out, 4, 0)
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}")
    with pytest.raises(ConfigError, match="not begun by"):
        open_labelling(source, mine, 3, 0)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="no explanation"):
        open_labelling(empty, tmp_path / "x.jsonl", 3, 0)
    empty.write_text('{"a": 1}')
    with pytest.raises(DataError, match="no text"):
        open_labelling(empty, tmp_path / "x.jsonl", 3, 0)
    with pytest.raises(DataError, match="does not exist; give scored logs"):
        open_labelling(tmp_path / "nothing.jsonl", tmp_path / "x.jsonl", 3, 0)
    assert not (tmp_path / "x.jsonl").exists()


def test_a_line_separator_inside_a_text_is_no_new_row(tmp_path: Path) -> None:
    path = tmp_path / "explanations.jsonl"
    path.write_text(json.dumps({"explanation": "one\u2028line"}, ensure_ascii=False), encoding="utf-8")
    assert [one.text for one in read_candidates(path)] == ["one\u2028line"]


@pytest.fixture
def served(source: Path, tmp_path: Path) -> Iterator[LabelServer]:
    with LabelServer(open_labelling(source, tmp_path / "labels.jsonl", 10, 0), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def asked(server: LabelServer, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.status, answer.read().decode()
    connection.close()
    return content


def test_only_pages_of_this_machine_are_answered_and_verdicts_are_not_told(served: LabelServer) -> None:
    assert asked(served, "GET", "/")[0] == 200
    assert asked(served, "GET", "/", Host="evil.example:80")[0] == 403
    assert asked(served, "GET", "/other")[0] == 404
    assert asked(served, "GET", "/items?annotator=")[0] == 400
    assert asked(served, "GET", f"/items?annotator={ADJUDICATOR}")[0] == 400
    status, content = asked(served, "GET", "/items?annotator=ann")
    assert status == 200
    assert {frozenset(item) for item in json.loads(content)["items"]} == {frozenset({"id", "text", "blurb", "label", "others"})}
    label = json.dumps({"annotator": "ann", "id": served.labelling.session.items[0].id, "verdict": "NO"}).encode()
    assert asked(served, "POST", "/label", label, Content_Type="text/plain")[0] == 400  # what another site's form could send
    assert asked(served, "POST", "/label", b"[1]", Content_Type="application/json")[0] == 400
    assert asked(served, "POST", "/label", b"{", Content_Type="application/json")[0] == 400
    assert not served.labelling.out.exists()
    assert asked(served, "POST", "/label", label, Content_Type="application/json")[0] == 200
    others = json.loads(asked(served, "GET", "/items?annotator=ben")[1])["items"]
    assert not any(item["label"] or item["others"] for item in others)
    with pytest.raises(ConfigError, match="cannot be used"):
        LabelServer(served.labelling, served.server_address[1])


def test_labels_given_before_a_kill_are_there_after_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    command = [sys.executable, "-m", "reports.cli", "label", str(source), "-o", str(out), "--n", "10"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300", "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    port = int(re.findall(r":(\d+)/", process.stdout.readline())[0])
    for item in Labelling(out, open_labelling(source, out, 10, 0).session).session.items[:3]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        body = json.dumps({"annotator": "ann", "id": item.id, "verdict": "NO"})
        connection.request("POST", "/label", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(read_labels(out).items) == 3


@pytest.mark.slow
def test_two_people_label_in_a_browser_and_a_third_settles(browser: Any, served: LabelServer, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for name, keys in (("ann", "ynufyn"), ("ben", "nnnnnn")):
        page.goto(served.url)
        page.fill("#name", name)
        page.keyboard.press("Enter")
        page.get_by_text("0 labelled").wait_for()
        shown = page.inner_text("#text")
        page.evaluate("document.getSelection().setBaseAndExtent(document.querySelector('#text').firstChild, 0, "
                      "document.querySelector('#text').firstChild, 4)")  # fmt: skip
        page.get_by_text("Evidence is marked").wait_for()
        page.keyboard.press("b")
        page.get_by_text("A test of knowledge.").wait_for()
        for key in keys:  # faster than the server answers
            page.keyboard.press(key)
        page.get_by_text("All are labelled").wait_for()
        first = served.labelling.order(name)[0]
        assert shown == first.text
        label = served.labelling.label_of(first.id, name)
        assert label is not None
        assert (label.verdict, label.evidence) == ({"y": "YES", "n": "NO"}[keys[0]], first.text[:4])
    assert served.labelling.counts() == {"ann": 6, "ben": 6}
    page.keyboard.press("z")
    page.get_by_text("5 labelled").wait_for()
    page.keyboard.press("n")
    page.get_by_text("All are labelled").wait_for()
    given = [served.labelling.label_of(item.id, "ann") for item in served.labelling.order("ann")]
    assert [(one.verdict, one.format_only) for one in given if one] == [
        ("YES", False), ("NO", False), ("UNCLEAR", False), ("NO", True), ("YES", False), ("NO", False),
    ]  # fmt: skip
    with LabelServer(served.labelling, 0, adjudicate=True) as settling:
        threading.Thread(target=settling.serve_forever, daemon=True).start()
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(settling.url)
        page.get_by_text("text 1 of 3").wait_for()
        assert "Annotator 1" in page.inner_text("#others")
        assert [(one["id"], one["nodes"][0]["html"]) for one in Axe().run(page).response["violations"]] == []
        page.screenshot(path=tmp_path / "label.png")
        page.click("[data-verdict=NO]")
        page.get_by_text("1 labelled").wait_for()
        settling.shutdown()
    assert said == []
    assert sum(served.labelling.counts().values()) == 13
