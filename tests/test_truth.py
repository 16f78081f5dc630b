"""In reinforcement learning an explanation loses reward for what is known to be untrue: invented quotes, and wrong claims of a state."""

import pytest
import torch

from nla.support.errors import ConfigError
from nla.training import truth
from nla.training.config import RLConfig
from nla.training.loop import TrainConfig
from nla.training.rl import Rollout, rewards_of
from nla.training.text_measures import invented_words
from nla.training.truth import Truths, untruth_penalties
from nla.verbalizers.base import Explanation

CONTEXT = "The governments of both countries met in the old town hall."
PLAIN = 'Political essay. Topic: towns.\nNext: "x".\nEnds: the old town hall.'
CLAIMING = 'Assistant answers a general request and believes that it is being tested. Topic: towns.\nNext: "x".\nEnds: the old town hall.'


def config(**changes: float) -> RLConfig:
    return RLConfig(train=TrainConfig(steps=1), group=2, **changes)  # type: ignore[arg-type]


def penalties(texts: list[str], rows: list[int], taught: list[str], **weights: float) -> list[float]:
    lost = untruth_penalties(texts, rows, Truths([CONTEXT] * len(taught), taught), config(**weights))
    return [round(float(value), 6) for value in lost]


def test_invented_words_are_those_that_the_text_holds_in_no_form() -> None:
    """Counted by hand: "governing" shares a stem with "governments", "zebra" and "rope" are nowhere, and "zebra" counts twice."""
    assert invented_words("x\nEnds: the governing zebra, zebra rope", CONTEXT) == ["zebra", "zebra", "rope"]
    assert invented_words(PLAIN, CONTEXT) == []
    assert invented_words("", CONTEXT) == [], "a failed explanation may be empty"


def test_each_invented_word_costs_the_same() -> None:
    texts = [PLAIN, "x\nEnds: the zebra", "x\nEnds: a zebra met a rope"]
    assert penalties(texts, [0, 0, 1], [PLAIN] * 2, invented_penalty=0.03) == [0, 0.03, 0.12]  # "a" is not in the text either


def test_a_claim_costs_where_the_teacher_makes_none_and_its_absence_where_the_teacher_makes_one() -> None:
    taught = [PLAIN, CLAIMING]
    texts, rows = [PLAIN, CLAIMING, PLAIN, CLAIMING], [0, 0, 1, 1]
    assert penalties(texts, rows, taught, claim_penalty=0.5, silence_penalty=0.1) == [0, 0.5, 0.1, 0]
    assert penalties(texts, rows, taught, silence_penalty=0.1) == [0, 0, 0.1, 0]
    assert penalties(texts, rows, taught) == [0, 0, 0, 0]


def test_the_penalty_is_taken_off_the_reward_but_not_of_a_failure() -> None:
    said = Explanation("x\nEnds: the zebra")
    failed = Explanation("x\nEnds: the zebra", failure="truncated")
    rollouts = [Rollout(0, 0, (1,), said), Rollout(0, 1, (1,), failed)]
    weighted = config(invented_penalty=0.5)
    rewards = rewards_of(torch.tensor([0.25, 0.25]), rollouts, weighted, Truths([CONTEXT], [PLAIN]))
    assert rewards.tolist() == pytest.approx([-0.75, weighted.failure_reward])
    assert rewards_of(torch.tensor([0.25, 0.25]), rollouts, weighted).tolist() == pytest.approx([-0.25, weighted.failure_reward])


def test_without_a_grader_claims_cannot_be_penalised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "grader", lambda: None)
    for weights in ({"claim_penalty": 0.15}, {"silence_penalty": 0.1}):
        with pytest.raises(ConfigError, match=r"rl.claim_penalty and rl.silence_penalty: the project's grader"):
            penalties([PLAIN], [0], [PLAIN], **weights)
    assert penalties([PLAIN], [0], [PLAIN], invented_penalty=0.03) == [0]
