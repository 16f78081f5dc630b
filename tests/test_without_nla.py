"""Audits that leave measures out: probes and follow-up need no autoencoder, and an audit of them alone is whole."""

from collections.abc import Callable
from pathlib import Path

import pytest

from audit import read_result
from audit.analysis.analyze import analyze
from audit.analysis.known_groups import check_of
from audit.running.run import run_audit
from audit.terminal import measures_table, result_table
from nla.support.errors import DataError
from reports.build import build_report, markdown
from tests.test_audit_run import config
from tests.test_terminal import shown

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("measures", "scored"),
    [(["probe", "follow_up", "verbalized"], {"probe", "verbalized"}), (["follow_up"], set()), (["nla"], {"nla"})],
)
def test_an_audit_of_some_measures_has_just_these(
    measures: list[str], scored: set[str], tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    audit = config(tiny_folder("llama"), measures=measures, steer=[], limit=2)
    run_audit(audit, tmp_path)
    result = analyze(tmp_path)
    assert not result.missing
    of_task = result.measures["mmlu"]
    assert {name for name in ("nla", "probe", "follow_up", "verbalized") if name in of_task} == set(measures)
    assert scored <= {name for name, measure in of_task.items() if measure.n}
    assert {cell.internal.scored.n + cell.internal.scored.n_unscored for cell in result.cells} == ({2} if "nla" in measures else {0})
    assert bool(result.unscored) <= ("nla" in measures)
    assert result.identity["model"] == str(tiny_folder("llama"))
    assert result.identity["layer"] == ("none" if measures == ["follow_up"] else "2")
    assert ("The measure nla was not taken" in " ".join(result.notes)) is ("nla" not in measures)
    assert check_of(audit, read_result(tmp_path).transcripts) is None
    assert "2" in shown(result_table(result))
    assert "mmlu" in shown(measures_table(result))
    page = build_report(read_result(tmp_path), tmp_path / "report")
    assert page.is_file()
    if "nla" not in measures:
        assert "The deployment controls have no internal verdict" in markdown(result, [])


def test_a_missing_file_of_known_groups_is_refused_before_anything_runs(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    audit = config(tiny_folder("llama"), known_groups=str(tmp_path / "none.json"))
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        run_audit(audit, tmp_path / "out")
    assert not (tmp_path / "out").exists()
