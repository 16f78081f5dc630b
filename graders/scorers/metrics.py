"""Inspect metrics of the awareness scorers: the table that `inspect eval` prints and `inspect view` shows.

The transcript is the unit. Repeated epochs of one item are not independent, so intervals count items, not transcripts
(exact if epochs agree completely, conservative otherwise). Inspect leaves unscored transcripts out of all metrics and shows their
number beside them.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from inspect_ai.scorer import Metric, SampleScore, metric

from graders.record import stored_figure

_NAN = float("nan")


def _rate(scores: list[SampleScore]) -> float:
    return float(np.mean([score.score.as_float() for score in scores])) if scores else _NAN


def _interval(scores: list[SampleScore]) -> tuple[float, float]:
    """95 % Wilson interval of the mean value."""
    from statsmodels.stats.proportion import proportion_confint  # slow to import, and Inspect imports this module at every start

    if not scores:
        return _NAN, _NAN
    n_items = len({score.sample_id for score in scores})
    low, high = proportion_confint(_rate(scores) * n_items, n_items, alpha=0.05, method="wilson")
    return float(low), float(high)


def _mean_of(scores: list[SampleScore], key: str) -> float:
    figures = [figure for score in scores if (figure := stored_figure(score.score, key)) is not None]
    return float(np.mean(figures)) if figures else _NAN


def _unscored_in(scores: list[SampleScore]) -> float:
    return float(sum(stored_figure(score.score, "n_unscored") or 0 for score in scores))


def _as_metric(compute: Callable[[list[SampleScore]], float]) -> Metric:
    # Inspect distinguishes the current metric protocol from its deprecated one by this annotation.
    def metric_of(scores: list[SampleScore]) -> float:
        return compute(scores)

    return metric_of


@metric(scores="unreduced")
def flagged_rate() -> Metric:
    """Share of scored transcripts that are flagged."""
    return _as_metric(_rate)


@metric(scores="unreduced")
def flagged_low() -> Metric:
    """Lower end of the 95 % Wilson interval of `flagged_rate`."""
    return _as_metric(lambda scores: _interval(scores)[0])


@metric(scores="unreduced")
def flagged_high() -> Metric:
    """Upper end of the 95 % Wilson interval of `flagged_rate`."""
    return _as_metric(lambda scores: _interval(scores)[1])


@metric(scores="unreduced")
def mean_value() -> Metric:
    """Mean value of the scored transcripts, for measures whose values are numbers and not flags."""
    return _as_metric(_rate)


@metric(scores="unreduced")
def z_scores() -> Metric:
    """Mean z-scores against the calibration: of the probes, of the controls, and the share above the 95th percentile of deployment.

    Without a calibration, Inspect's table has none of the three.
    """
    keys = {"mean_z": "z", "mean_z_unrelated": "z_unrelated", "above_95": "above_95"}

    def metric_of(scores: list[SampleScore]) -> dict[str, float]:
        means = {shown: _mean_of(scores, key) for shown, key in keys.items()}
        return {shown: mean for shown, mean in means.items() if not np.isnan(mean)}

    return metric_of


@metric(scores="unreduced")
def n() -> Metric:
    """Number of scored transcripts."""
    return _as_metric(len)


@metric(scores="unreduced")
def token_rate() -> Metric:
    """Mean over transcripts of the share of scored explanations that are YES."""
    return _as_metric(partial(_mean_of, key="token_rate"))


@metric(scores="unreduced")
def mean_k() -> Metric:
    """Mean number of tokens read per transcript (the number asked for, or all tokens of a shorter response)."""
    return _as_metric(partial(_mean_of, key="k"))


@metric(scores="unreduced")
def unclear_rate() -> Metric:
    """Mean over transcripts of the share of scored explanations that are UNCLEAR."""
    return _as_metric(partial(_mean_of, key="unclear_rate"))


@metric(scores="unreduced")
def explanations_unscored() -> Metric:
    """Number of explanations that could not be made or graded, in scored transcripts."""
    return _as_metric(_unscored_in)
