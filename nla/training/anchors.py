"""Which vectors of known state reinforcement learning is anchored to: beside the reward, the AV is taught the teacher's words for them.

The claim of a state that is not there is rare in a draw of vectors, so neither the reward nor a random choice of anchors meets it
often. With `rl.wrong_anchors` half of the anchors are vectors that the AV tells wrongly before the stage begins. This is ours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from nla.support.seeds import seeded_generator
from nla.training.known_vectors import KNOWN
from nla.training.samples import draw_samples, read_samples
from nla.training.truth import claim_grader
from nla.verbalizers.base import Verbalizer

FIRST_LINE_TOKENS = 26
"""Tokens of an explanation that are drawn to see whether it claims the state: the claim stands in the first line."""
_NAME = "silent"


def known_rows(doc_ids: Sequence[str], rows: Sequence[int]) -> list[int]:
    """Return those of some row numbers whose vectors are of known state."""
    return [row for row in rows if doc_ids[row].startswith(KNOWN)]


def half_wrong(
    verbalizer: Verbalizer,
    vectors: Float[Tensor, "n d_model"],
    explanations: Sequence[str],
    rows: Sequence[int],
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
) -> list[int]:
    """Return the rows of which the AV claims a state that the teacher does not claim, and as many others, drawn by a seed.

    Where there is no such row, all rows are returned. The explanations are kept in files, so a resumed run draws none again.

    Args:
        verbalizer: the AV; `FIRST_LINE_TOKENS` tokens per explanation are enough, and a truncated one counts.
        vectors: raw vectors of the whole data set.
        explanations: the teacher's, of the whole data set.
        rows: row numbers of vectors of known state.
        folder: for the files; it is created where it is missing.
        say: receives lines of progress.

    Raises:
        ConfigError: no grader is installed that could read claims.
        DataError: a file cannot be written or read.
    """
    claims = claim_grader("rl.wrong_anchors")
    silent = [row for row, claim in zip(rows, claims([explanations[row] for row in rows]), strict=True) if not claim]
    folder.mkdir(parents=True, exist_ok=True)
    draw_samples(verbalizer, vectors, silent, folder, _NAME, say)
    texts = read_samples(silent, folder, _NAME, with_failed=True)
    wrong = [row for row, claim in zip(texts, claims(list(texts.values())), strict=True) if claim]
    order = seeded_generator("right anchors").permutation(len(rows))[: len(wrong)]
    return [*wrong, *(rows[i] for i in order)] if wrong else list(rows)
