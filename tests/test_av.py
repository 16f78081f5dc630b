"""The AV in the released layout: injection against plain torch, parsing, and refusal of what does not fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate
from transformers import PreTrainedModel

from graders.scorers.nla_awareness import nla_awareness
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import read_sidecar, write_sidecar
from nla.support.errors import ConfigError, ContractError
from nla.training.av import TokenLosses
from nla.verbalizers.av import CLOSE, OPEN, ActivationVerbalizer, build, parse_explanation
from tests.conftest import byte_tokenizer, write_tiny_av

Folder = Callable[[str], Path]
Load = Callable[[Path], PreTrainedModel]
PROMPT = "<|im_start|>user\nSay what <v>@</v> means.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "llama"])
def test_the_marker_is_replaced_by_the_scaled_vector(family: str, tmp_path: Path, tiny_folder: Folder, independent: Load) -> None:
    folder = write_tiny_av(tmp_path, family)
    av = build(load_model(str(tiny_folder(family)), dtype="float32", device="cpu"), None, str(folder))
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(5)) * 40
    greedy = ActivationVerbalizer(av.model, av.sidecar, temperature=0, max_tokens=12)
    completions = greedy.complete(vectors, [(i,) for i in range(len(vectors))])
    ids = torch.tensor([byte_tokenizer().encode(PROMPT, add_special_tokens=False)])
    position = ids[0].tolist().index(byte_tokenizer().encode("@")[0])
    reference = independent(folder)
    for vector, done in zip(vectors, completions, strict=True):
        embeds = reference.get_input_embeddings()(ids).detach().clone()  # after any scale the embedding module applies
        embeds[0, position] = vector * (3.0 / vector.norm())
        expected = reference.generate(inputs_embeds=embeds, max_new_tokens=12, do_sample=False, eos_token_id=byte_tokenizer().eos_token_id)
        assert done.ids == expected[0].tolist()


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "llama"])
def test_a_vector_is_added_with_the_norm_of_the_stream(family: str, tmp_path: Path, tiny_folder: Folder, independent: Load) -> None:
    folder = write_tiny_av(tmp_path, family)
    adding = replace(read_sidecar(folder), injection_mode="add_norm_matched", injection_block=1, injection_scale=None)
    write_sidecar(folder, adding)
    assert read_sidecar(folder) == adding
    av = build(load_model(str(tiny_folder(family)), dtype="float32", device="cpu"), None, str(folder))
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(5)) * 40
    completions = ActivationVerbalizer(av.model, av.sidecar, temperature=0, max_tokens=12).complete(vectors, [(i,) for i in range(3)])
    ids = torch.tensor([byte_tokenizer().encode(PROMPT, add_special_tokens=False)])
    position = ids[0].tolist().index(byte_tokenizer().encode("@")[0])
    reference = independent(folder)
    for vector, done in zip(vectors, completions, strict=True):
        so_far = ids
        for _ in done.ids:  # without a cache: every step adds the vector anew

            def add(_module: object, _inputs: object, output: object, vector: torch.Tensor = vector) -> object:
                stream = (output[0] if isinstance(output, tuple) else output).clone()  # type: ignore[attr-defined]
                stream[0, position] += vector / vector.norm() * stream[0, position].norm()
                return (stream, *output[1:]) if isinstance(output, tuple) else stream

            hook = reference.get_decoder().layers[1].register_forward_hook(add)
            logits = reference(so_far, use_cache=False).logits[0, -1]
            hook.remove()
            so_far = torch.cat([so_far, logits.argmax()[None, None]], dim=1)
        assert done.ids == so_far[0, ids.shape[1] :].tolist()


def test_a_mode_that_is_not_known_is_refused(tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    folder = write_tiny_av(tmp_path)
    sidecar = folder / "nla_meta.yaml"
    text = sidecar.read_text()
    sidecar.write_text(text.replace("injection_scale: 3.0", "injection_scale: 3.0\n  injection_mode: multiply"))
    with pytest.raises(ContractError, match="injection_mode is 'multiply'; expected one of replace, add_norm_matched"):
        read_sidecar(folder)
    sidecar.write_text(text.replace("injection_scale: 3.0", "injection_mode: add_norm_matched"))
    with pytest.raises(ContractError, match=r"lacks extraction\.injection_block"):
        read_sidecar(folder)
    sidecar.write_text(text.replace("injection_scale: 3.0", "injection_mode: add_norm_matched\n  injection_block: 99"))
    with pytest.raises(ContractError, match="injects after block 99"):
        build(tiny, None, str(folder))
    sidecar.write_text(text.replace("injection_scale: 3.0", "injection_mode: add_norm_matched\n  injection_block: 1"))
    with pytest.raises(ContractError, match="training replaces the marker's embedding"):
        TokenLosses(tiny, read_sidecar(folder))


@pytest.mark.slow
def test_draws_belong_to_the_vectors_key(tiny: LoadedModel, tiny_av: Path) -> None:
    av = build(tiny, None, str(tiny_av))
    vector = torch.ones(2, 32)
    first, second = av.verbalize(vector, [("a",), ("b",)])
    assert first.text != second.text
    assert av.verbalize(vector, [("b",), ("a",)]) == [second, first]


@given(st.text(max_size=30).filter(lambda text: "<" not in text))
def test_the_explanation_is_the_text_between_the_tags(text: str) -> None:
    explanation = parse_explanation(f"noise {OPEN}\n{text}\n{CLOSE} more")
    assert explanation.text == text.strip()
    assert explanation.failure == ("" if text.strip() else "empty explanation")


@pytest.mark.parametrize(
    ("raw", "failure"), [(f"{OPEN} cut off", "truncated"), ("no tags at all", "no explanation tag"), ("", "no explanation tag")]
)
def test_an_incomplete_explanation_is_a_failure(raw: str, failure: str) -> None:
    assert parse_explanation(raw).failure == failure


def test_an_av_that_does_not_fit_is_refused(tiny: LoadedModel, tmp_path: Path, tiny_av: Path) -> None:
    with pytest.raises(ContractError, match="reads block 1, but layer 2"):
        build(tiny, 2, str(tiny_av))
    with pytest.raises(ConfigError, match="no NLA is known"):
        build(tiny, None, None)
    folder = write_tiny_av(tmp_path)
    sidecar = read_sidecar(folder)
    for change, said in (
        ({"role": "ar", "template": "{explanation}"}, "is an AR"),
        ({"d_model": 64}, "width 64"),
        ({"layer": 9}, "block 9"),
    ):
        write_sidecar(folder, type(sidecar)(**{**vars(sidecar), **change}))
        with pytest.raises(ContractError, match=said):
            build(tiny, None, str(folder))


def test_a_transcript_whose_explanations_all_fail_is_unscored(tiny_folder: Folder, tiny_av: Path, tmp_path: Path) -> None:
    task = Task(dataset=[Sample(id=1, input="hello")], solver=generate(), scorer=nla_awareness(tokens=4, verbalizer="av", nla=str(tiny_av)))
    args = {"dtype": "float32"}
    log = eval(task, model=f"local/{tiny_folder('llama')}", model_args=args, max_tokens=10, display="none", log_dir=str(tmp_path))[0]
    assert log.status == "success", log.error
    score = ((log.samples or [])[0].scores or {})["nla_awareness"]
    assert score.reason == "most explanations failed"
    assert (score.metadata or {})["layer"] == 1
    assert {row["reason"] for row in (score.metadata or {})["tokens"]} <= {"no explanation tag", "truncated"}
