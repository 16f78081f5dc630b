"""Choice of tokens against brute force and against the distribution itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nla.engine.sampling import SamplingParams, choose_tokens
from nla.support.seeds import seeded_generator

Logits = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=40)


@given(Logits)
def test_zero_temperature_is_the_argmax(logits: list[float]) -> None:
    row = torch.tensor([logits])
    assert choose_tokens(row, [SamplingParams(temperature=0)], [0.3]) == [int(row[0].argmax())]


@given(Logits, st.floats(0, 1, exclude_max=True), st.floats(0.1, 3))
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(logits: list[float], draw: float, temperature: float) -> None:
    chosen = choose_tokens(torch.tensor([logits]), [SamplingParams(temperature)], [draw])[0]
    cumulative = np.cumsum(torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, -1).numpy())
    below = cumulative[chosen - 1] if chosen else 0.0
    assert below - 1e-5 <= draw <= cumulative[chosen] + 1e-5


@given(Logits, st.floats(0, 1, exclude_max=True), st.floats(0.05, 0.99), st.integers(0, 10))
def test_truncated_draws_stay_in_the_truncated_set(logits: list[float], draw: float, top_p: float, top_k: int) -> None:
    chosen = choose_tokens(torch.tensor([logits]), [SamplingParams(1.0, top_p, top_k)], [draw])[0]
    probabilities = torch.softmax(torch.tensor(logits, dtype=torch.float64), -1).numpy()
    ranked = sorted(range(len(logits)), key=lambda i: -probabilities[i])[: top_k or None]
    mass = probabilities[ranked] / probabilities[ranked].sum()
    enough = int(np.searchsorted(np.cumsum(mass), top_p - 1e-6)) + 1
    threshold = probabilities[ranked[: enough + 1]].min()  # one more, for ties and rounding
    assert probabilities[chosen] >= threshold - 1e-6


@pytest.mark.slow
def test_frequencies_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0, 0.5]])
    draws = seeded_generator("test").random(4_000)
    counts = np.bincount([choose_tokens(logits, [SamplingParams()], [float(u)])[0] for u in draws], minlength=5)
    assert stats.chisquare(counts, torch.softmax(logits[0].double(), -1).numpy() * 4_000).pvalue > 0.001


def test_a_large_vocabulary_is_cut_where_a_full_sort_cuts_it() -> None:
    logits = torch.randn(1, 5_000, generator=torch.Generator().manual_seed(0)) * 0.5  # flat: top-p needs far more than the first look
    probabilities, order = torch.softmax(logits[0], -1).sort(descending=True)
    keep = int((probabilities.cumsum(-1) < 0.9).sum()) + 1
    chosen = {choose_tokens(logits, [SamplingParams(1.0, 0.9)], [u])[0] for u in np.linspace(0, 0.999, 300).tolist()}
    assert chosen <= set(order[: keep + 1].tolist())
    assert len(chosen) > 250


@pytest.mark.parametrize("vocab", [255, 256, 257, 5_003])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_draws_from_a_large_vocabulary_invert_the_whole_distribution(vocab: int, temperature: float) -> None:
    logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
    cumulative = np.cumsum(torch.softmax(logits[0].double() / temperature, -1).numpy())
    draws = np.linspace(0, 1, 400, endpoint=False)
    chosen = choose_tokens(logits.repeat(400, 1), [SamplingParams(temperature)] * 400, draws.tolist())
    near_a_step = np.abs(cumulative[None] - draws[:, None]).min(axis=1) < 1e-6  # float32 weights may fall either side
    assert near_a_step.sum() < 10
    assert (np.asarray(chosen) == np.searchsorted(cumulative, draws, side="right"))[~near_a_step].all()


def test_rows_with_different_settings_do_not_disturb_each_other() -> None:
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    params = [SamplingParams(0), SamplingParams(1.0), SamplingParams(0.5, 0.8), SamplingParams(2.0, 1.0, 3)]
    together = choose_tokens(logits, params, [0.1, 0.5, 0.9, 0.7])
    alone = [choose_tokens(logits[i : i + 1], [p], [u])[0] for i, (p, u) in enumerate(zip(params, [0.1, 0.5, 0.9, 0.7], strict=True))]
    assert together == alone


@settings(max_examples=30)
@given(st.tuples(st.text(), st.integers()), st.tuples(st.text(), st.integers()))
def test_generators_differ_when_and_only_when_their_keys_do(left: tuple[str, int], right: tuple[str, int]) -> None:
    a, b, a_again = (seeded_generator(*key).integers(2**62) for key in (left, right, left))
    assert a == a_again
    assert (a == b) == (left == right)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_extreme_draws_pick_a_real_token(draw: float) -> None:
    assert choose_tokens(torch.tensor([[0.0, -torch.inf, 0.0]]), [SamplingParams()], [draw])[0] in (0, 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        choose_tokens(torch.tensor([[0.0, bad, 1.0]]), [SamplingParams(0)], [0.5])
