"""Steering against a plain hooked forward pass, its controls, and its refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import get_model
from inspect_ai.solver import generate
from safetensors.torch import save_file
from transformers import PreTrainedModel

from graders.scorers.nla_awareness import nla_awareness
from nla.activations.capture import residual_stream
from nla.activations.contrast_sets import CONTRASTS
from nla.activations.directions import contrast, directions_of, mean_activation_norm
from nla.activations.steering import parse_steer, steer, steered, steering_of
from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.engine.scheduler import worker_for
from nla.inspect.views import steered_view
from nla.instrument import CONTRAST, MEAN_NORM
from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import ConfigError
from tests.conftest import AWARENESS_PAIR

FAMILIES = ["llama", "qwen2", "gemma2", "gemma3", "gpt2", "gpt_neox"]


def greedy(model: LoadedModel, prompts: list[list[int]]) -> list[list[int]]:
    requests = [Request(prompt, 12, SamplingParams(0), stop_ids=frozenset()) for prompt in prompts]
    return [done.ids for done in Decoder(model, max_rows=3).run(requests)]


def hooked_greedy(network: PreTrainedModel, blocks: torch.nn.ModuleList, prompt: list[int], added: torch.Tensor) -> list[int]:
    """The truth: the whole sequence run again for every token, with the vector added after every block."""
    handles = [
        block.register_forward_hook(lambda _m, _i, out, v=vector: (out[0] + v, *out[1:]) if isinstance(out, tuple) else out + v)
        for block, vector in zip(blocks, added, strict=True)
    ]
    ids = list(prompt)
    for _ in range(12):
        ids.append(int(network(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    for handle in handles:
        handle.remove()
    return ids[len(prompt) :]


def plain_states(network: PreTrainedModel, tokenizer: Any, text: str) -> torch.Tensor:
    """The residual stream after every block, `[n_layers, pos, d_model]`, as transformers gives it (its last entry has the final norm)."""
    with torch.no_grad():
        states = network(torch.tensor([tokenizer.encode(text)]), output_hidden_states=True).hidden_states
    return torch.stack(states[1:])[:, 0]


def plain_steering(network: PreTrainedModel, tokenizer: Any, pair: tuple[str, str], strength: float) -> torch.Tensor:
    """The truth: what is added after every block at a strength, from the definition; the last block's row is of normed states."""
    positive, negative = (plain_states(network, tokenizer, text) for text in pair)
    direction = positive[:, -1] - negative[:, -1]
    middle = len(direction) // 2
    norm = torch.cat([plain_states(network, tokenizer, text)[middle, 1:] for text in AWARENESS_PAIR]).norm(dim=-1).mean()
    return strength * norm * direction / direction[middle].norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_and_prefix_cached_steering_equals_a_plain_hooked_forward(
    family: str, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel]
) -> None:
    from nla.models.architectures import architecture_of, module_at

    folder = tiny_folder(family)
    model = load_model(str(folder), dtype="float32", device="cpu")
    view = steered(model, "awareness:+0.9")
    shared = torch.randint(5, 200, (30,), generator=torch.Generator().manual_seed(0)).tolist()
    prompts = [[*shared, 7, 8], [*shared, 9], [*shared, 10, 11, 12], [3, 4, 5]]
    reference = independent(folder)
    blocks = module_at(reference, architecture_of(reference.config.model_type).blocks)
    assert isinstance(blocks, torch.nn.ModuleList)
    added = plain_steering(reference, view.tokenizer, AWARENESS_PAIR, 0.9)
    torch.testing.assert_close(view.steering.added[:-1], added[:-1], rtol=1e-3, atol=1e-4)
    expected = [hooked_greedy(reference, blocks, prompt, view.steering.added) for prompt in prompts]
    assert greedy(view, prompts) == expected
    assert greedy(model, prompts) == [hooked_greedy(reference, blocks, prompt, torch.zeros(model.n_layers, 32)) for prompt in prompts]


def test_the_contrast_is_the_difference_at_the_last_token(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel]
) -> None:
    reference = independent(tiny_folder("llama"))
    after = []
    for text in AWARENESS_PAIR:
        states = reference(torch.tensor([tiny.tokenizer.encode(text)]), output_hidden_states=True).hidden_states
        after.append(torch.stack(states[1:-1])[:, 0])  # the last entry would have the final norm applied
    directions = contrast(tiny, (AWARENESS_PAIR,))
    torch.testing.assert_close(directions[:-1], after[0][:, -1] - after[1][:, -1], rtol=1e-4, atol=1e-4)
    mean_norm = torch.cat([states[1, 1:].norm(dim=-1) for states in after]).mean()
    assert mean_activation_norm(tiny) == pytest.approx(float(mean_norm.detach()), rel=1e-4)


def test_what_is_captured_is_under_the_same_steering(tiny: LoadedModel) -> None:
    ids = list(range(20, 40))
    view = steered(tiny, "awareness:+0.3")
    first = residual_stream(view, ids, 0) - residual_stream(tiny, ids, 0)
    torch.testing.assert_close(first, view.steering.added[0].expand(20, -1), rtol=1e-4, atol=1e-4)
    projected = view.steering.project_out(residual_stream(view, ids, 1), 1)
    assert float((projected @ view.steering.directions[1]).abs().max()) < 1e-2
    assert not torch.allclose(projected, residual_stream(tiny, ids, 1), atol=1e-2)


def added_by_hook(view: LoadedModel, block: torch.nn.Module) -> torch.Tensor:
    """What the steering adds to a block's output, `[pos, d_model]`: the output after the block's hooks minus that before them."""
    captured: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, out: Any) -> None:
        captured.append((out[0] if isinstance(out, tuple) else out).clone())

    block.register_forward_hook(keep, prepend=True)
    block.register_forward_hook(keep)
    with torch.no_grad():
        view.network(torch.tensor([list(range(20, 30))]), use_cache=False)
    return (captured[1] - captured[0])[0]


@pytest.mark.parametrize("name", ["awareness", "unrelated-3", "random-4", "testing"])
def test_strength_one_adds_a_vector_as_long_as_the_mean_activation_at_the_middle_layer(
    name: str, tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel]
) -> None:
    reference, middle = independent(tiny_folder("llama")), tiny.n_layers // 2
    norms = torch.cat([plain_states(reference, tiny.tokenizer, text)[middle, 1:].norm(dim=-1) for text in AWARENESS_PAIR])
    for strength in (1.0, -0.5):
        view = steered(tiny, f"{name}:{strength:+g}")
        added = added_by_hook(view, view.blocks[middle]).norm(dim=-1)
        torch.testing.assert_close(added, (abs(strength) * norms.mean()).expand_as(added), rtol=0.01, atol=0)
    ratios = view.steering.added.norm(dim=-1) / directions_of(tiny, name).norm(dim=-1)
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))  # one factor for all layers


def test_an_unrelated_contrast_steers_by_the_mean_over_tokens_without_the_first(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel], tmp_path: Path
) -> None:
    reference = independent(tiny_folder("llama"))
    rows = [json.loads(line) for line in (CONTRASTS / "unrelated-2.jsonl").read_text().splitlines()[1:]]
    means = [[plain_states(reference, tiny.tokenizer, row[side])[:, 1:].mean(dim=1) for row in rows] for side in ("positive", "negative")]
    expected = torch.stack(means[0]).mean(0) - torch.stack(means[1]).mean(0)
    torch.testing.assert_close(directions_of(tiny, "unrelated-2")[:-1], expected[:-1], rtol=1e-3, atol=1e-4)
    copy = tmp_path / "mine.jsonl"  # a user's file with a header is read as the probes read it
    copy.write_text((CONTRASTS / "unrelated-2.jsonl").read_text())
    torch.testing.assert_close(directions_of(tiny, str(copy)), directions_of(tiny, "unrelated-2"))


def test_the_unit_of_the_first_version_adds_the_contrast_itself(tiny: LoadedModel, tmp_path: Path) -> None:
    old, new = (steering_of(tiny, "awareness:0.5", unit) for unit in (CONTRAST, MEAN_NORM))
    torch.testing.assert_close(old.added, 0.5 * contrast(tiny, (AWARENESS_PAIR,)))
    assert old.identity != new.identity
    assert old.digest == new.digest  # the directions are the same, so old logs are recognised
    assert steered_view(tiny, "awareness:+0.5", CONTRAST) is not steered_view(tiny, "awareness:+0.5")
    with pytest.raises(ConfigError, match="mean_norm or contrast"):
        steering_of(tiny, "awareness:0.5", "metres")
    only_last = torch.zeros(3, 32)
    only_last[2] = 1.0
    save_file({"directions": only_last}, tmp_path / "last.safetensors")
    with pytest.raises(ConfigError, match="zero at the middle layer 1"):
        steered(tiny, f"{tmp_path / 'last.safetensors'}:1")
    torch.testing.assert_close(steered(tiny, f"{tmp_path / 'last.safetensors'}:2", CONTRAST).steering.added, 2 * only_last)


def test_random_directions_have_the_contrasts_norms_and_belong_to_their_seed(tiny: LoadedModel) -> None:
    real, one, again, two = (directions_of(tiny, name) for name in ("awareness", "random-1", "random-1", "random-2"))
    torch.testing.assert_close(one.norm(dim=-1), real.norm(dim=-1))
    torch.testing.assert_close(one, again)
    assert not torch.allclose(one, two)


def test_pairs_and_saved_directions_steer_too(tiny: LoadedModel, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"positive": f"yes {i}", "negative": f"no {i}"}) + "\n" for i in range(3)))
    mean = directions_of(tiny, str(pairs))
    save_file({"directions": mean}, tmp_path / "saved.safetensors")
    torch.testing.assert_close(directions_of(tiny, str(tmp_path / "saved.safetensors")), mean)
    assert greedy(steered(tiny, f"{pairs}:+2"), [[5, 6, 7]]) != greedy(tiny, [[5, 6, 7]])
    assert steered(tiny, f"{pairs}:0") is tiny


@pytest.mark.parametrize("spec", ["awareness", "awareness:", "awareness:much", ":0.1", "awareness:nan"])
def test_a_spec_of_another_form_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="NAME:STRENGTH"):
        parse_steer(spec)


def test_directions_of_another_model_are_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    save_file({"directions": torch.zeros(3, 31)}, tmp_path / "other.safetensors")
    for name, match in (
        ("other.safetensors", r"\[3, 31\]"),
        ("nobody", "unknown"),
        ("unrelated-77", "unrelated-1"),
        ("random-x", "whole number"),
    ):
        given = str(tmp_path / name) if name.endswith("safetensors") else name
        with pytest.raises(ConfigError, match=match):
            steered(tiny, f"{given}:1")
    (tmp_path / "bad.jsonl").write_text('{"positive": 1}\n')
    with pytest.raises(ConfigError, match="negative"):
        steered(tiny, f"{tmp_path / 'bad.jsonl'}:1")


def test_a_steered_eval_says_so_and_its_log_reads_under_steering(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    task = Task(dataset=[Sample(id="a", input="hello")], solver=generate(max_tokens=8), scorer=nla_awareness(tokens=3))
    name = f"local/{tiny_folder('llama')}"
    model = get_model(name, dtype="float32", device="cpu", steer="awareness:+0.4")
    plain = get_model(name, dtype="float32", device="cpu")
    assert model.api.base_url != plain.api.base_url
    [log] = eval(task, model=model, log_dir=str(tmp_path), display="none")
    assert log.status == "success"
    assert log.samples
    scores = log.samples[0].scores
    assert scores
    assert (scores["nla_awareness"].metadata or {})["model"]["steer"] == "awareness:+0.4"
    assert (scores["nla_awareness"].metadata or {})["model"]["steer_unit"] == "mean_norm"
    assert (log.samples[0].output.metadata or {})["steer_unit"] == "mean_norm"
    old = get_model(name, dtype="float32", device="cpu", steer="awareness:+0.4", steer_unit="contrast")
    assert old.api.base_url != model.api.base_url, "Inspect's cache must not give the answers of the other unit"
    with pytest.raises(ConfigError, match="steer_unit=feet"):
        get_model(name, dtype="float32", device="cpu", steer="awareness:+0.4", steer_unit="feet")


def test_one_view_serves_all_who_ask_for_it(tiny: LoadedModel) -> None:
    assert steered_view(tiny, "awareness:+0.1") is steered_view(tiny, "awareness:+0.1")
    assert steered_view(tiny, "awareness:+0.1").plain is tiny


def test_steering_in_place_ends_with_its_block_and_equals_the_steered_view(tiny: LoadedModel) -> None:
    ids = tiny.tokenizer.encode("What is two plus two?")
    before, steered_before = residual_stream(tiny, ids, 1), residual_stream(steered(tiny, "awareness:+0.7"), ids, 1)
    request = Request(prompt_ids=ids, max_tokens=8, sampling=SamplingParams(0.0), seed=())
    replies = [worker_for(tiny, 4).run([request])[0].ids]
    with steer(tiny, "awareness:+0.7") as model:
        assert model is tiny
        torch.testing.assert_close(residual_stream(tiny, ids, 1), steered_before)
        torch.testing.assert_close(residual_stream(tiny.plain, ids, 1), before)
        replies.append(worker_for(tiny, 4).run([request])[0].ids)
        with pytest.raises(ConfigError, match="already steered"), steer(tiny, "awareness:+0.1"):
            pass
    torch.testing.assert_close(residual_stream(tiny, ids, 1), before)
    assert tiny.plain is tiny
    view = steered(tiny, "awareness:+0.7")
    assert replies[1] == worker_for(view, 4).run([request])[0].ids  # no keys and values of the unsteered model were used
    with steer(tiny, "awareness:0"):
        torch.testing.assert_close(residual_stream(tiny, ids, 1), before)
