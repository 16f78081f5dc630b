"""A linear probe for any labelled contexts: ridge regression on the mean residual stream of each text, at every layer.

Cross-validated by document, so that no document is in both parts. Two nulls stand beside each figure: refits on shuffled labels at the
same layer, and, because the best layer is chosen by its figure, the best of all layers on the same shuffled labels (selection null).
Labels are shuffled over documents where all texts of a document have the same label, and otherwise inside each document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from nla.support.display import visible
from nla.support.errors import DataError
from nla.support.rows import read_file
from nla.support.seeds import seeded_generator

SHUFFLES = 100
_FOLDS = 5
_RIDGE = 100.0
"""Weight of the L2 penalty on standardised features: there are more dimensions than texts."""
_FEWEST = 10
"""Texts per label below which a cross-validated figure says nothing."""


@dataclass(frozen=True)
class LabelledText:
    """A text with its label, and the document that it belongs to."""

    text: str
    label: str
    document: str


@dataclass(frozen=True)
class LayerResult:
    """A probe at one layer."""

    layer: int
    auroc: float
    null: float
    """95th percentile over shuffled labels at this layer."""
    p: float
    """Share of shuffles, the real labels among them, that reach the AUROC."""


@dataclass(frozen=True)
class LinearProbeResult:
    """Cross-validated AUROC of one label against all others."""

    positive: str
    n_positive: int
    n_others: int
    n_documents: int
    layers: tuple[LayerResult, ...]
    best_null: float
    """95th percentile of the best layer's AUROC over shuffled labels."""
    best_p: float

    @property
    def best(self) -> LayerResult:
        """The layer with the largest AUROC."""
        return max(self.layers, key=lambda result: result.auroc)


def read_labelled(path: Path) -> list[LabelledText]:
    """Read rows with `text`, `label` and, where there is one, `document`; without it every text is a document by itself.

    Raises:
        DataError: the file cannot be read, or a row lacks a text or a label.
    """
    rows = []
    for number, row in enumerate(read_file(path), start=1):
        text, label = row.get("text"), row.get("label")
        if not isinstance(text, str) or not text.strip() or label is None or not str(label).strip():
            raise DataError(f"{visible(path)}, row {number}: expected a `text` and a `label`; found {visible(sorted(row), limit=100)}.")
        rows.append(LabelledText(text, str(label).strip(), str(row.get("document") or number)))
    return rows


def probe_layers(
    means: Float[Tensor, "n n_layers d_model"], rows: Sequence[LabelledText], positive: str, shuffles: int = SHUFFLES
) -> LinearProbeResult:
    """Fit and test a probe at every layer.

    Args:
        means: mean residual stream of each text after every block.
        rows: the texts.
        positive: the label that is told from all others.
        shuffles: refits on shuffled labels.

    Raises:
        DataError: a side has too few texts, or there are too few documents to hold some out.
    """
    truth = np.array([row.label == positive for row in rows])
    documents = [row.document for row in rows]
    counts = int(truth.sum()), int((~truth).sum())
    if min(counts) < _FEWEST or len(set(documents)) < _FOLDS:
        labels = sorted({row.label for row in rows})
        raise DataError(
            f"{counts[0]} texts have the label '{visible(positive)}' and {counts[1]} another, in {len(set(documents))} documents; expected "
            f"at least {_FEWEST} of each, and {_FOLDS} documents. The labels are {visible(', '.join(labels), limit=200)}."
        )
    targets = np.column_stack([truth, *(_shuffled(truth, documents, k) for k in range(shuffles))])
    features = nn.functional.layer_norm(means.float(), means.shape[-1:]).numpy()
    areas = np.stack([_aurocs(features[:, layer], targets, documents) for layer in range(features.shape[1])])
    null = areas[:, 1:]
    layers = tuple(
        LayerResult(layer, float(area), float(np.quantile(null[layer], 0.95)), _p_value(area, null[layer]))
        for layer, area in enumerate(areas[:, 0])
    )
    best = null.max(axis=0)
    best_p = _p_value(float(areas[:, 0].max()), best)
    return LinearProbeResult(positive, *counts, len(set(documents)), layers, float(np.quantile(best, 0.95)), best_p)


def _p_value(area: float, null: NDArray[np.float64]) -> float:
    return float((1 + (null >= area).sum()) / (1 + len(null)))


def _aurocs(features: NDArray[np.float32], targets: NDArray[np.bool_], documents: Sequence[str]) -> NDArray[np.float64]:
    """Return the cross-validated AUROC of each column of targets, which was fitted and tested with that column's labels."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    scores = np.zeros(targets.shape)
    for fit, test in folds.split(features, targets[:, 0], documents):
        probe = make_pipeline(StandardScaler(), Ridge(_RIDGE)).fit(features[fit], targets[fit].astype(np.float64))
        scores[test] = probe.predict(features[test])
    return np.array([roc_auc_score(targets[:, k], scores[:, k]) for k in range(targets.shape[1])])


def _shuffled(truth: NDArray[np.bool_], documents: Sequence[str], k: int) -> NDArray[np.bool_]:
    """Return shuffled labels: over documents where a document has one label throughout, else inside each document."""
    draws = seeded_generator("linear probe shuffle", len(truth), k)
    names, index = np.unique(np.asarray(documents), return_inverse=True)
    first = np.array([truth[index == i][0] for i in range(len(names))])
    if bool((first[index] == truth).all()):
        return np.asarray(first[draws.permutation(len(names))][index])
    shuffled = truth.copy()
    for i in range(len(names)):
        rows = np.flatnonzero(index == i)
        shuffled[rows] = truth[rows][draws.permutation(len(rows))]
    return shuffled
