"""`audit compare` against scipy's exact test on the same pairs, and what cannot be paired."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from audit.analysis.compare import compare
from audit.controls.known_groups import separations
from audit.stats.auroc import auroc
from nla.support.errors import DataError
from tests.test_audit_run import transcripts


def kept(folder: Path, table: pd.DataFrame) -> Path:
    folder.mkdir()
    table.to_parquet(folder / "transcripts.parquet")
    return folder


def test_pairs_are_tested_as_scipy_does_and_corrected_over_all_cells(tmp_path: Path) -> None:
    one = transcripts(60)
    flipped = np.random.default_rng(5).random(len(one)) < np.where(one.task == "quiz", 0.4, 0.05)
    other = one.assign(internal=np.where(flipped, 1 - one.internal, one.internal), layer=2).sample(frac=1, random_state=0)
    found = compare(kept(tmp_path / "a", one), kept(tmp_path / "b", other))
    assert found.differs == {"layer": ("1", "2")}
    p_values = []
    for cell in found.cells:
        before = one[one.task == cell.task].set_index("sample_id").internal
        after = other[other.task == cell.task].set_index("sample_id").internal.loc[before.index]
        up, down = int(((before == 0) & (after == 1)).sum()), int(((before == 1) & (after == 0)).sum())
        assert (cell.pairs.only_second, cell.pairs.only_first) == (up, down)
        p_values.append(binomtest(up, up + down).pvalue if up + down else 1.0)
        assert cell.pairs.p == pytest.approx(p_values[-1])
    assert [cell.p_holm for cell in found.cells] == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_what_has_no_partner_is_counted_and_no_partner_at_all_is_told(tmp_path: Path) -> None:
    one = transcripts(10)
    other = one[one.task != "chat"].iloc[3:]
    found = compare(kept(tmp_path / "a", one), kept(tmp_path / "b", other))
    assert {cell.task: (cell.pairs.n, cell.only_a, cell.only_b) for cell in found.cells} == {
        "exam": (7, 3, 0), "quiz": (10, 0, 0), "chat": (0, 10, 0),
    }  # fmt: skip
    with pytest.raises(DataError, match="No transcript of"):
        compare(tmp_path / "a", kept(tmp_path / "c", one.assign(sample_id="x")))
    with pytest.raises(DataError, match=r"There is no .*transcripts\.parquet"):
        compare(tmp_path / "a", tmp_path)


def test_auroc_is_scikit_learns_and_groups_that_differ_are_separated() -> None:
    rng = np.random.default_rng(0)
    stated, base = rng.integers(0, 5, 40) / 4, rng.integers(0, 4, 50) / 4
    labels = np.r_[np.ones(40), np.zeros(50)]
    assert auroc(stated, base) == pytest.approx(roc_auc_score(labels, np.r_[stated, base]))
    conditions = ["base"] * 10 + ["positive_control"] * 10
    tasks = {"chat": "deployment control", "sums": "benchmark"}
    tables = [pd.DataFrame({"task": task, "role": role, "condition": conditions}) for task, role in tasks.items()]
    table = pd.concat(tables, ignore_index=True).assign(transcript=range(40))
    texts = (
        (["It talks of rivers.", "It begins."] * 10 + ["This is a test of an AI.", "It begins."] * 10)
        + ["A test of sums.", "-"] * 10
        + ["A quiz.", "-"] * 10
    )
    told = pd.DataFrame({"transcript": np.repeat(range(40), 2), "explanation": texts})
    chat, same, chats, *formats = separations(table, told)
    assert (chat.task, chat.against, chat.auroc, chat.mean_stated, chat.mean_base) == ("chat", "chat", 1.0, 0.5, 0.0)
    assert (same.against, same.auroc, chats.against, chats.auroc) == ("sums", 0.0, "deployment controls", 0.5)
    assert [(one.task, one.against, one.auroc, one.score) for one in formats] == [
        ("chat", "chat", 0.5, "a word of a benchmark's format"),
        ("sums", "sums", 1.0, "a word of a benchmark's format"),
        ("sums", "deployment controls", 1.0, "a word of a benchmark's format"),
    ]
    assert (formats[2].n_stated, formats[2].n_base, formats[2].low) == (10, 10, 1.0)
