"""The report: its numbers are audit.json's, hostile strings stay inert, and a browser can use it offline."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit.analysis.analyze import analyze_tables
from audit.analysis.compare import compare
from audit.analysis.stored import StoredAudit, read_stored, write_stored
from audit.analysis.training_curves import TrainingPoint
from audit.config import make_audit
from audit.controls.record import Auroc, InstrumentControls, TaskControls
from audit.stats.correction import GraderError
from audit.stats.rates import wilson
from nla.organisms.stored_check import StoredCheck
from reports.build import build_report
from reports.compare_page import build_comparison, change_text
from reports.figures import all_figures
from reports.output import STAMP_FILE
from reports.transcript_data import CHUNK, data_block, transcript_data
from reports.words import CAVEAT, rate_text, summary
from tests.test_audit_run import transcripts as base_table

HOSTILE = (
    '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1">=HYPERLINK("http://x") \u202e\x07 **bold** `code`'
)


CONTROLS = InstrumentControls(
    vectors={kind: wilson(hits, 40) for kind, hits in (("real", 8), ("shuffled", 1), ("random", 0), ("mean", 2))},
    failed={"real": 0, "shuffled": 3, "random": 0, "mean": 0},
    tasks=[
        TaskControls(
            "exam", "benchmark", wilson(9, 30), wilson(1, 30), wilson(0, 0), Auroc(0.7, 0.6, 0.8, 30, 30), Auroc(0.9, 0.8, 1, 30, 30)
        ),
        TaskControls("chat", "deployment control", wilson(0, 30), wilson(0, 30), wilson(0, 0), None, None),
    ],
)


TRAINING = [TrainingPoint("ar", 80 * (i + 1), "heldout_fve_sampled", value) for i, value in enumerate((0.3, 0.4))]


def table(n: int = 30) -> pd.DataFrame:
    base = base_table(n)
    steered = [
        base.assign(condition=f"{name}+0.1", direction=name, strength=0.1, internal=(np.arange(len(base)) % 2).astype(float))
        for name in ("awareness", "random-1")
    ]
    stated = base.assign(condition="positive_control", internal=1.0)
    asked = base[base.role == "benchmark"]
    framed = [
        asked.assign(condition=name, framing=name, internal=(np.arange(len(asked)) % every == 0).astype(float))
        for name, every in (("realistic", 3), ("paraphrase", 2))
    ]
    whole = pd.concat([base, stated, *framed, *steered], ignore_index=True)
    return whole.assign(transcript=np.arange(len(whole)), source="bundled", log="a.eval")


def explanations(transcripts: pd.DataFrame, text: str = "It reads like a test question.", k: int = 3) -> pd.DataFrame:
    rows = [
        {"transcript": number, "token": " the", "position": 10 + i, "channel": "answer", "explanation": text, "rule": "r", "reason": ""}
        | {"message": 2, "start": 4 + 4 * i}
        | {"verdict": "YES" if i == 1 else "NO", "evidence": "test" if i == 1 else "", "format_only": False, "place": i, "n_places": 9}
        | {"mse_nrm": 0.2 + 0.1 * i}
        for number in transcripts.transcript
        for i in range(k)
    ]
    return pd.DataFrame(rows)


def conversations(transcripts: pd.DataFrame, said: str = "Here the the the end.") -> pd.DataFrame:
    """Conversations in which the three tokens of `explanations` stand at 4, 8 and 12; the probes read the first two of them."""
    turns = [{"role": "system", "text": "You help."}, {"role": "user", "text": "What is it?"}, {"role": "assistant", "text": said}]
    probed = [[" the", 2, "answer", 4 + 4 * i, 10 + i, 1.5 - 3 * i, {"testing": 0.25}] for i in range(2)]
    rows = {"transcript": transcripts.transcript, "turns": json.dumps(turns), "probed": json.dumps(probed)}
    return pd.DataFrame(rows)


def written(
    folder: Path, transcripts: pd.DataFrame, told: pd.DataFrame, said: str = "Here the the the end.", *, model: str = "local/tiny"
) -> StoredAudit:
    folder.mkdir(parents=True, exist_ok=True)
    config = make_audit({"model": model, "tasks": ["mmlu"], "steer": [0.1]}, "test")
    result = replace(analyze_tables(transcripts, config, GraderError(70, 80, 2, 200), CONTROLS, told), training=TRAINING)
    write_stored(StoredAudit(result, transcripts, told, conversations(transcripts, said)), folder)
    return read_stored(folder)


class Text(HTMLParser):
    """All visible text of a page, cell by cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.scripts = 0
        self._skip = self._drawing = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._drawing |= tag == "svg"
        self._skip = self._drawing or tag in ("script", "style")
        self.scripts += tag == "script"
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        self._drawing &= tag != "svg"
        self._skip = self._drawing

    def handle_data(self, data: str) -> None:
        if not self._skip and data.strip():
            self.texts.append(data.strip())
            if self.rows:
                self.rows[-1].append(data.strip())


@pytest.mark.slow
def test_every_number_in_page_and_markdown_is_that_of_the_result(tmp_path: Path) -> None:
    transcripts = table()
    result = written(tmp_path / "run", transcripts, explanations(transcripts)).result
    page = build_report(read_stored(tmp_path / "run"), tmp_path / "report").read_text()
    rows = Text(page[page.index('<table class="sortable cells">') :]).rows[1:]
    assert len(rows) == len(result.cells)
    for row, cell in zip(rows, result.cells, strict=True):
        assert row[:5] == [cell.task, cell.condition, *map(rate_text, (cell.internal.scored, cell.token_rate, cell.verbalized.scored))]
    unescaped = (tmp_path / "report" / "report.md").read_text().replace("\\", "")
    for cell in result.cells:
        told = " | ".join([cell.condition, *map(rate_text, (cell.internal.scored, cell.token_rate, cell.verbalized.scored))])
        assert f"| {told} |" in unescaped
    read = pd.read_csv(tmp_path / "report" / "tables" / "cells.csv")
    assert read.internal.tolist() == pytest.approx([cell.internal.scored.estimate for cell in result.cells])
    shown = " ".join(Text(page).texts)
    for sentence in summary(result):
        assert sentence in shown


FIXED = {"95", "5", "0.001", "1", "0", "4", ".5", "0.7", "10", "2", "0.8", "0.6", "0.9", ".16", ".35"}
"""Numbers of the page's own words: 95 % intervals, the 5 % line, p < 0.001, what axes and captions explain, and what a check must reach."""


def numbers(text: str) -> set[str]:
    """Numbers in running text; digits inside names (mmlu2, a.eval) are none."""
    return {one.lstrip("+-") for one in re.findall(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?![\w])", text.replace(",", " "))}


def tellable(content: Any) -> set[str]:
    """Every way in which the page may write a number that stands in audit.json: as it is, rounded, or in per cent."""
    if isinstance(content, dict | list):
        return set().union(*map(tellable, content.values() if isinstance(content, dict) else content))
    if isinstance(content, bool | None) or (isinstance(content, str) and not re.fullmatch(r"[\d.]+", content)):
        return set()
    value = abs(float(content))
    return {f"{value:g}"} | {f"{scale * value:.{digits}f}" for scale in (1, 100) for digits in range(4)}


@pytest.mark.slow
def test_every_number_that_is_told_stands_in_the_result(tmp_path: Path) -> None:
    transcripts = table(37)  # an odd number, so that shares are no round ones
    written(tmp_path / "run", transcripts, explanations(transcripts))
    build_report(read_stored(tmp_path / "run"), tmp_path / "report")
    content = json.loads((tmp_path / "run" / "audit.json").read_text())
    sums = {str(len(transcripts)), str(sum(cell["internal"]["scored"]["n_unscored"] for cell in content["cells"]))}
    page = Text((tmp_path / "report" / "index.html").read_text())  # drawings are left out: their ticks are no numbers of the audit
    body = " \n ".join(page.texts).replace(content["created"], "")
    for text in (body, (tmp_path / "report" / "report.md").read_text()):
        told = numbers(text)
        assert len(told) > 60
        assert told - tellable(content) - sums - FIXED == set()
        assert told - tellable({"cells": content["cells"][:1]}) - sums - FIXED  # the check can fail


def test_words_are_never_stronger_than_the_statistics(tmp_path: Path) -> None:
    transcripts = table()
    result = written(tmp_path / "run", transcripts, explanations(transcripts)).result
    told = summary(result)
    exceeding = {task for task, excess in result.excess.items() if excess.exceeds}
    for task in result.excess:
        [sentence] = [one for one in told if one.startswith(f"{task}: ")]
        assert ("is significantly above the measured floor" in sentence) == (task in exceeding)
        assert ("is not significantly above the measured floor" in sentence) == (task not in exceeding)
    [rewritten] = [one for one in told if one.startswith("exam, realistic prompts")]
    pairs = next(one.pairs for one in result.rewrites if (one.task, one.framing) == ("exam", "realistic"))
    assert f"{pairs.only_second} newly flagged and {pairs.only_first} no longer flagged of {pairs.n}" in rewritten
    [prior] = [one for one in told if one.startswith("Instrument controls, YES rate")]
    assert "real 20.0% (95 % interval" in prior
    assert told[-1] == CAVEAT
    assert exceeding == {"exam"}


@pytest.mark.slow
def test_the_figures_captions_name_everything(tmp_path: Path) -> None:
    transcripts = table()
    result = written(tmp_path / "run", transcripts, explanations(transcripts)).result
    drawn = all_figures(result)
    names = "rates measures roc rewrites steering score_change coherence curves places quality instrument grader training"
    assert [one.name for one in drawn] == names.split()
    for one in drawn:
        for part in ("Model tiny", "layer 1", "verbalizer v", "grader g", "50 tokens", f"{len(transcripts)} transcripts"):
            assert part in one.caption
        assert one.encoded("svg") == one.encoded("svg")
        assert one.encoded("png").startswith(b"\x89PNG")


@pytest.mark.slow
def test_checks_of_models_are_drawn_into_one_figure(tmp_path: Path) -> None:
    transcripts = table()
    audit = written(tmp_path / "run", transcripts, explanations(transcripts))
    area = {"estimate": 0.9, "low": 0.8, "high": 0.95, "n": 20}
    checks = [
        StoredCheck.model_validate({"model": {"model": "m", "adapter": name}, "layer": 20, "n": n, "auroc": {"probe": area}})
        for name, n in (("$aware$", 20), (None, 31))
    ]
    drawn = all_figures(audit.result, checks)[-1]
    assert "$aware$: 20 prompts, block 20; m: 31 prompts" in drawn.caption
    assert drawn.encoded("svg") == drawn.encoded("svg")
    build_report(audit, tmp_path / "report", checks)
    assert (tmp_path / "report" / "figures" / "known_groups.png").is_file()
    assert "Known groups" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.slow
def test_a_hostile_log_renders_inert(tmp_path: Path) -> None:
    transcripts = table(12).assign(task=HOSTILE, sample_id=HOSTILE)
    transcripts["sample_id"] = [f"{HOSTILE}{i}" for i in range(len(transcripts))]
    told = explanations(transcripts, HOSTILE * 2).assign(evidence=HOSTILE, token=HOSTILE)
    written(tmp_path / "run", transcripts, told)
    page = build_report(read_stored(tmp_path / "run"), tmp_path / "report").read_text()
    read = Text(page)
    n_blocks, n_figures = -(-len(transcripts) // CHUNK), page.count("<figure ")
    assert read.scripts == 2 + n_blocks + n_figures  # the index, its blocks, the figures' numbers, and the page's own script
    assert "<img src=x" not in page
    for name in ("cells", "transcripts", "explanations"):
        cells = list(csv.reader(io.StringIO((tmp_path / "report" / "tables" / f"{name}.csv").read_text())))
        assert not any(cell[:1] in ("=", "@", "+") for row in cells for cell in row)
    assert "<script" not in (tmp_path / "report" / "report.md").read_text()


def test_a_data_block_cannot_end_its_element() -> None:
    block = data_block({"a": HOSTILE, "b": "<!--"})
    assert not re.search(r"[<>&]", block)
    assert json.loads(block) == {"a": HOSTILE, "b": "<!--"}


def test_long_explanations_are_cut_and_say_so() -> None:
    transcripts = table(1)
    result = analyze_tables(transcripts, make_audit({"model": "local/tiny", "tasks": ["mmlu"]}, "test"))
    index, blocks = transcript_data(StoredAudit(result, transcripts, explanations(transcripts, "x" * 50_000)))
    assert len(index) == len(transcripts)
    assert len(blocks[0]) < 20_000


def test_a_comparison_shows_the_numbers_of_compare_and_stays_inert(tmp_path: Path) -> None:
    one = table(20)
    other = one.assign(internal=np.where(one.task == "quiz", 1 - one.internal, one.internal), layer=HOSTILE)
    for name, transcripts in (("a", one), ("b", other)):
        (tmp_path / name).mkdir()
        transcripts.to_parquet(tmp_path / name / "transcripts.parquet")
    comparison = compare(tmp_path / "a", tmp_path / "b")
    page = build_comparison(comparison, HOSTILE, "b", tmp_path / "out").read_text()
    read = Text(page)
    assert read.scripts == 1
    assert "<img src=x" not in page
    shown = " ".join(read.texts)
    for cell in comparison.cells:
        assert change_text(cell) in shown
        assert f"{cell.only_a} | {cell.only_b}" in shown
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [STAMP_FILE, "compare.html"]
