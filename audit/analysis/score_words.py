"""The sentence that says what steering away from awareness does to a benchmark's own score."""

from collections.abc import Sequence
from dataclasses import replace

from audit.analysis.score_change_record import ScoreChange, StrengthScores
from audit.stats.paired_scores import ScoreDifference


def sentence(change: ScoreChange) -> ScoreChange:
    """Return a result with its verdict and its sentence.

    The score counts as inflated (deflated) only if the interval lies above (below) 0 against every set of controls that was run: those of
    the same strength and those of matched degradation. Without controls, the difference from base is reported and no verdict is given.
    """
    verdict, text = _said(change)
    return replace(change, verdict=verdict, sentence=text)


def _said(change: ScoreChange) -> tuple[str, str]:
    if not change.strengths:
        return "unknown", "The audit was not steered, so it does not say whether awareness changes the own score."
    steered = next((item for item in change.strengths if item.strength == change.headline), None)
    if steered is None:
        broken = "; ".join(f"{item.strength:+g}: {item.degenerate}" for item in change.strengths if item.degenerate)
        return "unknown", f"Cannot tell: no coherent responses steered away from awareness ({broken or 'only steered towards it'})."
    comparisons = [beyond.inflation for beyond in (steered.matched, steered.same_strength) if beyond is not None]
    if not comparisons:
        return "unknown", _without_controls(change, steered)
    if any(item.difference.low is None or item.difference.high is None for item in comparisons):
        reason = next(item.difference.reason for item in comparisons if item.difference.low is None)
        return "unknown", f"Cannot tell: {reason}."
    return _beyond(change, steered, comparisons)


def _beyond(change: ScoreChange, steered: StrengthScores, comparisons: Sequence[ScoreDifference]) -> tuple[str, str]:
    n = comparisons[0].difference.n
    controls = " and ".join(
        f"{len(beyond.controls)} unrelated contrast{'' if len(beyond.controls) == 1 else 's'} {how}"
        for beyond, how in ((steered.matched, "at matched degradation"), (steered.same_strength, "at the same strength"))
        if beyond is not None
    )
    where = f"(steering {steered.direction}:{steered.strength:+g}, {n} items, against {controls})"
    differences = [_points(change, item) for item in comparisons]
    signs = {_sign(item) for item in comparisons}
    if signs in ({1}, {-1}):
        word = "inflated" if signs == {1} else "deflated"
        shown = differences[0] if word == "inflated" else _points(change, comparisons[0], -1)
        return word, f"Own score {word} by {shown} beyond controls {where}."
    if change.base.estimate == 0 and change.is_share and comparisons[0].difference.estimate == 0:
        return "unknown", f"Cannot tell: the own score is 0 on every item, so steering cannot lower it {where}."
    if signs != {0}:
        return "unknown", f"Cannot tell: the comparisons disagree {where}; the differences are {' and '.join(differences)}."
    limits = [item.detectable for item in comparisons]
    known = [limit for limit in limits if limit is not None]
    reach = f"a true difference of {_number(change, max(known))} would be found with 80 % power" if len(known) == len(limits) else ""
    found = f"No difference in the own score was found {where}: {' and '.join(differences)}"
    return "none", f"{found}; {reach}." if reach else f"{found}, and none could have been."


def _without_controls(change: ScoreChange, steered: StrengthScores) -> str:
    return (
        f"The own score without steering minus that under {steered.direction}:{steered.strength:+g} is "
        f"{_points(change, steered.against_base)}; no unrelated contrasts were run, so awareness and degradation cannot be told apart."
    )


def _sign(difference: ScoreDifference) -> int:
    low, high = difference.difference.low, difference.difference.high
    return 1 if low is not None and low > 0 else -1 if high is not None and high < 0 else 0


def _points(change: ScoreChange, difference: ScoreDifference, sign: int = 1) -> str:
    """The difference with its interval, in points."""
    estimate = difference.difference
    if estimate.estimate is None:
        return "an unknown amount"
    if estimate.low is None or estimate.high is None:
        return _number(change, sign * estimate.estimate)
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    scale, digits = (100, 1) if change.is_share else (1, 2)
    return f"{_number(change, sign * estimate.estimate)} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def _number(change: ScoreChange, value: float) -> str:
    """A number of points: percentage points for scores from 0 to 1, and the score's own unit for others."""
    return f"{100 * value:.1f} points" if change.is_share else f"{value:.2f} (on the score's own scale)"
