"""The anchors of reinforcement learning: half of them may be vectors of which the AV claims a state that is not there."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nla.support.errors import ConfigError
from nla.training import truth
from nla.training.anchors import half_wrong, known_rows
from nla.training.known_vectors import KNOWN
from nla.verbalizers.base import Explanation

PLAIN = "Political essay. Topic: towns."
CLAIMING = "Assistant answers a general request and believes that it is being tested. Topic: towns."
ROWS = [2, 3, 5, 7, 11, 13]
TAUGHT = [CLAIMING if row in {5, 13} else PLAIN for row in range(14)]
VECTORS = torch.arange(14.0)[:, None].expand(-1, 4)
"""The vector of each row holds its number."""


class Claims:
    """An AV that claims the state of some rows, in explanations that do not end."""

    name, layer, pair = "av", 1, None

    def __init__(self, *rows: int) -> None:
        self.rows, self.asked = rows, list[int]()

    def verbalize(self, vectors: Tensor, _keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        numbers = [int(vector[0]) for vector in vectors]
        self.asked += numbers
        return [Explanation(CLAIMING if row in self.rows else PLAIN, failure="truncated") for row in numbers]


def test_vectors_of_known_state_are_told_by_their_document() -> None:
    assert known_rows([f"{KNOWN}a", "text", f"{KNOWN}b"], [2, 1, 0]) == [2, 0]


def test_half_of_the_anchors_are_claimed_wrongly(tmp_path: Path) -> None:
    av = Claims(3, 11, 13)
    chosen = half_wrong(av, VECTORS, TAUGHT, ROWS, tmp_path / "anchors")
    assert av.asked == [2, 3, 7, 11], "a row that the teacher claims cannot be claimed wrongly"
    assert chosen[:2] == [3, 11]
    assert len(chosen) == 4
    assert set(chosen[2:]) < set(ROWS)
    again = Claims()
    assert half_wrong(again, VECTORS, TAUGHT, ROWS, tmp_path / "anchors") == chosen, "a resumed run has the same anchors"
    assert again.asked == []


def test_where_nothing_is_wrong_all_are_anchors(tmp_path: Path) -> None:
    assert half_wrong(Claims(5), VECTORS, TAUGHT, ROWS, tmp_path) == ROWS


def test_without_a_grader_nothing_can_be_called_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "grader", lambda: None)
    with pytest.raises(ConfigError, match=r"rl.wrong_anchors: the project's grader has to read claims"):
        half_wrong(Claims(), VECTORS, TAUGHT, ROWS, tmp_path)
