"""A model spread over several GPUs: which block goes where, and that reading and generating give what one device gives.

No GPU is needed: the devices of `tests.two_devices` exist only in name, and mixing them is an error.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig

from nla.activations.capture import capture, residual_stream
from nla.activations.likelihood import logprobs_and_vectors, response_logprobs
from nla.activations.steering import steered
from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.inspect.provider import LocalArgs
from nla.instrument import CONTRAST
from nla.models.adapters import AdapterSpec, adapter_parameters, add_adapter, load_adapter, save_adapter, shared_copy
from nla.models.architectures import ARCHITECTURES
from nla.models.loaded import LoadedModel, load_model
from nla.models.several_devices import device_map, send_along, split
from nla.support.errors import ConfigError
from nla.transcripts.transcript import build_transcript
from tests.conftest import write_tiny_model
from tests.test_shared_read import conversation
from tests.two_devices import FIRST, SECOND, place, two_devices

FAMILIES = ["llama", "gemma2", "gemma3", "phi3", "gpt2"]
GIB = 2.0**30


@pytest.mark.parametrize(
    ("blocks", "others", "room", "counts"),
    [
        (8, 0, [10, 10], [4, 4]),
        (80, 4, [60, 60, 60, 60], [19, 20, 21, 20]),  # the first one also holds the embedding and the unembedding
        (6, 2, [4, 8], [1, 5]),
        (4, 0, [1, 9], [0, 4]),
    ],
)
def test_blocks_are_split_by_room(blocks: int, others: float, room: list[float], counts: list[int]) -> None:
    places = split([GIB] * blocks, others * GIB, [amount * GIB for amount in room])
    assert places == sorted(places)
    assert [places.count(gpu) for gpu in range(len(room))] == counts


@pytest.mark.parametrize(("others", "room"), [(2, [4, 4]), (9, [8, 80])])
def test_too_little_room_is_told(others: float, room: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"needs \d+\.0 GiB for its weights, and the 2 GPUs have room for"):
        split([GIB] * 7, others * GIB, [amount * GIB for amount in room])


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3_moe"])
def test_the_map_names_every_weight_once(family: str, tiny_folder: Callable[[str], Path]) -> None:
    folder = tiny_folder(family)
    places = device_map(AutoConfig.from_pretrained(folder), ARCHITECTURES[family], 4, [10**6, 10**6])
    network = load_model(str(folder), dtype="float32", device="cpu").network
    for name, _ in network.named_parameters():
        assert sum(name == part or name.startswith(f"{part}.") for part in places) == 1, name
    blocks = ARCHITECTURES[family].blocks
    assert {place for part, place in places.items() if not part.startswith(f"{blocks}.")} == {0}
    assert {place for part, place in places.items() if part.startswith(f"{blocks}.")} == {0, 1}


def spread(folder: Path, adapter: Path | None = None) -> LoadedModel:
    """A tiny model, with an adapter if one is given, whose second half is on the second device. Call it among `two_devices`."""
    view = shared_copy(load_model(str(folder), dtype="float32", device="cpu"))
    for module in view.network.modules():
        module.__dict__.pop("forward", None)  # packed layers hold their weights a second time
    if adapter is not None:
        load_adapter(view, adapter)
    place(view.network, FIRST)
    for block in list(view.blocks)[len(view.blocks) // 2 :]:
        place(block, SECOND)
    send_along(view.network, view.architecture)
    return view


PROMPTS = ["The first prompt is this one, and it goes on.", "The first prompt is this one, and it ends.", "Another.", "A fourth one"]


def replies(model: LoadedModel) -> list[list[int]]:
    """Greedy and sampled replies to prompts of several lengths, some of which begin alike, with an injected vector in one."""
    vector = torch.linspace(-1, 1, model.d_model)
    requests = [
        Request(
            model.tokenizer.encode(text),
            12,
            SamplingParams(temperature),
            seed=(text,),
            injections=((2, vector),) if text == "Another." else (),
        )
        for text in PROMPTS
        for temperature in (0.0, 0.8)
    ]
    return [completion.ids for completion in Decoder(model, max_rows=6).run(requests)]


def both(folder: Path, work: Callable[[LoadedModel], Tensor]) -> tuple[Tensor, Tensor]:
    """What work gives on one device, and on two."""
    expected = work(load_model(str(folder), dtype="float32", device="cpu"))
    with two_devices():
        found = work(spread(folder)).cpu()
    return found, expected


@pytest.mark.parametrize("family", FAMILIES)
def test_two_devices_generate_what_one_generates(family: str, tiny_folder: Callable[[str], Path]) -> None:
    expected = replies(load_model(str(tiny_folder(family)), dtype="float32", device="cpu"))
    with two_devices():
        assert replies(spread(tiny_folder(family))) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_two_devices_read_what_one_reads(family: str, tiny_folder: Callable[[str], Path]) -> None:
    def read(model: LoadedModel) -> Tensor:
        transcript = build_transcript(model.tokenizer, conversation("A reply of some words."), [])
        tokens = transcript.response_tokens()
        return torch.cat([capture(model, transcript, tokens, layer) for layer in (0, model.n_layers - 1)])

    found, expected = both(tiny_folder(family), read)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_the_hooks_devices_would_be_mixed(tiny_folder: Callable[[str], Path]) -> None:
    with two_devices():
        model = spread(tiny_folder("llama"))
        for module in model.network.modules():
            module._forward_pre_hooks.clear()
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            replies(model)


def test_a_copy_with_an_adapter_runs_on_both_devices(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", "llama")
    role = shared_copy(load_model(str(folder), dtype="float32", device="cpu"))
    add_adapter(role, AdapterSpec(rank=2))
    with torch.no_grad():
        for parameter in adapter_parameters(role):
            parameter.normal_(0, 0.3)
    save_adapter(role.network, tmp_path / "adapter")

    base = load_model(str(folder), dtype="float32", device="cpu")
    adapted = shared_copy(base)
    load_adapter(adapted, tmp_path / "adapter")
    expected = residual_stream(adapted, list(range(5, 20)), 2)
    with two_devices():
        found = residual_stream(shared_copy(spread(folder, tmp_path / "adapter"), 3), list(range(5, 20)), 2).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    plain = residual_stream(base, list(range(5, 20)), 2)
    assert (expected - plain).norm() > 0.1 * plain.norm()


def test_steering_likelihoods_and_follow_up_run_on_both_devices(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_folder("llama")
    model = load_model(str(folder), dtype="float32", device="cpu")
    directions = torch.randn(model.n_layers, model.d_model, generator=torch.Generator().manual_seed(5))
    save_file({"directions": directions}, tmp_path / "directions.safetensors")

    def measured(model: LoadedModel) -> Tensor:
        view = steered(model, f"{tmp_path / 'directions.safetensors'}:0.3", CONTRAST)
        transcript = build_transcript(model.tokenizer, conversation("A reply of some words."), [])
        tokens = transcript.response_tokens()
        likelihoods, vectors = logprobs_and_vectors(view, transcript, tokens, model.n_layers - 1)
        return torch.cat([torch.tensor(likelihoods), torch.tensor(response_logprobs(model, transcript, tokens)), vectors.flatten()])

    found, expected = both(folder, measured)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_accelerate_put_around_modules_is_taken_off(tiny_folder: Callable[[str], Path]) -> None:
    model = load_model(str(tiny_folder("llama")), dtype="float32", device="cpu")
    ids = torch.tensor([list(range(5, 25))])
    expected = model.network(ids).logits
    network = copy.deepcopy(model.network)
    dispatch_model(network, {"": "cpu"}, force_hooks=True)
    assert any(hasattr(module, "_hf_hook") for module in network.modules())
    send_along(network, model.architecture)
    assert not any(hasattr(module, "_hf_hook") for module in network.modules())
    copied = copy.deepcopy(network)
    with torch.no_grad():
        next(iter(copied.parameters())).zero_()
    assert not torch.equal(copied(ids).logits, expected)  # the copy runs its own modules
    torch.testing.assert_close(network(ids).logits, expected)


def test_a_wrong_device_map_is_told(tiny_folder: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="Invalid -M device_map=balanced: expected auto"):
        LocalArgs.parse({"device_map": "balanced"})
    with pytest.raises(ConfigError, match="either on one device"):
        LocalArgs.parse({"device_map": "auto", "device": "cpu"}).load(str(tiny_folder("llama")))
    if torch.cuda.device_count() < 2:
        here = LocalArgs.parse({"device_map": "auto"}).load(str(tiny_folder("llama")))
        assert here is LocalArgs.parse({}).load(str(tiny_folder("llama")))  # nothing to spread over
