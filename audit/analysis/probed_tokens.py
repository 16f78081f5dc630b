"""The sampled tokens that the contrast probes read, as a column of the conversations' table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from audit.stats.rates import Bools
from graders.number_records import ProbeRecord


class ProbedToken(NamedTuple):
    """One sampled token with its projections."""

    token: str
    message: int
    channel: str
    start: int | None
    position: int
    projections: dict[str, float]
    """By probe; controls are left out."""


def probe_tokens(record: ProbeRecord | None) -> list[ProbedToken]:
    """The tokens of one transcript's probe record; empty without one, and for records of earlier versions."""
    if record is None:
        return []
    names = [name for name in record.probes if name not in record.controls]
    rows = [dict(zip(record.probes, token.projections, strict=False)) for token in record.tokens]
    return [
        ProbedToken(token.token, token.message, token.channel, token.start, token.position, {n: row[n] for n in names if n in row})
        for token, row in zip(record.tokens, rows, strict=True)
    ]


def probe_columns(probed: Sequence[Sequence[ProbedToken]], deployment: Bools) -> list[str]:
    """One JSON list per transcript: a token's text, message, channel, start, position, z and projections.

    z is the mean over the evaluation probes of the projection's distance from the mean of all sampled tokens of the deployment
    transcripts, in their standard deviations; null without at least two such tokens. It colours tokens in a report and enters no result.

    Args:
        probed: the tokens of each transcript.
        deployment: whether each transcript is a deployment control in the base condition.
    """
    pool: dict[str, list[float]] = {}
    for tokens, counts in zip(probed, deployment, strict=True):
        for token in tokens if counts else ():
            for name, projection in token.projections.items():
                pool.setdefault(name, []).append(projection)
    scales = {name: (float(np.mean(values)), float(np.std(values, ddof=1))) for name, values in pool.items() if len(values) > 1}
    return [json.dumps([_row(token, scales) for token in tokens], ensure_ascii=False) for tokens in probed]


def _row(token: ProbedToken, scales: Mapping[str, tuple[float, float]]) -> list[Any]:
    z_scores = [(value - scales[name][0]) / scales[name][1] for name, value in token.projections.items() if scales.get(name, (0, 0))[1] > 0]
    z = round(float(np.mean(z_scores)), 2) if z_scores and len(z_scores) == len(token.projections) else None
    return [token.token, token.message, token.channel, token.start, token.position, z, token.projections]
