"""The follow-up question: log-odds of local models against plain torch, ratings of any provider, and that nothing else changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai import Task, eval, score
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.solver import generate
from transformers import AutoModelForCausalLM, PreTrainedModel

from graders.number_records import FollowUpRecord
from graders.record import read_records
from graders.scorers import measure_scorers
from graders.scorers.follow_up_awareness import follow_up_awareness
from graders.scorers.rating import NOT_A_NUMBER, QUESTION, parse_rating
from nla.activations.capture import residual_stream
from nla.activations.contrast_sets import ContrastSet
from nla.activations.follow_up import WORDINGS, evaluation_log_odds, log_odds_by_wording, log_odds_of_evaluation
from nla.instrument import Instrument
from nla.models.loaded import LoadedModel, load_model
from nla.probes.contrasts import direction
from nla.support.errors import HarnessError
from nla.transcripts.reply import record
from nla.transcripts.transcript import question_prompt
from tests.conftest import CONFIGS, byte_tokenizer
from tests.test_stop_and_rope import longrope

Folder = Callable[[str], Path]
Load = Callable[[Path], PreTrainedModel]
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello, and what is on your mind?"}]


def plain_log_odds(network: PreTrainedModel, messages: list[dict[str, str]], question: str) -> float:
    """log p(Yes) - log p(No) by a forward pass of its own over the whole prompt; words are read at their first byte."""
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in [*messages, {"role": "user", "content": question}])
    ids = byte_tokenizer().encode(said + "<|im_start|>assistant\n", add_special_tokens=False)
    with torch.no_grad():
        logits = network(torch.tensor([ids])).logits[0, -1]
    first = {character: byte_tokenizer().encode(character, add_special_tokens=False)[0] for character in "Y yNn"}
    yes, no = (torch.tensor(sorted({first[character] for character in characters})) for characters in ("Y y", "N n"))
    return float(logits[yes].logsumexp(0) - logits[no].logsumexp(0))


def test_half_of_the_wordings_are_reversed_and_all_differ() -> None:
    assert len({wording.question for wording in WORDINGS}) == len(WORDINGS) >= 4
    assert sum(wording.yes_means_evaluation for wording in WORDINGS) == len(WORDINGS) / 2


@pytest.mark.parametrize("family", CONFIGS)
def test_the_log_odds_are_those_of_independent_forward_passes(family: str, tiny_folder: Folder, independent: Load) -> None:
    model, network = load_model(str(tiny_folder(family)), dtype="float32", device="cpu"), independent(tiny_folder(family))
    signs = [1 if wording.yes_means_evaluation else -1 for wording in WORDINGS]
    expected = [sign * plain_log_odds(network, MESSAGES, wording.question) for sign, wording in zip(signs, WORDINGS, strict=True)]
    assert log_odds_by_wording(model, [MESSAGES])[0] == pytest.approx(expected, abs=1e-3)
    assert evaluation_log_odds(model, MESSAGES) == pytest.approx(sum(expected) / len(expected), abs=1e-3)


def test_a_model_that_changes_its_frequencies_answers_each_wording_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = longrope("llama", tmp_path, monkeypatch)
    network = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    signs = [1 if wording.yes_means_evaluation else -1 for wording in WORDINGS]
    expected = [sign * plain_log_odds(network, MESSAGES, wording.question) for sign, wording in zip(signs, WORDINGS, strict=True)]
    assert log_odds_by_wording(model, [MESSAGES])[0] == pytest.approx(expected, abs=1e-3)
    texts = ("short", "a text that is longer than the switch of frequencies")
    streams = [residual_stream(model, model.tokenizer.encode(text), 1)[1:].mean(dim=0) for text in texts]
    unit = torch.nn.functional.normalize(streams[0] - streams[1], dim=0)
    assert torch.allclose(direction(model, ContrastSet("x", (texts,), "mean"), 1), unit, atol=1e-5)


def test_the_wordings_of_a_conversation_run_as_one_batch_after_what_they_share(tiny: LoadedModel) -> None:
    shapes: list[tuple[int, ...]] = []
    handle = tiny.embedding.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape)))
    try:
        log_odds_of_evaluation(tiny, [MESSAGES])
    finally:
        handle.remove()
    assert [rows for rows, _ in shapes] == [1, len(WORDINGS)]


def test_a_conversation_that_is_too_long_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(HarnessError, match="takes 1 to 512"):
        evaluation_log_odds(tiny, [{"role": "user", "content": "x" * 600}])


NUMBERS = ["0", "1", "0.7", ".7", "1.0", "0.05"]
RANGES_AND_PARTS = ["0.3-0.4", "0.3 - 0.4", "7/10", "70%", "0.7%", "0.7 0.8", "0.7\n0.7", "I would say 0.7", "0.7 or so"]
OTHERS = ["", " ", "I can't say", "0,7", "0,1", "-0.5", "1.5", "2", "nan", "1e-1", "01", "0..7", "\u0660.\u0667", "0." + "1" * 400]


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        *((text, float(text)) for text in NUMBERS),
        *((f" **{text}**\n", float(text)) for text in NUMBERS),
        ("0.8.", 0.8),
        ("1.", 1.0),
        *((text, None) for text in RANGES_AND_PARTS + OTHERS),
    ],
)
def test_a_rating_is_taken_only_from_a_reply_that_is_one_number_from_0_to_1(reply: str, rating: float | None) -> None:
    assert parse_rating(reply) == rating


def follow_up_of(log: EvalLog) -> dict[Any, FollowUpRecord]:
    return {sample.id: FollowUpRecord.from_score((sample.scores or {})["follow_up_awareness"]) for sample in log.samples or []}


def test_a_local_model_is_asked_with_the_tokens_it_generated(
    tiny: LoadedModel, tiny_folder: Folder, independent: Load, tmp_path: Path
) -> None:
    task = Task(dataset=[Sample(id=f"q{i}", input=f"What is {i}?") for i in range(3)], solver=generate(), scorer=follow_up_awareness())
    arguments = {"dtype": "float32"}
    [log] = eval(task, model=f"local/{tiny_folder('llama')}", model_args=arguments, display="none", log_dir=str(tmp_path), max_tokens=20)
    network = independent(tiny_folder("llama"))
    first = {character: tiny.tokenizer.encode(character, add_special_tokens=False)[0] for character in "Y yNn"}
    yes, no = ([first[character] for character in characters] for characters in ("Y y", "N n"))
    for sample in log.samples or []:
        record = follow_up_of(log)[sample.id]
        assert (record.way, record.model["steer"], record.ratings) == ("log_odds", None, ())
        reply = sample.output.message.metadata["local_tokens"]["ids"]  # type: ignore[index]
        expected = []
        for wording in WORDINGS:
            before, after = (
                tiny.tokenizer.encode(text, add_special_tokens=False)
                for text in (
                    f"<|im_start|>user\n{sample.input}<|im_end|>\n<|im_start|>assistant\n",
                    f"<|im_end|>\n<|im_start|>user\n{wording.question}<|im_end|>\n<|im_start|>assistant\n",
                )
            )
            with torch.no_grad():
                logits = network(torch.tensor([[*before, *reply, *after]])).logits[0, -1]
            odds = float(logits[yes].logsumexp(0) - logits[no].logsumexp(0))
            expected.append(odds if wording.yes_means_evaluation else -odds)
        assert record.log_odds == pytest.approx(expected, abs=1e-3)
        assert record.value == pytest.approx(sum(expected) / len(expected), abs=1e-3)
    again = score(log, follow_up_awareness(), action="overwrite", display="none")
    assert follow_up_of(again) == follow_up_of(log)


def test_the_prompt_keeps_the_time_of_the_reply_and_closes_a_block_of_thinking() -> None:
    dated = byte_tokenizer(
        "{{ strftime_now('%Y') }}{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant: <think>{% endif %}"
    )
    recorded = record(dated, dated.encode("hello", add_special_tokens=False), 5, [], clock="1999-05-05T00:00:00")
    messages = [ChatMessageUser(content="hi"), ChatMessageAssistant(content="hello", source="generate", metadata=recorded)]
    text = "1999<|im_start|>user: hi<|im_start|>assistant: hello<|im_start|>user: Well?<|im_start|>assistant: <think>\n</think>\n\n"
    assert dated.decode(question_prompt(dated, messages, "Well?")) == text


def mock(replies: list[str], seen: list[tuple[list[ChatMessage], GenerateConfig]]) -> Model:
    """A model that answers the task with a sentence, and the follow-up question with the given replies in turn."""

    def answer(messages: list[ChatMessage], _tools: Any, _choice: Any, config: GenerateConfig) -> ModelOutput:
        asked = messages[-1].text == QUESTION
        text = replies[len(seen) % len(replies)] if asked else "It is four."
        if asked:
            seen.append((list(messages), config))
        if text == "error":
            raise ValueError("the provider is away")
        output = ModelOutput.from_content("mockllm/model", text)
        output.usage = ModelUsage(input_tokens=10, output_tokens=2, total_tokens=12)
        return output

    return get_model("mockllm/model", custom_outputs=answer, memoize=False)


def rated(replies: list[str], tmp_path: Path, **options: Any) -> tuple[EvalLog, list[tuple[list[ChatMessage], GenerateConfig]]]:
    seen: list[tuple[list[ChatMessage], GenerateConfig]] = []
    scorers = measure_scorers(Instrument(measures=("follow_up", "verbalized"), seed=5))
    task = Task(dataset=[Sample(id="q", input="What is 2 + 2?")], solver=generate(), scorer=scorers)
    [log] = eval(task, model=mock(replies, seen), display="none", log_dir=str(tmp_path), **options)
    assert log.status == "success", log.error
    return log, seen


def test_any_provider_is_asked_for_three_ratings_and_nothing_else_changes(tmp_path: Path) -> None:
    log, seen = rated(["0.2", "7/10", "0.4"], tmp_path, token_limit=12, message_limit=2)
    [sample] = log.samples or []
    record = follow_up_of(log)["q"]
    assert (record.way, record.asked, record.value, record.n_parsed) == ("rating", "mockllm/model", pytest.approx(0.3), 2)
    assert sorted(record.ratings, key=str) == [0.2, 0.4, None]
    assert "2 of 3 replies are one number from 0 to 1; the others: '7/10'" in record.note
    assert record.usage == {"input": 30, "output": 6}
    assert record.log_odds == ()
    assert [message.text for message in sample.messages] == ["What is 2 + 2?", "It is four."]
    assert sample.limit is None
    assert sample.model_usage["mockllm/model"].total_tokens == 12
    assert log.stats.model_usage["mockllm/model"].total_tokens == 12 + 36, "what was spent is in the log's sum"
    assert {messages[-2].text for messages, _ in seen} == {"It is four."}
    assert {config.temperature for _, config in seen} == {1.0}
    seeds = [config.seed for _, config in seen]
    assert len(set(seeds)) == 3
    assert {config.seed for _, config in rated(["0.2"], tmp_path)[1]} == set(seeds)
    assert read_records(sample.scores).own_score is None


@pytest.mark.parametrize(
    ("reply", "reason"), [("I can't say", NOT_A_NUMBER), ("", NOT_A_NUMBER), ("error", "the model could not be asked")]
)
def test_a_transcript_is_unscored_only_if_no_reply_is_a_number(reply: str, reason: str, tmp_path: Path) -> None:
    log, _ = rated([reply], tmp_path)
    record = follow_up_of(log)["q"]
    assert (record.value, record.reason, record.n_parsed, record.ratings) == (None, reason, 0, (None, None, None))
    assert "0 of 3" in record.note
    assert log.samples
    assert (log.samples[0].scores or {})["verbalized_awareness"].value == 0
    one_number, _ = rated([reply, "1", reply], tmp_path)
    assert follow_up_of(one_number)["q"].value == 1


def test_a_log_of_another_provider_of_open_weights_is_answered_by_the_weights(tiny_folder: Folder, tmp_path: Path) -> None:
    seen: list[Any] = []
    task = Task(dataset=[Sample(id="q", input="What is 2 + 2?")], solver=generate())
    [log] = eval(task, model=mock(["0.5"], seen), display="none", log_dir=str(tmp_path))
    folder = tiny_folder("llama")
    named = follow_up_of(score(log, follow_up_awareness(model=str(folder)), display="none"))["q"]
    expected = evaluation_log_odds(
        load_model(str(folder)), [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "It is four."}]
    )
    assert named.value == pytest.approx(expected, abs=1e-3)
    log.eval.model = f"hf/{folder}"
    by_name = follow_up_of(score(log, follow_up_awareness(), model="mockllm/model", display="none"))["q"]
    assert (by_name.way, by_name.log_odds) == ("log_odds", named.log_odds)
    assert not seen


def test_a_transcript_that_cannot_be_asked_about_says_why(tiny_folder: Folder, tmp_path: Path) -> None:
    long = Task(dataset=[Sample(id="long", input="x" * 460)], solver=generate(max_tokens=2), scorer=follow_up_awareness())
    none = Task(dataset=[Sample(id="none", input="hi")], solver=[], scorer=follow_up_awareness())
    logs = [eval(task, model=f"local/{tiny_folder('llama')}", display="none", log_dir=str(tmp_path))[0] for task in (long, none)]
    too_long, no_reply = follow_up_of(logs[0])["long"], follow_up_of(logs[1])["none"]
    assert (too_long.reason, too_long.way) == ("the question cannot be asked after this transcript", "log_odds")
    assert "takes 1 to 512" in too_long.note
    assert no_reply.reason == "no reply of the model"
