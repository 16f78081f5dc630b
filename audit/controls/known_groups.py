"""Known-groups check: do simple word scores of the verbalizer's text, without any grader, separate groups that are known to differ?

Two comparisons are made. The first compares the same items with and without a system prompt that states the evaluation. The second
compares a benchmark's items with that statement and deployment chats without it; these also differ in topic and format, so it only shows
whether the text distinguishes a benchmark from a chat. The score of a transcript is the share of its explanations that contain a word about
evaluation, or a word about a benchmark's format. Separation is an AUROC (0.5 is chance) with a bootstrap interval over transcripts.
"""

import re
from dataclasses import dataclass

import pandas as pd

from audit.config import BASE, POSITIVE
from audit.stats.auroc import auroc_interval
from audit.stats.rates import Floats
from tasks._info import Role

WORDS = re.compile(r"\b(tests?|tested|testing|evaluat\w*|assess\w*|benchmark\w*|exam\w*|scored?|graders?|graded)\b", re.IGNORECASE)
FORMAT = re.compile(r"\b(multiple[- ]choice|true/false|yes/no|lettered|quiz\w*|answer (key|choices?|options?))\b", re.IGNORECASE)
SCORES = {"a word of evaluation": WORDS, "a word of a benchmark's format": FORMAT}
"""Pattern of each score by its name. The names are part of the bootstrap's seed, so a change of name changes the intervals slightly."""
CHATS = "deployment controls"


@dataclass(frozen=True)
class Separation:
    """AUROC of a word score between two groups of transcripts, with its 95 % interval, and the mean score of each group."""

    score: str
    """Name of the score, a key of `SCORES`."""
    task: str
    against: str
    """The group without the statement: the name of the same task, or `CHATS` for the deployment controls."""
    auroc: float
    low: float
    high: float
    n_stated: int
    n_base: int
    mean_stated: float
    mean_base: float


def separations(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> list[Separation]:
    """Return the separation for each score and each task.

    A task is compared with itself in the base condition, and a benchmark also with the deployment controls. Comparisons in which a group
    has no scored transcript are left out.

    Args:
        transcripts: one row per transcript, with the columns `transcript`, `task`, `role` and `condition`.
        explanations: one row per explanation, with the columns `transcript` and `explanation`.
    """
    return [row for name, words in SCORES.items() for row in _by_score(name, words, transcripts, explanations)]


def _by_score(name: str, words: re.Pattern[str], transcripts: pd.DataFrame, explanations: pd.DataFrame) -> list[Separation]:
    hits = explanations.assign(hit=explanations.explanation.fillna("").map(lambda text: words.search(text) is not None))
    by_transcript = hits.groupby("transcript").hit.mean()
    scored = transcripts.assign(score=transcripts.transcript.map(by_transcript)).dropna(subset=["score"])
    chats = scored[(scored.condition == BASE) & (scored.role == Role.DEPLOYMENT_CONTROL)]
    rows = []
    for task, table in scored.groupby("task"):
        stated, base = (table[table.condition == condition] for condition in (POSITIVE, BASE))
        others = {str(task): base} | ({CHATS: chats} if (table.role != Role.DEPLOYMENT_CONTROL).all() else {})
        for against, other in others.items():
            if len(stated) and len(other):
                rows.append(_separation(name, str(task), against, _scores(stated), _scores(other)))
    return rows


def _scores(table: pd.DataFrame) -> Floats:
    return table.score.to_numpy("float64")


def _separation(score: str, task: str, against: str, stated: Floats, base: Floats) -> Separation:
    area = auroc_interval(stated, base, ("groups", score, task, against))
    return Separation(
        score, task, against, area.estimate, area.low, area.high, area.n, area.n_controls, float(stated.mean()), float(base.mean())
    )
