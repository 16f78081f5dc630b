"""`nla train`: the stages of a pair's training over one working folder, each resumable, and the pair they make.

Folder: `data/` (shards), `av/`, `samples/`, `ar/`, `rl/` (checkpoints and metrics), `pair/` (the finished adapters).
The AR learns from the AV's own explanations as well as the teacher's: one that has only seen the teacher's trusts wrong quotes.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nla.models.adapters import adapter_parameters, add_adapter, load_adapter, save_adapter, shared_copy
from nla.models.chat_template import encode
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import Marker, Role, Sidecar, ar_prompt_ids, av_prompt_ids, check_sidecar, read_sidecar, write_sidecar
from nla.pair.known import role_folder
from nla.pair.reconstructor import HEAD_FILE, read_head
from nla.support.errors import ConfigError, ContractError
from nla.support.files import replacing
from nla.support.seeds import seeded_generator
from nla.training.ar import ARStage
from nla.training.av import AVStage
from nla.training.config import PairConfig
from nla.training.data.extract import is_heldout
from nla.training.data.shards import Dataset, read_dataset
from nla.training.loop import fit
from nla.training.rl import RLStage
from nla.training.samples import draw_samples
from nla.verbalizers.av import ActivationVerbalizer

Say = Callable[[str], None]


@dataclass(frozen=True)
class Split:
    """Row numbers of a data set: what the AV trains on, what its samples are drawn for, and held-out documents."""

    av: list[int]
    samples: list[int]
    heldout: list[int]


class PairTraining:
    """The stages of one pair.

    Args:
        config: the pair.
        work: working folder.
        dtype, device: of the base model.
    """

    def __init__(self, config: PairConfig, work: Path, *, dtype: str = "auto", device: str = "auto") -> None:
        self.config, self.work = config, work
        self.model = load_model(config.model, dtype=dtype, device=device)
        self.layer = self.model.check_layer(config.data.layer)
        self.av_sidecar, self.ar_sidecar = sidecars(config, self.model, self.layer)

    @cached_property
    def data(self) -> Dataset:
        """The shards; refused if they are of another model or layer."""
        data = read_dataset(self.work / "data")
        found, expected = (data.extraction.d_model, data.extraction.layer_index), (self.model.d_model, self.layer)
        if found != expected:
            raise ConfigError(f"{self.work / 'data'} holds vectors of (width, layer) {found}, expected {expected}; make them again.")
        return data

    @cached_property
    def vectors(self) -> Tensor:
        """`[n, d_model]`, raw."""
        return torch.from_numpy(self.data.vectors)

    @cached_property
    def split(self) -> Split:
        """Split by document, in a seeded order."""
        draws = seeded_generator("split", self.config.data.seed)
        order = [int(i) for i in draws.permutation(len(self.data))]
        heldout = [i for i in order if is_heldout(self.data.doc_ids[i])][: self.config.heldout_vectors]
        train = [i for i in order if not is_heldout(self.data.doc_ids[i])]
        return Split(train, train[::-1][: self.config.samples.n], heldout)

    def train_av(self, say: Say | None = None) -> None:
        """The AV's warm start; writes `pair/av`."""
        av = shared_copy(self.model)
        if self.config.start is not None:
            continue_adapter(av, self.config.start, self.av_sidecar)
        else:
            add_adapter(av, self.config.av_adapter)
            seed_adapter(av, self.config.av.seed)
        explanations = self.data.explanations
        stage = AVStage(
            av,
            self.av_sidecar,
            self.vectors[self.split.av],
            [explanations[i] for i in self.split.av],
            self.vectors[self.split.heldout],
            [explanations[i] for i in self.split.heldout],
        )
        fit(stage, self.config.av, self.work / "av", say)
        self._write_role(av, "av", self.av_sidecar)

    def sample(self, say: Say | None = None) -> None:
        """The AV's own explanations of training and held-out vectors, in `samples/`."""
        av = shared_copy(self.model)
        load_adapter(av, self.work / "pair" / "av")
        verbalizer = ActivationVerbalizer(av, self.av_sidecar, self.config.samples.temperature, self.config.samples.max_tokens)
        for name, rows in (("heldout", self.split.heldout), ("train", self.split.samples)):
            draw_samples(verbalizer, self.vectors, rows, self.work / "samples", name, say)

    def train_ar(self, say: Say | None = None) -> None:
        """The AR on the AV's samples, mixed with the teacher's explanations; writes `pair/ar`."""
        ar = shared_copy(self.model, self.layer + 1)
        add_adapter(ar, self.config.ar_adapter)
        seed_adapter(ar, self.config.ar.seed)
        head = nn.Parameter(torch.eye(self.model.d_model, device=self.model.device))
        rows, texts = self._ar_examples()
        stage = ARStage(ar, head, self.ar_sidecar, self.vectors[rows], texts, self.heldout_sets())
        fit(stage, self.config.ar, self.work / "ar", say)
        self.write_ar(ar, head)

    def train_rl(self, say: Say | None = None) -> None:
        """AV and AR together, from the warm-started ones; writes the finished adapters over `pair/`."""
        rl = self.config.rl
        if rl is None:
            return
        start = self.work / "rl" / "start"
        if not start.exists():  # the reference and the starting point stay what they were, whatever `pair/` becomes
            shutil.copytree(self.work / "pair", self.work / "rl" / ".start.tmp", dirs_exist_ok=True)
            (self.work / "rl" / ".start.tmp").rename(start)
        av, reference, actor = (shared_copy(self.model) for _ in range(3))
        ar = shared_copy(self.model, self.layer + 1)
        load_adapter(av, start / "av", trainable=True)
        for frozen in (reference, actor):
            load_adapter(frozen, start / "av")
        load_adapter(ar, start / "ar", trainable=True)
        head = nn.Parameter(read_head(start / "ar").to(self.model.device))
        heldout = self.vectors[self.split.heldout]
        train = self.vectors[self.split.av]
        stage = RLStage(av, reference, actor, self.av_sidecar, ar, head, self.ar_sidecar, train, heldout, rl, self.config.temperature)
        fit(stage, rl.train, self.work / "rl", say)
        self._write_role(av, "av", replace(self.av_sidecar, stage="rl"))
        self.write_ar(ar, head)

    def heldout_sets(self) -> dict[str, tuple[Tensor, list[str]]]:
        """Held-out vectors with the teacher's explanations, and with the AV's own samples where there are some."""
        rows = self.split.heldout
        sets = {"gold": (self.vectors[rows], [self.data.explanations[i] for i in rows])}
        samples = draw_samples(None, self.vectors, rows, self.work / "samples", "heldout")
        kept = [(row, text) for row, text in zip(rows, samples, strict=True) if text] if samples else []
        if kept:
            sets["sampled"] = (self.vectors[[row for row, _ in kept]], [text for _, text in kept])
        return sets

    def _ar_examples(self) -> tuple[list[int], list[str]]:
        """(row numbers, texts): the AV's samples that did not fail, and the teacher's explanations of other training vectors."""
        rows = self.split.samples
        samples = draw_samples(None, self.vectors, rows, self.work / "samples", "train")
        own = [(row, text) for row, text in zip(rows, samples, strict=True) if text] if samples else []
        share = self.config.samples.gold_share if own else 1.0
        sampled = set(rows)
        others = [row for row in self.split.av if row not in sampled] or self.split.av
        n_gold = round(len(own) * share / (1 - share)) if share < 1 else len(others)
        both = own + [(row, self.data.explanations[row]) for row in others[:n_gold]]
        return [row for row, _ in both], [text for _, text in both]

    def write_ar(self, ar: LoadedModel, head: Tensor) -> None:
        """`pair/ar`: adapter, head and sidecar."""
        self._write_role(ar, "ar", self.ar_sidecar)
        with replacing(self.work / "pair" / "ar" / HEAD_FILE) as scratch:
            save_file({"weight": head.detach().cpu().to(torch.bfloat16).contiguous()}, scratch)

    def _write_role(self, role: LoadedModel, name: Role, sidecar: Sidecar) -> None:
        folder = self.work / "pair" / name
        role.network.peft_config["default"].base_model_name_or_path = sidecar.base_checkpoint
        save_adapter(role.network, folder, torch.bfloat16)
        write_sidecar(folder, sidecar)


def seed_adapter(role: LoadedModel, seed: int) -> None:
    """Draw a fresh adapter's A matrices from a seeded generator (uniform in +-1/sqrt(fan_in), as peft does unseeded)."""
    for index, parameter in enumerate(adapter_parameters(role)):
        if bool(parameter.any()):  # the B matrices are zero
            draws = seeded_generator("adapter", seed, index)
            bound = parameter.shape[1] ** -0.5
            parameter.data = torch.from_numpy(draws.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)).to(parameter.device)


def continue_adapter(av: LoadedModel, start: str, sidecar: Sidecar) -> None:
    """Load the AV of an earlier pair, to be trained on.

    Raises:
        ContractError: it reads another layer, at another scale or through another prompt, so that it would have to unlearn.
    """
    folder = role_folder(start, "av")
    found = read_sidecar(folder)
    for name in ("layer", "injection_scale", "template"):
        if getattr(found, name) != getattr(sidecar, name):
            raise ContractError(
                f"{start} has {name} {getattr(found, name)!r}, but the config {getattr(sidecar, name)!r}; it cannot be continued."
            )
    load_adapter(av, folder, trainable=True)


def sidecars(config: PairConfig, model: LoadedModel, layer: int) -> tuple[Sidecar, Sidecar]:
    """The contracts of a new pair's AV and AR, worked out with the live tokenizer.

    Raises:
        ConfigError: the marker is not one token, or not found exactly once in the prompt.
    """
    tokenizer = model.tokenizer
    ids = encode(tokenizer, config.marker)
    if len(ids) != 1:
        raise ConfigError(
            f"the marker {config.marker!r} is {len(ids)} tokens in {model.source.name}'s tokenizer; choose a character that is one."
        )
    harness = {"temperature": config.temperature, "max_tokens": config.max_tokens}
    draft = Sidecar(
        role="av",
        d_model=model.d_model,
        layer=layer,
        base_checkpoint=config.base_checkpoint,
        template=config.av_template,
        marker=Marker(config.marker, ids[0], -1, -1),
        injection_scale=config.injection_scale,
        mse_scale=None,
        stage="sft",
        harness=harness,
    )
    prompt = av_prompt_ids(tokenizer, draft)
    at = [i for i, token in enumerate(prompt) if token == ids[0]]
    if len(at) != 1:
        raise ConfigError(f"the marker {config.marker!r} stands {len(at)} times in the AV's prompt, expected once; change av_template.")
    av = replace(draft, marker=Marker(config.marker, ids[0], prompt[at[0] - 1], prompt[at[0] + 1]))
    ar = replace(draft, role="ar", template=config.ar_template, marker=None, injection_scale=None, harness={})
    endings = [ar_prompt_ids(tokenizer, ar, text) for text in ('one "two"', "three four.")]
    n_same = next((n for n, (a, b) in enumerate(zip(*map(reversed, endings), strict=False)) if a != b), 0)
    ar = replace(ar, suffix_ids=tuple(endings[0][-min(n_same, 3) :]) if n_same else ())
    for sidecar in (av, ar):
        check_sidecar(sidecar, model)
    return av, ar
