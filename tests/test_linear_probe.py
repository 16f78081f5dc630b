"""The linear probe finds a planted label at its layer, equals scikit-learn written out, and its nulls hold on labels without meaning."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from typer.testing import CliRunner

from nla.cli import app
from nla.probes.linear import LabelledText, probe_layers, read_labelled
from nla.support.errors import DataError


def rows_of(labels: list[str], documents: list[int]) -> list[LabelledText]:
    return [LabelledText(f"text {i}", label, str(document)) for i, (label, document) in enumerate(zip(labels, documents, strict=True))]


def test_a_planted_label_is_found_at_its_layer_and_equals_scikit_learn() -> None:
    draws = np.random.default_rng(1)
    labels = ["test" if i % 2 else "real" for i in range(60)]
    means = torch.tensor(draws.standard_normal((60, 3, 24))).float()
    means[:, 1, 4] += torch.tensor([2.5 * (label == "test") for label in labels])
    rows = rows_of(labels, [i // 3 for i in range(60)])
    result = probe_layers(means, rows, "test", shuffles=40)
    assert result.best.layer == 1
    assert result.best.auroc > 0.85
    assert result.best_p == pytest.approx(1 / 41)
    truth = np.array([label == "test" for label in labels])
    x = torch.nn.functional.layer_norm(means[:, 1], (24,)).numpy()
    scores = np.zeros(60)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for fit, test in folds.split(x, truth, [str(i // 3) for i in range(60)]):
        z = (x - x[fit].mean(0)) / x[fit].std(0)
        scores[test] = Ridge(100.0).fit(z[fit], truth[fit].astype(float)).predict(z[test])
    assert result.best.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)


@pytest.mark.slow
def test_labels_without_meaning_stay_inside_the_nulls() -> None:
    reached = 0
    for seed in range(12):
        draws = np.random.default_rng(seed)
        labels = [str(label) for label in draws.integers(0, 2, 60)]
        result = probe_layers(torch.tensor(draws.standard_normal((60, 6, 16))).float(), rows_of(labels, list(range(60))), "1", 40)
        reached += result.best_p <= 0.05
        assert result.best_null >= max(layer.null for layer in result.layers)
    assert reached <= 3


def test_texts_of_one_document_are_held_out_together() -> None:
    """Each document has a direction of its own, and one label: only a reader that has seen the document could know the label."""
    draws = np.random.default_rng(2)
    centres = 10 * draws.standard_normal((16, 32))
    documents = [i // 6 for i in range(96)]
    means = torch.tensor(centres[documents] + 0.1 * draws.standard_normal((96, 32))).float()[:, None]
    result = probe_layers(means, rows_of(["ab"[document % 2] for document in documents], documents), "a", 40)
    assert result.best.auroc < 0.85
    assert result.best_p > 0.05
    leaked = probe_layers(means, rows_of(["ab"[document % 2] for document in documents], list(range(96))), "a", 40)
    assert leaked.best.auroc > 0.95


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"text": "a"}'], "row 1: expected a `text` and a `label`"),
        (['{"text": "a", "label": "x"}'] * 30, "30 texts have the label 'x' and 0 another"),
        ([json.dumps({"text": "a", "label": "xy"[i % 2], "document": "d"}) for i in range(40)], "in 1 documents"),
        ([], "holds no row"),
    ],
)
def test_rows_that_give_no_probe_are_refused(lines: list[str], message: str, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    done = CliRunner().invoke(app, ["probe", str(tiny_folder("llama")), "--data", str(path), "--device", "cpu", "--skip", "0"])
    assert isinstance(done.exception, DataError)
    assert message in str(done.exception)


def test_the_command_prints_every_layer(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = [("exam paper number" if i % 2 else "a walk by the sea") + f" {i}" for i in range(40)]
    path.write_text("".join(json.dumps({"text": text, "label": "xy"[i % 2]}) + "\n" for i, text in enumerate(texts)))
    assert len(read_labelled(path)) == 40
    out = tmp_path / "probe.json"
    arguments = ["probe", str(tiny_folder("llama")), "--data", str(path), "--shuffles", "20", "--json", str(out), "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    stored = json.loads(out.read_text())
    assert [layer["layer"] for layer in stored["layers"]] == [0, 1, 2]
    assert max(layer["auroc"] for layer in stored["layers"]) > 0.9
