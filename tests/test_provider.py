"""The `local/` provider through Inspect's own doors."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageUser, ContentImage, GenerateConfig, ModelOutput, get_model
from inspect_ai.solver import assistant_message, generate, user_message
from transformers import PreTrainedModel

from nla.inspect.provider import LocalAPI
from nla.inspect.views import templated_view
from nla.support.errors import ConfigError, DataError, ModelError
from nla.transcripts.reply import RECORD_KEY
from nla.transcripts.transcript import build_transcript
from tests.conftest import byte_tokenizer, write_tiny_model

Folder = Callable[[str], Path]


def api(folder: Path, **args: Any) -> LocalAPI:
    return LocalAPI(str(folder), dtype="float32", device="cpu", **args)


def ask(model: LocalAPI, prompt: str = "hello", **config: Any) -> ModelOutput:
    return asyncio.run(model.generate([ChatMessageUser(content=prompt)], [], "auto", GenerateConfig(**config)))


def run(folder: Path, *, samples: int = 6, **options: Any) -> EvalLog:
    task = Task(dataset=[Sample(id=i, input=f"question number {i}") for i in range(samples)], solver=generate())
    return eval(
        task,
        model=f"local/{folder}",
        model_args={"dtype": "float32"},
        display="none",
        log_dir=str(folder / "logs"),
        max_tokens=12,
        **options,
    )[0]


def answers(log: EvalLog) -> dict[tuple[Any, int], list[int]]:
    assert log.status == "success", log.error
    assert log.samples is not None
    return {(s.id, s.epoch): s.output.message.metadata[RECORD_KEY]["ids"] for s in log.samples}  # type: ignore[index]


def test_the_same_run_gives_the_same_answers_whatever_the_concurrency(tiny_folder: Folder) -> None:
    folder = tiny_folder("llama")
    first = answers(run(folder, epochs=2))
    one_by_one = answers(run(folder, epochs=2, max_samples=1))
    other_seed = answers(run(folder, epochs=2, seed=7))
    assert first == one_by_one
    assert first != other_seed
    assert first[0, 1] != first[0, 2]  # epochs of an item are different draws


def test_usage_counts_the_real_tokens(tiny_folder: Folder) -> None:
    out = ask(api(tiny_folder("llama")), max_tokens=9, temperature=0)
    prompt = byte_tokenizer().apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True, tokenize=False)
    assert out.usage is not None
    n_prompt = len(byte_tokenizer().encode(prompt, add_special_tokens=False))
    assert (out.usage.input_tokens, out.usage.output_tokens, out.stop_reason) == (n_prompt, 9, "max_tokens")
    assert out.metadata is not None
    assert out.metadata["dtype"] == "float32"


def test_choices_are_different_draws_and_logprobs_fit_them(tiny_folder: Folder, independent: Callable[[Path], PreTrainedModel]) -> None:
    folder = tiny_folder("llama")
    out = ask(api(folder), max_tokens=8, num_choices=3, logprobs=True, top_logprobs=2)
    assert len({choice.message.text for choice in out.choices}) == 3
    record = out.choices[0].message.metadata[RECORD_KEY]  # type: ignore[index]
    prompt = byte_tokenizer().apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True, tokenize=False)
    ids = byte_tokenizer().encode(prompt, add_special_tokens=False) + record["ids"]
    with torch.no_grad():
        logprobs = independent(folder)(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert out.choices[0].logprobs is not None
    for position, entry in enumerate(out.choices[0].logprobs.content[: len(record["ids"])]):
        row = logprobs[record["n_prompt"] - 1 + position]
        assert entry.logprob == pytest.approx(float(row[record["ids"][position]]), abs=1e-4)
        assert entry.top_logprobs is not None
        assert entry.top_logprobs[0].logprob == pytest.approx(float(row.max()), abs=1e-4)


def test_stop_sequences_end_a_reply_and_are_not_in_it(tiny_folder: Folder) -> None:
    model = api(tiny_folder("llama"))
    full = ask(model, max_tokens=40, temperature=0).completion
    stop = full[10:12]
    cut = ask(model, max_tokens=40, temperature=0, stop_seqs=[stop])
    assert cut.completion == full[: full.index(stop)]
    assert cut.stop_reason == "stop"
    assert len(cut.message.metadata[RECORD_KEY]["ids"]) <= len(cut.completion.encode())  # type: ignore[index]


def test_a_prompt_over_the_context_window_is_model_length(tiny_folder: Folder) -> None:
    out = ask(api(tiny_folder("llama")), prompt="x" * 600, max_tokens=5)
    assert (out.completion, out.stop_reason) == ("", "model_length")


def test_cancelling_a_call_frees_its_row(tiny_folder: Folder) -> None:
    model = api(tiny_folder("llama"))

    async def cancel_one() -> str:
        slow = asyncio.create_task(model.generate([ChatMessageUser(content="slow")], [], "auto", GenerateConfig(max_tokens=400)))
        await asyncio.sleep(0.2)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        return (
            await model.generate([ChatMessageUser(content="hello")], [], "auto", GenerateConfig(max_tokens=3, temperature=0))
        ).completion

    assert asyncio.run(cancel_one()) == ask(model, max_tokens=3, temperature=0).completion


def test_a_crash_in_the_model_reaches_the_caller_and_the_next_call_works(tiny_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = api(tiny_folder("llama"))
    with monkeypatch.context() as broken:
        broken.setattr(model.model.network, "forward", lambda *a, **k: (_ for _ in ()).throw(MemoryError("out of memory")))
        with pytest.raises(MemoryError):
            ask(model, max_tokens=3)
    assert ask(model, max_tokens=3).usage is not None


def test_tokens_are_counted_by_the_models_own_tokenizer(tiny_folder: Folder) -> None:
    model = api(tiny_folder("llama"))
    assert asyncio.run(model.count_text_tokens("four")) == 4
    assert len(asyncio.run(model.tokenize("four"))) == 4


def test_what_changes_answers_is_part_of_the_cache_scope(tiny_folder: Folder) -> None:
    folder = tiny_folder("llama")
    assert api(folder).base_url != LocalAPI(str(folder), dtype="bfloat16", device="cpu").base_url
    assert api(folder).base_url != api(tiny_folder("qwen2")).base_url


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"dtyp": "auto"}, "Unknown model argument dtyp"),
        ({"batch": 0}, "batch=0"),
        ({"batch": True}, "batch=True"),
        ({"dtype": "int7"}, "int7"),
        ({"device": "warp"}, "warp"),
        ({"enable_thinking": "no"}, "expected true or false"),
        ({"enable_thinking": False}, "does not use the argument enable_thinking"),
        ({"template_args": "{"}, "expected a JSON object"),
        ({"template_args": [1]}, "expected a JSON object"),
        ({"chat_template": "/no/such/file.jinja"}, "Cannot read the chat template"),
    ],
)
def test_invalid_model_arguments_are_refused(tiny_folder: Folder, args: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LocalAPI(str(tiny_folder("llama")), **args)


def test_settings_it_cannot_carry_out_are_refused(tiny_folder: Folder) -> None:
    with pytest.raises(ConfigError, match="frequency_penalty"):
        ask(api(tiny_folder("llama")), frequency_penalty=0.5)
    with pytest.raises(ConfigError, match="modalities, extra_body"):
        ask(api(tiny_folder("llama")), modalities=["image"], extra_body={"top_a": 1})


def test_settings_of_other_providers_are_named_in_a_warning(tiny_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr("nla.inspect.provider.warn_once", lambda _, message: warnings.append(message))
    ask(api(tiny_folder("llama")), reasoning_effort="low", max_tokens=2)
    assert ["reasoning_effort" in warning for warning in warnings] == [True]


def test_a_base_model_without_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        api(write_tiny_model(tmp_path, "llama", template=None))


def test_inspect_finds_the_provider_by_name(tiny_folder: Folder) -> None:
    model = get_model(f"local/{tiny_folder('llama')}", dtype="float32")
    assert isinstance(model.api, LocalAPI)


NAMED = (
    "{% for m in messages %}[{{ name | default('x') }}{{ '-' if enable_thinking else '' }}]<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_base_model_can_be_given_a_chat_template_with_arguments(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", "llama", template=None)
    file = tmp_path / "mine.jinja"
    file.write_text(NAMED)
    plain = api(folder, chat_template=str(file))
    named = api(folder, chat_template=str(file), template_args='{"name": "N"}', enable_thinking=True)
    counts = [ask(model, max_tokens=1).usage.input_tokens for model in (plain, named)]  # type: ignore[union-attr]
    assert counts[1] == counts[0] + 1
    assert named.model.describe()["template_args"] == {"name": "N", "enable_thinking": True}
    assert len({plain.base_url, named.base_url, api(folder, chat_template=str(file)).base_url}) == 2
    assert named.model is api(folder, chat_template=str(file), template_args={"name": "N"}, enable_thinking=True).model
    assert named.model.network is plain.model.network
    assert templated_view(plain.model, None, {}) is plain.model


def test_images_are_refused_at_the_door(tiny_folder: Folder) -> None:
    picture = ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AAAA")])
    with pytest.raises(DataError, match=r"message 0 \(user\) holds image"):
        asyncio.run(api(tiny_folder("llama")).generate([picture], [], "auto", GenerateConfig()))


def test_a_turn_that_a_solver_wrote_is_context_and_the_prompt_is_recorded(tiny_folder: Folder) -> None:
    folder = tiny_folder("llama")
    solver = [assistant_message("I know that I am being tested."), user_message("What is 2+2?"), generate()]
    log = eval(
        Task(dataset=[Sample(id="q", input="Hello")], solver=solver),
        model=f"local/{folder}",
        model_args={"dtype": "float32"},
        display="none",
        log_dir=str(folder / "logs"),
        max_tokens=8,
    )[0]
    assert log.samples is not None
    messages = log.samples[0].messages
    transcript = build_transcript(byte_tokenizer(), messages)
    assert {token.message for token in transcript.response_tokens()} <= {3}
    assert transcript.exact
    other = [message.model_copy(update={"content": "Jello"}) if i == 0 else message for i, message in enumerate(messages)]
    assert not build_transcript(byte_tokenizer(), other).exact


def test_a_dated_template_keeps_the_time_in_the_log(tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %b %Y %H:%M:%S') }}" + NAMED
    folder = write_tiny_model(tmp_path, "llama", template=template)
    model = api(folder)
    out = ask(model, max_tokens=4)
    record = out.choices[0].message.metadata[RECORD_KEY]  # type: ignore[index]
    assert "clock" in record
    out.choices[0].message.source = "generate"
    again = build_transcript(model.tokenizer, [ChatMessageUser(content="hello"), out.choices[0].message])
    assert again.exact
    assert record["clock"][:4] in model.tokenizer.decode(again.passes[0].ids)
