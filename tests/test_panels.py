"""`audit compare A B C --by model` and its page: one panel per value, whose numbers are those of each `audit.json`."""

import json
from pathlib import Path

import pytest

from audit.analysis.measure_words import interval
from audit.analysis.panels import differences, panels
from audit.analysis.result import RESULT_FILE, AuditResult, read_result
from nla.support.errors import ConfigError, DataError
from reports.output import STAMP_FILE
from tests.commands import typed
from tests.test_report import HOSTILE, Text, explanations, table, written

pytestmark = pytest.mark.slow


@pytest.fixture
def audits(tmp_path: Path) -> list[Path]:
    """Two audits of one model that differ in their layer, and one of another model whose name is hostile."""
    for name, model, layer in (("a", "tiny", 1), ("b", "tiny", 2), ("c", HOSTILE.replace("/", "|"), 1)):
        transcripts = table(12).assign(layer=layer)
        written(tmp_path / name, transcripts, explanations(transcripts), model=f"local/{model}")
    return [tmp_path / name for name in "abc"]


def test_audits_are_sorted_into_panels_and_what_else_differs_is_named(audits: list[Path]) -> None:
    by_model = panels(audits, "model")
    assert [panel.value for panel in by_model] == ["tiny", HOSTILE.replace("/", "|")]
    assert [folder for folder, _ in by_model[0].audits] == [str(audits[0]), str(audits[1])]
    assert list(differences(by_model, "model").values()) == ["layer 1", "layer 2", "layer 1"]
    by_layer = panels(audits, "layer")
    assert [(panel.value, len(panel.audits)) for panel in by_layer] == [("1", 2), ("2", 1)]


def test_a_wrong_column_a_folder_given_twice_and_one_without_a_result_are_refused(audits: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--by colour: expected one of model, adapter, layer"):
        panels(audits, "colour")
    with pytest.raises(ConfigError, match="is given twice"):
        panels([audits[0], audits[1], audits[0].parent / "b" / ".." / "a"], "model")
    with pytest.raises(DataError, match="`audit analyze` makes it"):
        panels([audits[0], tmp_path], "model")


def test_the_command_prints_a_panel_per_model_and_writes_every_number(audits: list[Path], tmp_path: Path) -> None:
    folders = [str(folder) for folder in audits]
    done = typed("audit", "compare", *folders, "--json", str(tmp_path / "c.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: ") == 2
    assert done.stdout.count("AUROC against deployment traffic") == 3
    assert "\u202e" not in done.stdout
    content = json.loads((tmp_path / "c.json").read_bytes())
    stored = [json.loads((folder / RESULT_FILE).read_bytes()) for folder in audits]
    assert [audit["result"] for panel in content for audit in panel["audits"]] == stored
    for arguments in ([folders[0]], [*folders[:2], "--by", "colour"]):
        refused = typed("audit", "compare", *arguments)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: ")
    alone = typed("audit", "report", folders[0], "-o", str(tmp_path / "r"), "--by", "model")
    assert alone.returncode == 2
    assert "--compare" in alone.stderr


def test_the_page_shows_every_audits_numbers_and_stays_inert(audits: list[Path], tmp_path: Path) -> None:
    first, *others = (str(folder) for folder in audits)
    compared = [word for folder in others for word in ("--compare", folder)]
    done = typed("audit", "report", first, *compared, "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "compare.html").read_text()
    read = Text(page)
    assert read.scripts == 1
    assert "<img src=x" not in page
    shown = " ".join(read.texts)
    for folder in audits:
        result: AuditResult = read_result(folder / RESULT_FILE)
        for of_task in result.measures.values():
            assert all(interval(measured.auroc) in shown for measured in of_task.values())
    assert (tmp_path / "out" / STAMP_FILE).is_file()
    assert (tmp_path / "out" / "index.html").is_file()
