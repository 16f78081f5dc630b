"""The KL penalty is steered to its target, training ends where nothing is gained, and dead lines of the teacher are refused."""

import re

import pytest

from nla.support.errors import DataError
from nla.training.config import RLConfig
from nla.training.data.dead_lines import FEWEST, refuse_dead_lines
from nla.training.loop import TrainConfig
from nla.training.rl_control import kl_weight, reason_to_end


def config(**changes: object) -> RLConfig:
    return RLConfig(train=TrainConfig(steps=10), kl=0.05, **changes)  # type: ignore[arg-type]


def test_the_weight_rises_above_the_target_and_falls_below_it() -> None:
    steered = config(kl_target=0.2)
    assert kl_weight([], steered) == 0.05
    assert kl_weight([{"kl": 0.31}, {"kl": 0.2}, {"kl": 0.9}], steered) == pytest.approx(0.05 * 1.1 * 1.1)
    assert kl_weight([{"kl": 0.1}], steered) == pytest.approx(0.05 / 1.1)
    assert kl_weight([{"kl": 5.0}] * 400, steered) == pytest.approx(0.05 * 30)
    assert kl_weight([{"kl": 0.0}] * 400, steered) == pytest.approx(0.05 / 30)
    assert kl_weight([{"kl": 5.0}] * 9, config()) == 0.05


def evaluations(**series: list[float]) -> list[dict[str, float]]:
    """Metrics with an evaluation at every second step."""
    steps = [dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)]
    return [figures for step in steps for figures in ({"kl": 0.1}, {"kl": 0.1} | {f"heldout_{name}": v for name, v in step.items()})]


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        ({"fve": [0.1, 0.2, 0.3, 0.4]}, ""),
        ({"fve": [0.1, 0.4, 0.3, 0.4]}, "held-out fve_nrm has not risen for 2 evaluations"),
        ({"fve": [0.4, 0.3]}, ""),  # too few to say
        ({"fve": [0.1, 0.2, 0.3, 0.4], "distinct": [1.0, 1.0, 0.97, 0.96]}, ""),
        ({"fve": [0.1, 0.2, 0.3, 0.4], "distinct": [1.0, 1.0, 0.9, 0.8]}, "the share of distinct explanations has been more than 0.05"),
        ({"fve": [0.1, 0.2, 0.3, 0.4], "known_auroc": [0.7, 0.75, 0.6, 0.5]}, "the AUROC of known states .* best \\(0.75\\)"),
        ({"fve": [0.1, 0.2, 0.3, 0.4], "known_auroc": [0.7, 0.75, 0.6, 0.73]}, ""),
    ],
)
def test_training_ends_where_nothing_is_gained_or_something_is_lost(series: dict[str, list[float]], reason: str) -> None:
    ended = reason_to_end(evaluations(**series), 2)
    assert re.search(reason, ended) if reason else ended == ""
    assert reason_to_end(evaluations(**series), None) == ""


def test_a_line_that_is_always_the_same_is_refused() -> None:
    alive = [f"Text {i}.\nNext: {i}.\nEnds: {i}" for i in range(FEWEST)]
    refuse_dead_lines(alive)
    dead = [text.replace(f"Next: {i}", "Next: nothing") for i, text in enumerate(alive)]
    with pytest.raises(DataError, match=rf"line 2 of the teacher's explanations is dead: 'Next: nothing\.' in {FEWEST} of {FEWEST}"):
        refuse_dead_lines(dead)
    refuse_dead_lines([*dead[: FEWEST // 2], *alive])
    refuse_dead_lines(dead[: FEWEST - 1])
