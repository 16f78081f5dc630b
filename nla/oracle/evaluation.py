"""How well an oracle answers held-out questions in unseen wordings, and what its text, its question, and simpler readers give.

Arms of one adapter: the right vector; another vector of the same family; no vector; and the text in place of the vector. Beside them a
bag of words of the text and a linear probe of the vector, both fitted on the training questions. What the oracle reads from activations
is at most its margin over the text arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nla.oracle.model import Asked, Oracle
from nla.oracle.questions import Question
from nla.organisms.statistics import Estimate, auroc_over_documents, mean_over_documents
from nla.support.seeds import seeded_generator

ARMS = ("vector", "shuffled vector", "no vector", "text")
BASELINES = ("bag of words", "linear probe")
_FEWEST = 8
"""Questions of a family below which no AUROC is given."""


@dataclass(frozen=True)
class OracleScore:
    """Scores by family and arm on held-out questions."""

    areas: dict[str, dict[str, Estimate]]
    """AUROC of the log-odds of Yes."""
    right: dict[str, dict[str, Estimate]]
    """Share of right answers, where the oracle says the likelier of Yes and No. Half the right answers are Yes."""

    def margin(self, family: str) -> float:
        """Return how much more the vector gives than the text."""
        return self.areas[family]["vector"].estimate - self.areas[family]["text"].estimate


def areas_by_family(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
    """Return the AUROC of scores for the questions' answers in each family that has both answers."""
    return {family: area.estimate for family, area in _areas(questions, scores).items()}


def score_oracle(oracle: Oracle, train: Sequence[Question], test: Sequence[Question]) -> OracleScore:
    """Take every arm and baseline on held-out questions.

    Args:
        oracle: the trained oracle.
        train: questions that it was trained on; the baselines are fitted on them.
        test: questions about other documents, each asked in every unseen wording.
    """
    shuffled = _shuffled(test)
    by_arm: dict[str, list[float]] = {}
    right: dict[str, dict[str, Estimate]] = {}
    for arm in ARMS:
        n_wordings = len(test[0].unseen_wordings())
        asked = [
            _asked(arm, question, other, wording) for wording in range(n_wordings) for question, other in zip(test, shuffled, strict=True)
        ]
        odds = oracle.log_odds(asked)
        by_arm[arm] = odds.reshape(n_wordings, len(test)).mean(dim=0).tolist()
        for family, share in _right([*test] * n_wordings, odds.tolist()).items():
            right.setdefault(family, {})[arm] = share
    for baseline in BASELINES:
        by_arm[baseline] = _baseline(baseline, train, test)
    areas: dict[str, dict[str, Estimate]] = {}
    for arm, scores in by_arm.items():
        usable = [i for i, score in enumerate(scores) if not np.isnan(score)]
        for family, area in _areas([test[i] for i in usable], [scores[i] for i in usable]).items():
            areas.setdefault(family, {})[arm] = area
    return OracleScore(areas, right)


def _right(questions: Sequence[Question], odds: Sequence[float]) -> dict[str, Estimate]:
    """Return per family the share of questions whose likelier answer is right."""
    shares = {}
    for family in dict.fromkeys(question.family for question in questions):
        rows = [i for i, question in enumerate(questions) if question.family == family]
        hits = [float((odds[i] > 0) == questions[i].answer) for i in rows]
        if len(rows) >= _FEWEST:
            shares[family] = mean_over_documents(hits, [questions[i].document for i in rows])
    return shares


def _asked(arm: str, question: Question, other: Question, wording: int) -> Asked:
    words = question.unseen_wordings()[wording]
    if arm == "text":
        return Asked(words, text=question.text)
    vector = {"vector": question.vector, "shuffled vector": other.vector, "no vector": None}[arm]
    return Asked(words, vector)


def _shuffled(questions: Sequence[Question]) -> list[Question]:
    """Return for each question another one of its family, in a seeded order."""
    others: list[Question] = list(questions)
    for family in {question.family for question in questions}:
        rows = [i for i, question in enumerate(questions) if question.family == family]
        order = seeded_generator("oracle shuffle", family).permutation(len(rows))
        for place, i in enumerate(order):
            others[rows[i]] = questions[rows[order[(place + 1) % len(rows)]]]
    return others


def _areas(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, Estimate]:
    areas = {}
    for family in dict.fromkeys(question.family for question in questions):
        rows = [i for i, question in enumerate(questions) if question.family == family]
        answers = np.array([questions[i].answer for i in rows])
        if len(rows) >= _FEWEST and 0 < answers.sum() < len(rows):
            values = np.array([scores[i] for i in rows], dtype=np.float64)
            names = np.array([questions[i].document for i in rows])
            sides = (values[answers].tolist(), values[~answers].tolist(), names[answers].tolist(), names[~answers].tolist())
            areas[family] = auroc_over_documents(*sides)
    return areas


def _baseline(name: str, train: Sequence[Question], test: Sequence[Question]) -> list[float]:
    """Return per tested question the fitted log-probability of the label that is asked for; NaN where no baseline can be fitted."""
    scores = [float("nan")] * len(test)
    for family in dict.fromkeys(question.family for question in test):
        rows = [i for i, question in enumerate(test) if question.family == family]
        fit = [question for question in train if question.family == family]
        labels = sorted({question.label for question in fit})
        if not 2 <= len(labels) <= len(fit) // 4:  # with nearly as many labels as questions there is nothing to fit
            continue
        probabilities = _fitted(name, fit, [test[i] for i in rows])
        for row, i in enumerate(rows):
            asked = test[i].slot or "yes"
            if asked in labels:
                scores[i] = float(probabilities[row, labels.index(asked)])
    return scores


def _fitted(name: str, fit: Sequence[Question], test: Sequence[Question]) -> NDArray[np.float64]:
    """Return log-probabilities of the labels, in alphabetical order, for each tested question."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = [question.label for question in fit]
    if name == "bag of words":
        reader = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1_000))
        reader.fit([question.text for question in fit], labels)
        return np.asarray(reader.predict_log_proba([question.text for question in test]))
    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=1_000))
    reader.fit(_features(fit), labels)
    return np.asarray(reader.predict_log_proba(_features(test)))


def _features(questions: Sequence[Question]) -> NDArray[np.float32]:
    vectors = torch.stack([question.vector for question in questions])
    features: NDArray[np.float32] = torch.nn.functional.layer_norm(vectors, vectors.shape[-1:]).numpy()
    return features
