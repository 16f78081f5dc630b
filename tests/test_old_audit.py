"""An audit that an earlier version ran (commit a6c2c8d) reads, analyses and reports with the same numbers."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import audit
from audit.cli import whole_command
from audit.config import stored_config
from nla.support.errors import ConfigError, DataError

STORED = Path(__file__).parent / "data" / "audit_a6c2c8d"


@pytest.fixture
def old_audit(tmp_path: Path) -> Path:
    """A copy of the stored folder: config, logs, tables, controls.json and audit.json as they were written then."""
    return Path(shutil.copytree(STORED, tmp_path / "audit"))


def test_the_numbers_of_an_old_audit_stay_the_same(old_audit: Path) -> None:
    before = json.loads((old_audit / "audit.json").read_text())
    audit.analyze(old_audit)
    after = json.loads((old_audit / "audit.json").read_text())
    said_since = {"steer_unit": "contrast", "adapter": "none"}  # what was so in the first version
    assert after["identity"] == before["identity"] | said_since
    for old_cell, new_cell in zip(before["cells"], after["cells"], strict=True):
        for name in ("task", "role", "condition", "strength", "n", "internal", "verbalized", "token_rate", "unclear", "mean_k", "curve"):
            assert new_cell[name] == old_cell[name], name
        for name in ("own_score", "mean_logprob", "repeated_4"):
            assert new_cell[name]["estimate"] == pytest.approx(old_cell[name]["estimate"]), name
    for name in ("floor", "excess", "limits", "positive_controls", "grader_error", "grader_quality"):
        assert after[name] == before[name], name
    assert after["controls"]["vectors"] == before["controls"]["vectors"]


def test_an_old_result_reads_without_a_new_analysis(old_audit: Path) -> None:
    stored = audit.read_result(old_audit)
    assert len(stored.transcripts) == 32
    assert set(stored.transcripts.condition) == {"base", "positive_control", "awareness+0.1", "random-1+0.1"}
    assert len(stored.explanations) == stored.transcripts.k.sum()


def test_an_old_audit_took_two_measures(old_audit: Path) -> None:
    config = stored_config(old_audit)
    assert (config.measures, config.probes) == (("nla", "verbalized"), ())


@pytest.mark.slow
def test_an_old_audit_reports(old_audit: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(whole_command(), ["report", str(old_audit), "-o", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert "wildchat" in (tmp_path / "report" / "report.md").read_text()


def test_a_folder_that_is_no_audit_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="audit run"):
        audit.analyze(tmp_path)
    with pytest.raises(DataError, match="audit analyze"):
        audit.read_result(tmp_path)
    with pytest.raises(ConfigError, match="expected a path"):
        audit.analyze(3)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="run_audit"):
        _ = audit.analyse  # type: ignore[attr-defined]
