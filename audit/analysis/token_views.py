"""What the single explanations of an audit show: where in the response they are YES, and how well they reconstruct their vectors."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from audit.stats.bootstrap import bootstrap_mean
from audit.stats.rates import Estimate, mean
from nla.support.seeds import seeded_generator

FIFTHS = 5


@dataclass(frozen=True)
class PlaceRate:
    """Share of YES among the explanations of one fifth of the sampled response tokens (1 is the beginning), clustered by transcript."""

    task: str
    condition: str
    fifth: int
    rate: Estimate


@dataclass(frozen=True)
class ReconstructionQuality:
    """Mean cosine between the vectors and what the AR makes of their explanations, by verdict; resampled by transcript."""

    task: str
    condition: str
    verdict: str
    """YES, NO, UNCLEAR, or all."""
    cosine: Estimate


def place_rates(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> list[PlaceRate]:
    """Where in the responses of each cell explanations are YES. A place is a token's rank among the tokens read of its transcript."""
    table = _joined(transcripts, explanations)
    found = []
    for (task, condition), own in table.groupby(["task", "condition"], sort=False):
        k = own.groupby("transcript").place.transform("max") + 1
        fifths = np.minimum(((own.place + 0.5) / k * FIFTHS).astype(int), FIFTHS - 1)
        for fifth in range(FIFTHS):
            part = own[fifths == fifth]
            values = np.where(part.verdict.isna(), np.nan, (part.verdict == "YES").astype(float))
            codes = part.transcript.to_numpy(np.int64)
            found.append(PlaceRate(str(task), str(condition), fifth + 1, mean(values, codes)))
    return found


def reconstruction_quality(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> list[ReconstructionQuality]:
    """How well the explanations of each cell reconstruct; empty where no AR measured them."""
    if "mse_nrm" not in explanations or not explanations.mse_nrm.notna().any():
        return []
    table = _joined(transcripts, explanations).dropna(subset=["mse_nrm"])
    found = []
    for (task, condition), own in table.groupby(["task", "condition"], sort=False):
        for verdict in ("all", "YES", "UNCLEAR", "NO"):
            part = own if verdict == "all" else own[own.verdict == verdict]
            if len(part):
                draws = seeded_generator("cosine", task, condition, verdict)
                cosine = 1 - part.mse_nrm.to_numpy(np.float64) / 2
                estimate = bootstrap_mean(cosine, draws, part.transcript.to_numpy(np.int64))
                found.append(ReconstructionQuality(str(task), str(condition), verdict, estimate))
    return found


def _joined(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> pd.DataFrame:
    return explanations.merge(transcripts[["transcript", "task", "condition"]], on="transcript")
