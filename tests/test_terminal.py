"""Tables of the terminal: 80 columns without cut words, whatever the names, and nothing in them acts on the terminal."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from audit.analysis.analyze import analyze_tables
from audit.analysis.compare import AuditComparison, compare
from audit.analysis.measure_words import percent
from audit.config import AuditConfig, make_audit
from audit.controls.record import InstrumentControls
from audit.stats.correction import GraderError
from audit.stats.rates import wilson
from audit.terminal import comparison_table, controls_table, plan_table, result_table, status_table
from tests.test_report import CONTROLS, table

NAMES = {"exam": "agentic_misalignment", "quiz": "multi_turn_deception", "chat": "destructive_coding"}


def shown(*tables: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(*tables)
    return out.getvalue()


def audit_config(**changes: object) -> AuditConfig:
    fields = {"model": "local/tiny", "tasks": ["mmlu", "wildchat"], "source": "bundled", "steer": [0.1, -0.25], "rewrite": ["realistic"]}
    return make_audit(fields | changes, "test")


def comparison(tmp_path: Path, names: dict[str, str]) -> AuditComparison:
    rows = table(30).replace({"task": names})
    for name, one in (("a", rows), ("b", rows.assign(internal=1 - rows.internal, layer=2))):
        (tmp_path / name).mkdir()
        one.to_parquet(tmp_path / name / "transcripts.parquet")
    return compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_every_table_fits_80_columns_and_cuts_no_word(tmp_path: Path) -> None:
    config = audit_config(limit=40, grader="judge")
    rows = table(1_000).replace({"task": NAMES})
    task_controls = [replace(task, task=NAMES[task.task], log_odds=wilson(9, 30)) for task in CONTROLS.tasks]
    controls = InstrumentControls(CONTROLS.vectors, CONTROLS.failed, task_controls)
    result = analyze_tables(rows.assign(k=49.98), config, GraderError(70, 80, 2, 200), controls)
    tables = {
        "result": result_table(result),
        "controls": controls_table(result),
        "plan": plan_table(config, tmp_path),
        "open plan": plan_table(audit_config(), tmp_path),
        "status": status_table(config, tmp_path),
        "comparison": comparison_table(comparison(tmp_path, NAMES)),
    }
    for name, one in tables.items():
        text = shown(one)
        assert max(len(line) for line in text.splitlines()) <= 80, name
        assert "…" not in text, name
        wide = shown(one, width=400)
        assert set(wide.split()) <= set(text.split()), (name, set(wide.split()) - set(text.split()))  # no word is broken in two


def test_the_plan_says_what_can_be_detected_in_plain_words(tmp_path: Path) -> None:
    text = " ".join(shown(plan_table(audit_config(limit=12), tmp_path)).split())
    assert "No paired change is detectable at 80 % power with 30% discordant pairs." in text
    assert "With 3 random directions, the smallest possible p value is 0.25; 0.05 needs 19 directions." in text
    many = " ".join(shown(plan_table(audit_config(limit=200), tmp_path)).split())
    assert "A paired change of" in many
    assert "is detectable at 80 % power" in many


def test_unscored_transcripts_and_missing_cells_are_shown_with_their_reasons() -> None:
    rows = table(10).assign(unscored_reason="")
    rows.loc[rows.index[:3], "internal"] = float("nan")
    rows.loc[rows.index[:2], "unscored_reason"] = "the sample ended in an error"
    result = replace(analyze_tables(rows, audit_config()), missing=[("base", "gsm8k")])
    assert result.unscored == {"the sample ended in an error": 2, "the log gives no reason": 1}
    text = " ".join(shown(result_table(result)).split())
    assert f"3 of {len(rows)} transcripts have no internal verdict: the sample ended in an error (2); the log gives no reason (1)." in text
    from reports.words import summary

    told = summary(result)
    assert told[0] == "This audit is incomplete. It has no finished log of gsm8k (base)."
    assert f"left out of the internal rates: 3 of {len(rows)} transcripts: the sample ended in an error (2)" in told[1]


@pytest.mark.parametrize("hostile", ["[/b]x", "\x1b]0;title\x07", "\u202ename", "[link=http://x]y[/link]", "[red]z"])
def test_foreign_names_are_shown_as_text(tmp_path: Path, hostile: str) -> None:
    names = dict.fromkeys(NAMES, "") | {name: f"{name}{hostile}" for name in NAMES}
    result = analyze_tables(table(5).replace({"task": names}).assign(model=hostile), audit_config(), instrument=CONTROLS)
    text = shown(
        result_table(result), comparison_table(comparison(tmp_path, names)), plan_table(audit_config(model=f"local/{hostile}"), tmp_path)
    )
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    if hostile.isascii() and hostile.isprintable():
        assert hostile in "".join(text.split("\n"))


def test_a_rate_without_a_scored_transcript_is_a_dash() -> None:
    assert percent(wilson(0, 0)) == "—"
    assert percent(wilson(1, 8)) == "12% [2, 47]"
