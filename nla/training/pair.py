"""`nla train`: the stages of a pair's training in one working folder, each of which resumes, and the pair they make.

In: the shards of `nla data` and a `PairConfig`. Out: the adapters `pair/av` and `pair/ar` with their sidecars. The stages follow the
NLA paper: warm start of the AV, supervised AR, joint reinforcement learning. The AV's own samples between the first two are ours: an
AR that has seen only the teacher's explanations trusts quotations that the AV gets wrong.

The working folder has `data/` (shards), `av/`, `ar/`, `rl/` (checkpoints and metrics), `samples/` and `pair/`. One command at a time
writes into it.
"""

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nla.models.adapters import add_adapter, load_adapter, save_adapter, shared_copy
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import Role, Sidecar, write_sidecar
from nla.pair.reconstructor import HEAD_FILE, read_head
from nla.support.errors import ConfigError, DataError
from nla.support.files import replacing, scratch_folder
from nla.support.seeds import seeded_generator
from nla.training.anchors import FIRST_LINE_TOKENS, half_wrong, known_rows
from nla.training.ar import ARStage
from nla.training.av import AVStage
from nla.training.config import PairConfig, RLConfig
from nla.training.data.config import is_heldout
from nla.training.data.dead_lines import refuse_dead_lines
from nla.training.data.shards import Dataset, read_dataset
from nla.training.known_vectors import known_vectors
from nla.training.loop import Limits, Say, fit
from nla.training.new_pair import continue_adapter, seed_adapter, sidecars
from nla.training.rl import RLStage
from nla.training.samples import draw_samples, read_samples
from nla.training.truth import Truths
from nla.training.work import work_lock
from nla.verbalizers.av import ActivationVerbalizer


@dataclass(frozen=True)
class Split:
    """Row numbers of a data set: vectors that the AV trains on, vectors that samples are drawn for, and vectors of held-out documents."""

    av: list[int]
    samples: list[int]
    heldout: list[int]


class PairTraining:
    """The training stages of one pair.

    Args:
        config: the pair's config.
        work: working folder.
        dtype: of the base model, a name or `auto`.
        device: torch device name, or `auto`.

    Raises:
        ConfigError: the config has no such layer, or its marker does not fit the tokenizer.
        ModelError, FetchError: the base model cannot be loaded.
    """

    def __init__(self, config: PairConfig, work: Path, *, dtype: str = "auto", device: str = "auto") -> None:
        self.config, self.work = config, work
        self.model = load_model(config.model, dtype=dtype, device=device)
        self.layer = self.model.check_layer(config.data.layer)
        self._av_draft, self.ar_sidecar = sidecars(config, self.model, self.layer)

    @cached_property
    def av_sidecar(self) -> Sidecar:
        """The AV's contract.

        Raises:
            ConfigError, DataError: the injection scale is that of the training data, which cannot be used (see `data`).
        """
        if self.config.injection_scale != "median":
            return self._av_draft
        median = self.vectors.norm(dim=1).median()
        return replace(self._av_draft, injection_scale=float(f"{median:.4g}"))  # four digits, for those who read the sidecar

    @cached_property
    def data(self) -> Dataset:
        """The shards.

        Raises:
            ConfigError: they are of another width or layer, or `nla data` is writing them.
            DataError: they cannot be read, or a line of their explanations is nearly always the same.
        """
        folder = self.work / "data"
        if not folder.is_dir():
            raise DataError(f"{self.work} has no training data; make them with `nla data`, or use `nla train all`.")
        with work_lock(folder, "nla train"):
            data = read_dataset(folder)
        shards, expected = (data.extraction.d_model, data.extraction.layer_index), (self.model.d_model, self.layer)
        if shards != expected:
            raise ConfigError(f"{folder} holds vectors of (width, layer) {shards}, expected {expected}; make them again.")
        refuse_dead_lines(data.explanations)
        return data

    @cached_property
    def vectors(self) -> Tensor:
        """All raw vectors, `[n, d_model]`."""
        return torch.from_numpy(self.data.vectors)

    @cached_property
    def split(self) -> Split:
        """The split by document, each part in a seeded order.

        Raises:
            DataError: no vector is left to train on, or none is held out.
        """
        draws = seeded_generator("split", self.config.data.seed)
        order = [int(i) for i in draws.permutation(len(self.data))]
        heldout = [i for i in order if is_heldout(self.data.doc_ids[i])][: self.config.heldout_vectors]
        train = [i for i in order if not is_heldout(self.data.doc_ids[i])]
        if not train or not heldout:
            raise DataError(
                f"{self.work / 'data'} has {len(train)} vectors of training documents and {len(heldout)} of held-out ones; "
                "a pair needs both. Read more documents (about one in twenty is held out)."
            )
        return Split(train, train[::-1][: self.config.samples.n], heldout)

    def _anchors(self, actor: LoadedModel, rl: RLConfig, say: Say | None) -> tuple[Tensor, list[str]]:
        """Return the training vectors of known state with the teacher's explanations, as `rl.wrong_anchors` chooses them."""
        rows = known_rows(self.data.doc_ids, self.split.av)
        if rl.anchors and rl.wrong_anchors:
            verbalizer = ActivationVerbalizer(actor, self.av_sidecar, self.config.temperature, FIRST_LINE_TOKENS)
            rows = half_wrong(verbalizer, self.vectors, self.data.explanations, rows, self.work / "rl" / "anchors", say or (lambda _: None))
        return self.vectors[rows], [self.data.explanations[row] for row in rows]

    @property
    def _all_heldout(self) -> list[int]:
        """Row numbers of all held-out documents, more than the stages are evaluated on."""
        return [row for row, name in enumerate(self.data.doc_ids) if is_heldout(name)]

    def _lock(self) -> AbstractContextManager[None]:
        return work_lock(self.work, "nla train")

    def train_av(self, say: Say | None = None, limits: Limits = Limits()) -> None:
        """Train the AV's warm start; write `pair/av`.

        Raises:
            ContractError: the AV to continue has another contract.
            ConfigError, DataError, StoppedError: see `fit`.
        """
        with self._lock():
            av = shared_copy(self.model)
            if self.config.start is not None:
                continue_adapter(av, self.config.start, self.av_sidecar)
            else:
                add_adapter(av, self.config.av_adapter)
                seed_adapter(av, self.config.av.seed)
            rows, texts = self.split, self.data.explanations
            stage = AVStage(
                av,
                self.av_sidecar,
                self.vectors[rows.av],
                [texts[i] for i in rows.av],
                self.vectors[rows.heldout],
                [texts[i] for i in rows.heldout],
            )
            fit(stage, self.config.av, self.work / "av", say, limits)
            self._write_role(av, "av", self.av_sidecar)

    def sample(self, say: Say = lambda _: None) -> None:
        """Let the AV explain training and held-out vectors; write `samples/`.

        Raises:
            ContractError: `pair/av` is missing or cannot be read.
            ConfigError, DataError: another command uses the folder, or it cannot be written.
        """
        with self._lock(), work_lock(self._samples, "nla train samples"):
            av = shared_copy(self.model)
            load_adapter(av, self.work / "pair" / "av")
            verbalizer = ActivationVerbalizer(av, self.av_sidecar, self.config.samples.temperature, self.config.samples.max_tokens)
            for name, rows in (("heldout", self.split.heldout), ("train", self.split.samples)):
                draw_samples(verbalizer, self.vectors, rows, self._samples, name, say)

    def train_ar(self, say: Say | None = None, limits: Limits = Limits()) -> None:
        """Train the AR on the AV's samples and the teacher's explanations; write `pair/ar`.

        Raises:
            ContractError: the AR to continue has another contract.
            ConfigError, DataError, StoppedError: see `fit`.
        """
        with self._lock():
            ar = shared_copy(self.model, self.layer + 1)
            head = nn.Parameter(torch.eye(self.model.d_model, device=self.model.device))
            if self.config.start is not None:
                earlier = read_head(continue_adapter(ar, self.config.start, self.ar_sidecar))
                head = nn.Parameter(earlier.to(self.model.device))
            else:
                add_adapter(ar, self.config.ar_adapter)
                seed_adapter(ar, self.config.ar.seed)
            rows, texts = self._ar_examples()
            heldout = self._heldout_sets()
            stage = ARStage(ar, head, self.ar_sidecar, self.vectors[rows], texts, heldout, self.config.paraphrases)
            fit(stage, self.config.ar, self.work / "ar", say, limits)
            self._write_ar(ar, head)

    def train_rl(self, say: Say | None = None, limits: Limits = Limits()) -> None:
        """Train AV and AR together by reinforcement learning, from the warm-started ones; write the results over `pair/`.

        Does nothing where the config has no `rl`.

        Raises:
            ContractError: `pair/av` or `pair/ar` is missing or cannot be read.
            ConfigError, DataError, StoppedError: see `fit`.
        """
        rl = self.config.rl
        if rl is None:
            return
        with self._lock():
            start, rows, data = self._rl_start(), self.split, self.data
            av, reference, actor = (shared_copy(self.model) for _ in range(3))
            ar = shared_copy(self.model, self.layer + 1)
            load_adapter(av, start / "av", trainable=True)
            for frozen in (reference, actor):
                load_adapter(frozen, start / "av")
            load_adapter(ar, start / "ar", trainable=True)
            head = nn.Parameter(read_head(start / "ar").to(self.model.device))
            stage = RLStage(
                av,
                reference,
                actor,
                self.av_sidecar,
                ar,
                head,
                self.ar_sidecar,
                vectors=self.vectors[rows.av],
                heldout_vectors=self.vectors[rows.heldout],
                config=rl,
                temperature=self.config.temperature,
                paraphrases=self.config.paraphrases,
                known=known_vectors(self.data, self._all_heldout),
                anchors=self._anchors(actor, rl, say),
                truths=Truths([data.texts[i] for i in rows.av], [data.explanations[i] for i in rows.av]),
            )
            fit(stage, rl.train, self.work / "rl", say, limits)
            self._write_role(av, "av", replace(self.av_sidecar, stage="rl"))
            self._write_ar(ar, head)

    def _rl_start(self) -> Path:
        """Return a copy of the warm-started pair, made once: a resumed run starts from it although `pair/` has changed since."""
        start = self.work / "rl" / "start"
        if not start.exists():
            with scratch_folder(start.parent) as scratch:
                shutil.copytree(self.work / "pair", scratch / "pair")
                try:
                    (scratch / "pair").rename(start)
                except OSError:
                    if not start.exists():  # otherwise another process of this command has made the same copy
                        raise
        return start

    @property
    def _samples(self) -> Path:
        return self.work / "samples"

    def _heldout_sets(self) -> dict[str, tuple[Tensor, list[str]]]:
        """Return held-out vectors with the teacher's explanations, and with the AV's own samples where they have been drawn."""
        rows = self.split.heldout
        sets = {"gold": (self.vectors[rows], [self.data.explanations[i] for i in rows])}
        samples = read_samples(rows, self._samples, "heldout")
        if samples:
            sets["sampled"] = (self.vectors[list(samples)], list(samples.values()))
        return sets

    def _ar_examples(self) -> tuple[list[int], list[str]]:
        """Return row numbers and texts: the AV's samples that did not fail, and the teacher's explanations of other training vectors."""
        rows = self.split.samples
        samples = read_samples(rows, self._samples, "train")
        share = self.config.samples.gold_share if samples else 1.0
        sampled = set(rows)
        others = [row for row in self.split.av if row not in sampled] or self.split.av
        n_gold = round(len(samples) * share / (1 - share)) if share < 1 else len(others)
        examples = [*samples.items(), *((row, self.data.explanations[row]) for row in others[:n_gold])]
        return [row for row, _ in examples], [text for _, text in examples]

    def _write_ar(self, ar: LoadedModel, head: Tensor) -> None:
        """Write `pair/ar`: adapter, head and sidecar."""
        self._write_role(ar, "ar", self.ar_sidecar)
        with replacing(self.work / "pair" / "ar" / HEAD_FILE) as scratch:
            save_file({"weight": head.detach().cpu().to(torch.bfloat16).contiguous()}, scratch)

    def _write_role(self, role: LoadedModel, name: Role, sidecar: Sidecar) -> None:
        folder = self.work / "pair" / name
        role.network.peft_config["default"].base_model_name_or_path = sidecar.base_checkpoint
        save_adapter(role.network, folder, torch.bfloat16)
        write_sidecar(folder, sidecar)
