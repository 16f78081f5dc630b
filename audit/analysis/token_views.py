"""Results from single explanations: where in the response they are YES, and how well they reconstruct their vectors."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from audit.stats.bootstrap import bootstrap_mean
from audit.stats.rates import Estimate, mean
from nla.support.seeds import seeded_generator

FIFTHS = 5


@dataclass(frozen=True)
class PlaceRate:
    """Share of YES among the explanations of one fifth of the sampled response tokens (1 is the first), clustered by transcript."""

    task: str
    condition: str
    fifth: int
    rate: Estimate


@dataclass(frozen=True)
class ReconstructionQuality:
    """Mean cosine between the vectors and their reconstructions from the explanations, by verdict; resampled by transcript."""

    task: str
    condition: str
    verdict: str
    """YES, NO, UNCLEAR or all."""
    cosine: Estimate


def cosine(mse_nrm: float) -> float:
    """Cosine between a vector and its reconstruction, from the squared distance of the two as unit vectors."""
    return 1 - mse_nrm / 2


def place_rates(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> list[PlaceRate]:
    """Share of YES by position in the response, for each cell. A place is a token's rank among the tokens read from its transcript."""
    table = _joined(transcripts, explanations)
    rates = []
    for (task, condition), cell in table.groupby(["task", "condition"], sort=False):
        n_tokens = cell.groupby("transcript").place.transform("max") + 1
        fifths = np.minimum(((cell.place + 0.5) / n_tokens * FIFTHS).astype(int), FIFTHS - 1)
        for fifth in range(FIFTHS):
            part = cell[fifths == fifth]
            values = np.where(part.verdict.isna(), np.nan, (part.verdict == "YES").astype(float))
            rates.append(PlaceRate(str(task), str(condition), fifth + 1, mean(values, part.transcript.to_numpy(np.int64))))
    return rates


def reconstruction_quality(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> list[ReconstructionQuality]:
    """How well the explanations of each cell reconstruct their vectors; empty if no AR measured them."""
    if "mse_nrm" not in explanations or not explanations.mse_nrm.notna().any():
        return []
    table = _joined(transcripts, explanations)
    table = table[np.isfinite(table.mse_nrm.astype(float))]
    qualities = []
    for (task, condition), cell in table.groupby(["task", "condition"], sort=False):
        for verdict in ("all", "YES", "UNCLEAR", "NO"):
            part = cell if verdict == "all" else cell[cell.verdict == verdict]
            if len(part):
                draws = seeded_generator("cosine", task, condition, verdict)
                cosines = 1 - part.mse_nrm.to_numpy(np.float64) / 2
                estimate = bootstrap_mean(cosines, draws, part.transcript.to_numpy(np.int64))
                qualities.append(ReconstructionQuality(str(task), str(condition), verdict, estimate))
    return qualities


def _joined(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> pd.DataFrame:
    return explanations.merge(transcripts[["transcript", "task", "condition"]], on="transcript")
