"""Only what the audited model wrote is measured, and in the context in which it was written, whatever a solver or a setting does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval, score
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalSample, read_eval_log
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from graders.record import read_records
from graders.scorers.nla_awareness import nla_awareness
from graders.scorers.verbalized_awareness import verbalized_awareness
from nla.inspect.provider import local_model
from nla.support.errors import DataError
from nla.transcripts.origin import marked_by_calls
from nla.transcripts.reply import RECORD_KEY
from nla.transcripts.tokens import Channel
from nla.transcripts.transcript import build_transcript

Folder = Callable[[str], Path]
CONFESSION = "I know that I am being tested in this evaluation."


def output(text: str) -> ModelOutput:
    made = ModelOutput.from_content("mockllm/model", text)
    made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # Inspect would download a tokenizer
    return made


def edited(state: TaskState) -> None:
    state.messages[-1].content = CONFESSION


def replaced(state: TaskState) -> None:
    state.messages[-1] = ChatMessageAssistant(content=CONFESSION, source="generate")


def copied(state: TaskState) -> None:
    state.messages[-1] = state.messages[-1].model_copy(update={"content": CONFESSION})


def inserted(state: TaskState) -> None:
    state.messages.insert(1, ChatMessageAssistant(content=CONFESSION, source="generate", model="mockllm/other"))


@solver
def changed(change: Callable[[TaskState], None]) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        change(state)
        return state

    return solve


@solver
def asks_another(name: str, **args: Any) -> Solver:
    """Puts the reply of another model into the conversation."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        other = await get_model(name, memoize=False, **args).generate([ChatMessageUser(content="hi")], config=GenerateConfig(max_tokens=8))
        state.messages += [other.message, ChatMessageUser(content="And what do you say?")]
        return state

    return solve


def sample_of(*solvers: Solver, model: Any, scorer: Any, text: Any = "What is 2+2?", **options: Any) -> EvalSample:
    task = Task(dataset=[Sample(id="q", input=text)], solver=list(solvers), scorer=scorer)
    log = eval(task, model=model, display="none", log_dir=options.pop("log_dir"), **options)[0]
    assert log.status == "success", log.error
    [sample] = read_eval_log(log.location).samples or []
    return sample


@pytest.mark.parametrize("change", [edited, replaced, copied])
def test_a_reply_that_a_solver_edited_is_not_the_models(change: Callable[[TaskState], None], tmp_path: Path) -> None:
    model = get_model("mockllm/model", custom_outputs=[output("It is four.")], memoize=False)
    sample = sample_of(generate(), changed(change), model=model, scorer=verbalized_awareness(), log_dir=str(tmp_path))
    record = read_records(sample.scores).verbalized
    assert record is not None
    assert (record.flagged, record.reason) == (None, "no assistant turn with text")


def test_a_turn_inserted_as_generated_is_not_the_models_at_once_and_later(tmp_path: Path) -> None:
    model = get_model("mockllm/model", custom_outputs=[output("It is four.")], memoize=False)
    sample = sample_of(generate(), changed(inserted), model=model, scorer=verbalized_awareness(), log_dir=str(tmp_path))
    [path] = tmp_path.glob("*.eval")
    later = score(read_eval_log(str(path)), verbalized_awareness(), model=model, action="overwrite", display="none")
    for scored in (sample, *(later.samples or [])):
        record = read_records(scored.scores).verbalized
        assert record is not None
        assert record.flagged is False
        assert [turn.message for turn in record.turns] == [2]


def test_messages_that_an_agent_rebuilt_are_still_the_models() -> None:
    thinking = [ContentReasoning(reasoning="Two and two."), ContentText(text="It is four.")]
    written = [ChatMessageAssistant(content=thinking, source="generate")]
    rebuilt: list[ChatMessage] = [ChatMessageAssistant(content="It is  four.", source="generate")]
    assert marked_by_calls(rebuilt, written) == rebuilt
    other: list[ChatMessage] = [ChatMessageAssistant(content="It is five.", source="generate")]
    assert [message.source for message in marked_by_calls(other, written)] == ["input"]
    assert marked_by_calls(other, []) == other  # a log without recorded calls


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_reply_of_another_local_model_is_context(family: str, tiny_folder: Folder, tmp_path: Path) -> None:
    sample = sample_of(
        asks_another(f"local/{tiny_folder(family)}", dtype="float32"),
        generate(),
        model=f"local/{tiny_folder('llama' if family == 'qwen3' else 'qwen3')}",
        scorer=[nla_awareness(tokens=50, verbalizer="logit_lens", layer=1), verbalized_awareness()],
        model_args={"dtype": "float32"},
        max_tokens=8,
        log_dir=str(tmp_path),
    )
    records = read_records(sample.scores)
    assert records.awareness is not None
    assert records.verbalized is not None
    assert {token.message for token in records.awareness.tokens} == {3}
    assert {turn.message for turn in records.verbalized.turns} <= {3}
    assert records.awareness.exact_tokens is True


def thought(text: str, thinking: str) -> ChatMessageAssistant:
    return ChatMessageAssistant(content=[ContentReasoning(reasoning=thinking), ContentText(text=text)])


@pytest.mark.parametrize(
    ("setting", "seen", "unseen"),
    [
        ({"system_message": "You are in a lab."}, ["You are in a lab.", "alpha", "beta"], []),
        ({"reasoning_history": "none"}, [], ["alpha", "beta"]),
        ({"reasoning_history": "last"}, ["beta"], ["alpha"]),
        ({"reasoning_history": "all"}, ["alpha", "beta"], []),
    ],
)
def test_a_reply_is_read_in_the_conversation_as_it_was_sent(
    setting: dict[str, Any], seen: list[str], unseen: list[str], tiny_folder: Folder, tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.reasoning_content or '' }}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    asked = [ChatMessageUser(content="a"), thought("b", "alpha"), ChatMessageUser(content="c"), thought("d", "beta")]
    name, args = f"local/{tiny_folder('llama')}", {"dtype": "float32", "chat_template": str(template)}
    sample = sample_of(
        generate(),
        model=name,
        model_args=args,
        text=[*asked, ChatMessageUser(content="e")],
        scorer=nla_awareness(tokens=3, verbalizer="logit_lens", layer=1),
        max_tokens=6,
        log_dir=str(tmp_path),
        **setting,
    )
    record = read_records(sample.scores).awareness
    assert record is not None
    assert record.exact_tokens is True
    tokenizer = local_model(name, args).tokenizer
    transcript = build_transcript(tokenizer, sample.messages)
    [run] = transcript.passes
    text = tokenizer.decode(run.ids)
    assert all(part in text for part in seen)
    assert not any(part in text for part in unseen)
    last_question = [
        token for token, index, channel in zip(run.ids, run.messages, run.channels, strict=True) if (index, channel) == (4, Channel.CONTEXT)
    ]
    assert tokenizer.decode(last_question) == "e"
    assert sample.messages[-1].metadata is not None
    sample.messages[-1].metadata[RECORD_KEY] |= {"system_message": 3}
    with pytest.raises(DataError, match="system_message that is not text"):
        build_transcript(tokenizer, sample.messages)
