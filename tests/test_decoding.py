"""The decoding engine against transformers' `generate`, and against itself one row at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.models.loaded import LoadedModel, load_model
from tests.conftest import CONFIGS

Folder = Callable[[str], Path]
GREEDY = SamplingParams(temperature=0)
PROMPTS = [[256, *text] for text in (b"one", b"a somewhat longer prompt than the sliding window allows", b"and another of them", b"x" * 70)]


def requests(n: int = 24, **settings: object) -> list[Request]:
    return [Request(prompt, n, seed=(i,), **settings) for i, prompt in enumerate(PROMPTS)]  # type: ignore[arg-type]


@pytest.mark.parametrize("family", CONFIGS)
def test_greedy_batch_equals_generate(family: str, tiny_folder: Folder, independent: Callable[[Path], PreTrainedModel]) -> None:
    model = load_model(str(tiny_folder(family)), dtype="float32", device="cpu")
    reference = independent(tiny_folder(family))
    for done in Decoder(model).run(requests(sampling=GREEDY)):
        prompt = torch.tensor([done.request.prompt_ids])
        out = reference.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False, eos_token_id=-1)
        assert done.ids == out[0, prompt.shape[1] :].tolist()


def test_sampled_rows_do_not_depend_on_the_batch(tiny: LoadedModel) -> None:
    together = Decoder(tiny).run(requests())
    alone = [Decoder(tiny).run([request])[0] for request in requests()]
    few_at_once = Decoder(tiny, max_rows=2, prefill_tokens=8).run(list(reversed(requests())))
    assert [d.ids for d in together] == [d.ids for d in alone] == [d.ids for d in reversed(few_at_once)]
    assert len({tuple(d.ids) for d in together}) == len(PROMPTS)


def test_rows_that_end_early_leave_the_others_as_they_were(tiny: LoadedModel) -> None:
    full = Decoder(tiny).run(requests(n=30, sampling=GREEDY))
    limits = [3, 30, 9, 17]
    cut = Decoder(tiny).run([Request(p, n, sampling=GREEDY) for p, n in zip(PROMPTS, limits, strict=True)])
    assert [d.ids for d in cut] == [d.ids[:n] for d, n in zip(full, limits, strict=True)]
    assert {d.stop_reason for d in cut} == {"max_tokens"}


def test_a_shared_prefix_is_reused_and_changes_nothing(tiny: LoadedModel) -> None:
    shared = [256, *b"the same system prompt for everybody, "]
    prompts = [[*shared, *tail] for tail in (b"first", b"a second question", b"third")]
    decoder = Decoder(tiny)
    again = decoder.run([Request(p, 12, sampling=GREEDY) for p in prompts])
    fresh = [Decoder(tiny).run([Request(p, 12, sampling=GREEDY)])[0] for p in prompts]
    assert [d.ids for d in again] == [d.ids for d in fresh]
    assert again[0].reused_prefix == 0
    assert all(d.reused_prefix >= len(shared) for d in again[1:])


@pytest.mark.parametrize("family", CONFIGS)
def test_rows_that_begin_alike_equal_generate_and_so_do_strangers_that_join(
    family: str, tiny_folder: Folder, independent: Callable[[Path], PreTrainedModel]
) -> None:
    model = load_model(str(tiny_folder(family)), dtype="float32", device="cpu")
    reference = independent(tiny_folder(family))
    shared = [256, *b"what all of these prompts begin with, "]
    alike = [[*shared, *tail] for tail in (b"a", b"second", b"third, with a longer ending of its own", b"b", b"the fifth")]
    decoder, done = Decoder(model), []
    late = [PROMPTS[1], [*shared, *b"late"]]  # a stranger, and one that is alike after all, while rows of unequal length decode
    for i, prompt in enumerate(alike):
        decoder.add(Request(prompt, 6 + 3 * i, sampling=GREEDY))
    while decoder.busy:
        done += decoder.step()
        while done and late:
            decoder.add(Request(late.pop(0), 12, sampling=GREEDY))
    assert len(done) == 7
    for one in done:
        prompt = torch.tensor([one.request.prompt_ids])
        n = one.request.max_tokens
        out = reference.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=n, do_sample=False, eos_token_id=-1)
        assert one.ids == out[0, prompt.shape[1] :].tolist()
    assert sum(one.reused_prefix >= len(shared) for one in done) >= 5


def test_what_rows_share_is_held_once(tiny: LoadedModel) -> None:
    shared = [256, *(b"a long beginning " * 8)]
    decoder = Decoder(tiny)
    for i in range(16):
        decoder.add(Request([*shared, i], 8, sampling=GREEDY))
    decoder.step()
    held = sum(buffer.nbytes for buffer in (*decoder._cache.keys, *decoder._cache.values))
    alone = Decoder(tiny)
    alone.add(Request([*shared, 0], 8, sampling=GREEDY))
    alone.step()
    assert held < 16 * sum(buffer.nbytes for buffer in (*alone._cache.keys, *alone._cache.values)) / 2


def test_an_injected_vector_replaces_the_embedding(
    tiny: LoadedModel, tiny_folder: Folder, independent: Callable[[Path], PreTrainedModel]
) -> None:
    reference = independent(tiny_folder("llama"))
    prompt = [256, *b"the meaning of this long enough prompt is X here"]
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    jobs = [Request(prompt, 10, sampling=GREEDY, injections=((46, v),)) for v in vectors]
    for done, vector in zip(Decoder(tiny).run(jobs), vectors, strict=True):
        embeds = reference.get_input_embeddings()(torch.tensor([prompt])).detach().clone()
        embeds[0, 46] = vector
        out = reference.generate(inputs_embeds=embeds, max_new_tokens=10, do_sample=False, eos_token_id=-1)
        assert done.ids == out[0].tolist()


def test_stop_conditions(tiny: LoadedModel) -> None:
    plain = Decoder(tiny).run([Request(PROMPTS[0], 20, sampling=GREEDY)])[0].ids
    stop_at = plain.index(plain[7])
    by_id = Decoder(tiny).run([Request(PROMPTS[0], 20, sampling=GREEDY, stop_ids=frozenset({plain[7]}))])[0]
    assert (by_id.ids, by_id.stop_reason) == (plain[: stop_at + 1], "stop")
    by_test = Decoder(tiny).run([Request(PROMPTS[0], 20, sampling=GREEDY, should_stop=lambda ids: len(ids) == 5)])[0]
    assert (by_test.ids, by_test.stop_reason) == (plain[:5], "stop")


def test_a_full_context_window_ends_a_row(tiny: LoadedModel) -> None:
    nearly, over = Decoder(tiny).run([Request([65] * 505, 100, sampling=GREEDY), Request([65] * 512, 100)])
    assert (len(nearly.ids), nearly.stop_reason) == (8, "model_length")  # 7 positions are left, and the last token needs none
    assert (over.ids, over.stop_reason) == ([], "model_length")


def test_a_row_off_the_trunk_joins_only_when_all_rows_fit_with_the_trunk_in_each(tiny: LoadedModel) -> None:
    together = [Request([70] * 40 + [65 + i] * 4, 20, sampling=GREEDY) for i in range(8)]
    alone = Request([80] * 63, 1, sampling=GREEDY)
    decoder = Decoder(tiny, max_positions=300)  # 8 rows of 24 positions after the trunk fit, 9 rows of 64 do not
    for request in together:
        decoder.add(request)
    ended = [done.request for done in decoder.step()]
    decoder.add(alone)  # while the others share their beginning
    while decoder.busy:
        ended += [done.request for done in decoder.step()]
    assert ended[-1] is alone
    assert len(ended) == 9


def test_cancelled_requests_leave_at_once(tiny: LoadedModel) -> None:
    decoder = Decoder(tiny)
    jobs = requests(n=50)
    for job in jobs:
        decoder.add(job)
    decoder.step()
    jobs[1].cancelled = True
    done = decoder.step()
    assert [(d.request, d.stop_reason) for d in done] == [(jobs[1], "cancelled")]
    jobs[0].cancelled = jobs[2].cancelled = jobs[3].cancelled = True
    while decoder.busy:
        done.extend(decoder.step())
    assert len(done) == 4


def test_logprobs_are_those_of_a_plain_forward_pass(
    tiny: LoadedModel, tiny_folder: Folder, independent: Callable[[Path], PreTrainedModel]
) -> None:
    done = Decoder(tiny).run([Request(PROMPTS[1], 6, seed=(3,), top_logprobs=2)])[0]
    ids = [*PROMPTS[1], *done.ids]
    with torch.no_grad():
        logits = independent(tiny_folder("llama"))(torch.tensor([ids])).logits[0, len(PROMPTS[1]) - 1 : -1]
    expected = logits.log_softmax(-1)
    assert done.logprobs is not None
    for row, one in zip(expected, done.logprobs, strict=True):
        assert one.logprob == pytest.approx(float(row[one.token]), abs=1e-4)
        assert [t for t, _ in one.top] == row.topk(2).indices.tolist()


@pytest.mark.slow
def test_bfloat16_packed_weights_stay_close_to_plain_ones(smollm2: LoadedModel) -> None:
    packed = load_model("smollm2", dtype="bfloat16", device="cpu")
    ids = torch.tensor([packed.tokenizer.encode("The capital of France is Paris, and the capital of Italy is")])
    with torch.no_grad():
        difference = (packed.network(ids).logits.float() - smollm2.network(ids).logits).abs().mean()
        scale = smollm2.network(ids).logits.std()
    assert difference / scale < 0.05
