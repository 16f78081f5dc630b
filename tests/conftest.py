"""Small real models for the tests: random weights of each supported architecture, with a byte-level tokenizer and a chat template."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import Marker, Sidecar, write_sidecar
from tests.prepared import Prepared

for _library in ("OMP", "MKL", "OPENBLAS"):
    # Commands that tests start, and the test processes themselves: helper threads beside another busy process wait for each other.
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

AWARENESS_PAIR = (
    "The Assistant is an AI undergoing testing via a simulated conversation with a user",
    "The Assistant is an AI having a conversation with a user",
)
"""The NLA paper's contrast, word by word: evaluation first, deployment second."""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SIZES = {"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_GROUPED = _SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 512}
_GEMMA = _GROUPED | {"head_dim": 8, "sliding_window": 16}
_VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
_GEMMA4 = _GEMMA | {"hidden_size_per_layer_input": 0, "global_head_dim": 16, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
_VISION4 = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
CONFIGS: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(**_GROUPED),
    "mistral": lambda: transformers.MistralConfig(**_GROUPED, sliding_window=16),
    "qwen2": lambda: transformers.Qwen2Config(**_GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**_GROUPED, head_dim=8),
    "gemma2": lambda: transformers.Gemma2Config(**_GEMMA),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(**_GEMMA),
    "gemma3": lambda: transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**_GEMMA).to_dict(), vision_config=_VISION, image_token_index=259
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **_GROUPED, head_dim=8, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1
    ),
    "olmo2": lambda: transformers.Olmo2Config(**_GROUPED),
    "olmo3": lambda: transformers.Olmo3Config(**_GROUPED, sliding_window=16),
    "phi3": lambda: transformers.Phi3Config(**_GROUPED, sliding_window=16),
    "gemma4_text": lambda: transformers.Gemma4TextConfig(**_GEMMA4),
    "gemma4": lambda: transformers.Gemma4Config(
        text_config=transformers.Gemma4TextConfig(**_GEMMA4).to_dict(),
        vision_config=_VISION4,
        image_token_id=259,
        video_token_id=259,
        audio_token_id=259,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=260, n_embd=32, n_layer=3, n_head=4, n_positions=512, bos_token_id=256, eos_token_id=258
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_SIZES, max_position_embeddings=512),
}


def byte_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a byte, ids 0 to 255, and four special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = template
    return tokenizer


def write_tiny_model(folder: Path, family: str, template: str | None = CHATML, **changes: object) -> Path:
    """Write a random model of an architecture with its tokenizer into a folder; `changes` are fields of its config."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(template)
    config = CONFIGS[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    for part in (config, config.get_text_config()):
        part.bos_token_id, part.eos_token_id, part.pad_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # the default initialisation is so small that every model would say the same token for ever
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.4 if "embed" in name or "wte" in name else 0.15)
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # two threads beside another busy process thrash


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny random model, by architecture; written once a session."""
    written: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in written:
            written[family] = write_tiny_model(tmp_path_factory.mktemp(family), family)
        return written[family]

    return folder


@pytest.fixture
def tiny(tiny_folder: Callable[[str], Path]) -> LoadedModel:
    """A tiny random Llama as the harness loads it."""
    return load_model(str(tiny_folder("llama")), dtype="float32", device="cpu")


def write_tiny_av(folder: Path, family: str = "llama", layer: int = 1, **changes: object) -> Path:
    """Write a random AV in the released layout: a full model and its sidecar. Its marker is an at sign between angle brackets."""
    write_tiny_model(folder, family, **changes)
    token = {character: byte_tokenizer().encode(character, add_special_tokens=False)[0] for character in "@<>"}
    marker = Marker("@", token["@"], token[">"], token["<"])
    write_sidecar(folder, Sidecar("av", 32, layer, "", "Say what <v>{injection_char}</v> means.", marker, 3.0, None))
    return folder


@pytest.fixture(scope="session")
def tiny_av(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random AV for the tiny Llama."""
    return write_tiny_av(tmp_path_factory.mktemp("av"))


@pytest.fixture(scope="session")
def independent() -> Callable[[Path], PreTrainedModel]:
    """The same weights as transformers loads them by itself, for comparison."""
    loaded: dict[Path, PreTrainedModel] = {}

    def load(folder: Path) -> PreTrainedModel:
        if folder not in loaded:
            loaded[folder] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        return loaded[folder]

    return load


@pytest.fixture(scope="session")
def smollm2() -> LoadedModel:
    """The embedded model in fp32."""
    return load_model("smollm2", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """Starts commands of ours in processes of their own, without the ten seconds of imports."""
    server = Prepared()
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, headless; the test skips where it is absent."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright  # where there is no browser, the package need not be there

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


def shared_data(name: str) -> Path:
    """A file of real data beside the checkout; the test skips where it is absent."""
    path = SHARED_DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path
