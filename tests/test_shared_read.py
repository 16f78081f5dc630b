"""One read of each transcript: one forward pass serves all scorers, its numbers are those of plain torch, and nothing is mixed up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from inspect_ai import Task, eval, score
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser, get_model
from inspect_ai.scorer import Scorer
from inspect_ai.solver import generate
from transformers import PreTrainedModel

from graders.scorers import measure_scorers
from graders.scorers.coherence import coherence
from nla.activations.steering import steer
from nla.inspect.reading import read_transcript
from nla.inspect.shared_read import LOGPROBS, RESPONSE_TOKENS, VECTORS, Recent, TranscriptVectors, read_vectors, shared_logprobs
from nla.instrument import Instrument
from nla.models.loaded import LoadedModel
from nla.support.errors import TranscriptError
from nla.transcripts.tokens import sample_tokens
from nla.transcripts.transcript import build_transcript

Folder = Callable[[str], Path]
INSTRUMENT = Instrument(measures=("nla", "probe"), tokens=4, layer=1, verbalizer="logit_lens", probes=("testing", "unrelated-1"))


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    VECTORS.clear()
    LOGPROBS.clear()


def conversation(reply: str, question: str = "Hello?") -> list[ChatMessage]:
    return [ChatMessageUser(content=question), ChatMessageAssistant(content=reply, source="generate")]


def read(model: LoadedModel, reply: str, *, key: tuple[object, ...] = (0, "q", 1), **how: bool) -> TranscriptVectors:
    return read_vectors(model, conversation(reply), 1, n_sampled=4, key=key, **how)  # type: ignore[arg-type]


@contextmanager
def counted_passes(model: LoadedModel) -> Iterator[list[int]]:
    """Lengths of the sequences that enter a network."""
    lengths: list[int] = []
    handle = model.embedding.register_forward_hook(lambda _module, inputs, _output: lengths.append(inputs[0].shape[-1]))
    try:
        yield lengths
    finally:
        handle.remove()


def unscored_log(folder: Path, **model_args: str) -> EvalLog:
    task = Task(dataset=[Sample(id=f"q{i}", input=f"What is {i} plus {i}?") for i in range(3)], solver=generate())
    arguments = {"dtype": "float32"} | model_args
    [log] = eval(task, model=f"local/{folder}", model_args=arguments, display="none", log_dir=str(folder / "logs"), max_tokens=30)
    return log


def scorers(*, with_coherence: bool) -> list[Scorer]:
    projected = INSTRUMENT.model_copy(update={"project_out": True, "measures": ("nla",)})
    measures = [scorer for asked in (INSTRUMENT, projected) for scorer in measure_scorers(asked, coherence=with_coherence)]
    return [*measures, coherence()]


def test_one_pass_of_a_transcript_serves_all_scorers(tiny_folder: Folder) -> None:
    log = unscored_log(tiny_folder("llama"))
    model: LoadedModel = get_model(f"local/{tiny_folder('llama')}", dtype="float32").api.model  # type: ignore[attr-defined]
    score(log, scorers(with_coherence=True), display="none")  # directions and mean vectors are computed once
    scores = {}
    for with_coherence, expected in ((True, 3), (False, 6)):
        VECTORS.clear()
        LOGPROBS.clear()
        with counted_passes(model) as lengths:
            scored = score(log, scorers(with_coherence=with_coherence), display="none")
        assert len(lengths) == expected
        scores[with_coherence] = [(s.scores or {})["coherence"].value for s in scored.samples or []]
    assert scores[True] == pytest.approx(scores[False])


def test_a_steered_transcript_is_run_once_steered_and_once_plain(tiny_folder: Folder) -> None:
    log = unscored_log(tiny_folder("llama"), steer="awareness:+0.5")
    view: LoadedModel = get_model(f"local/{tiny_folder('llama')}", dtype="float32", steer="awareness:+0.5").api.model  # type: ignore[attr-defined]
    assert view.steering is not None
    score(log, scorers(with_coherence=True), display="none")
    VECTORS.clear()
    LOGPROBS.clear()
    with counted_passes(view) as steered_passes, counted_passes(view.plain) as plain_passes:
        score(log, scorers(with_coherence=True), display="none")
    assert (len(steered_passes), len(plain_passes)) == (3, 3)


def test_vectors_and_log_probabilities_are_those_of_plain_torch(
    tiny: LoadedModel, tiny_folder: Folder, independent: Callable[[Path], PreTrainedModel]
) -> None:
    reply = "The sky is blue because of scattering."
    shared = read(tiny, reply, shared=True, logprobs=True)
    text = f"<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n{reply}"
    ids = torch.tensor([tiny.tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        out = independent(tiny_folder("llama"))(ids, output_hidden_states=True)
    places = [token.position for token in shared.tokens]
    assert places == list(range(ids.shape[1] - len(reply), ids.shape[1]))
    torch.testing.assert_close(shared.at(shared.tokens), out.hidden_states[2][0, places], rtol=1e-4, atol=1e-4)
    expected = out.logits[0].log_softmax(-1)[torch.tensor(places) - 1, ids[0, places]]
    with counted_passes(tiny) as lengths:
        logprobs = shared_logprobs(tiny, shared.transcript)
    assert not lengths
    assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_same_bits_are_read_whether_or_not_coherence_follows_and_whoever_reads_first(tiny: LoadedModel) -> None:
    reply = "long " * 80  # more than are read, so that the last token of the reply is not among them
    plain = read(tiny, reply)
    shared = read(tiny, reply, shared=True)
    VECTORS.clear()
    with_logprobs = read(tiny, reply, shared=True, logprobs=True)
    assert plain.tokens == shared.tokens == with_logprobs.tokens
    assert torch.equal(plain.vectors, shared.vectors)
    assert torch.equal(plain.vectors, with_logprobs.vectors)
    reading = read_transcript(tiny, conversation(reply), INSTRUMENT, key=("q", 1))
    assert reading.tokens == plain.sampled
    assert torch.equal(reading.vectors, plain.at(plain.sampled))


def test_at_most_300_tokens_are_read_and_the_choice_follows_sample_and_epoch(tiny: LoadedModel) -> None:
    reply = "x" * 380
    reads = {key: read(tiny, reply, key=key) for key in ((0, "q", 1), (0, "q", 2), (0, "r", 1), (1, "q", 1))}
    assert {len(each.read) for each in reads.values()} == {len(set(each.read)) for each in reads.values()} == {RESPONSE_TOKENS}
    assert len({each.read for each in reads.values()}) == len(reads)
    again = read(tiny, reply)
    assert (again.read, again.sampled) == (reads[0, "q", 1].read, reads[0, "q", 1].sampled)
    assert set(again.tokens) == {*again.read, *again.sampled}
    assert [token.position for token in again.tokens] == sorted(token.position for token in again.tokens)
    short = read(tiny, "x" * 20)
    assert short.read == short.tokens == tuple(short.transcript.response_tokens())


def test_a_token_behind_the_context_window_is_read_only_if_it_is_sampled(tiny: LoadedModel) -> None:
    before = len(build_transcript(tiny.tokenizer, conversation("")).passes[0].ids)
    reply = "x" * (tiny.max_positions - before + 1)
    transcript = build_transcript(tiny.tokenizer, conversation(reply))
    last = transcript.response_tokens()[-1]
    assert last.position == tiny.max_positions
    samples_last = {name: last in sample_tokens(transcript, 4, 0, name, 1) for name in range(200)}
    unlucky, lucky = (next(name for name, is_sampled in samples_last.items() if is_sampled is wanted) for wanted in (True, False))
    assert last not in read(tiny, reply, key=(0, lucky, 1), shared=True, logprobs=True).tokens
    with pytest.raises(TranscriptError, match="takes 1 to 512"):
        read(tiny, reply, key=(0, unlucky, 1))


def test_other_weights_steering_and_layers_never_get_kept_vectors(tiny: LoadedModel) -> None:
    plain = read(tiny, "A reply.", shared=True)
    with steer(tiny, "awareness:+0.5"):
        steered = read(tiny, "A reply.", shared=True)
    with steer(tiny, "awareness:+0.6"):
        stronger = read(tiny, "A reply.", shared=True)
    deeper = read_vectors(tiny, conversation("A reply."), 2, n_sampled=4, key=(0, "q", 1), shared=True)
    for other in (steered, stronger, deeper):
        assert other.tokens == plain.tokens
        assert not torch.allclose(other.vectors, plain.vectors)
    assert not torch.allclose(steered.vectors, stronger.vectors)
    with counted_passes(tiny) as lengths:
        assert torch.equal(read(tiny, "A reply.", shared=True).vectors, plain.vectors)
        assert not lengths
        read(tiny, "A reply.")  # without `shared`, for weights that may have changed
    assert len(lengths) == 1


def test_a_few_dozen_results_are_kept_and_the_one_used_last_stays() -> None:
    kept: Recent[int] = Recent(3)
    for number in range(3):
        kept.keep(number, number)
    assert kept.get(0) == 0
    kept.keep(3, 3)
    assert [kept.get(number) for number in range(4)] == [0, None, 2, 3]
