"""vLLM as an engine, and `nla doctor`, which holds every engine against transformers.

What needs vLLM runs where it is installed together with the harness (nla/engine/README.md says how), and is skipped elsewhere.
"""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nla.doctor.checks import Finding, examine, truth_of
from nla.doctor.engines import ENGINES, BuiltIn
from nla.engine import vllm as engine
from nla.engine import vllm_installed
from nla.engine.additions import Addition
from nla.engine.decoder import Request
from nla.engine.hooked import HookedEngine
from nla.engine.vllm import VLLMEngine
from nla.engine.vllm_hooks import counting, ran_at_every_token, replacing
from nla.engine.vllm_installed import installed_versions, require_vllm
from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import ConfigError, EngineError
from nla.verbalizers import verbalizer_for
from tests.commands import typed
from tests.conftest import write_tiny_av, write_tiny_model

INSTALLED = installed_versions()["vllm"] is not None
WITHOUT = pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
WITH = pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed: it pins its own torch, so it has an environment of its own")
ENGINES_HERE = [pytest.param(name, marks=WITH) if name == "vllm" else name for name in ENGINES]


@WITHOUT
def test_without_vllm_the_message_says_what_to_install(tiny: LoadedModel, tiny_av: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs vllm 0.30 and vllm-lens 1.3, but found: vllm is not installed.*awareness-audit\[vllm\]"):
        verbalizer_for("av_vllm", tiny, None, str(tiny_av))


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_installed, "installed_versions", lambda: {"vllm": "0.30.1", "vllm-lens": "1.10.0"})
    with pytest.raises(ConfigError, match=r"but found: vllm-lens 1\.10\.0\. Install"):
        require_vllm()


def test_a_plugin_that_is_switched_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_installed, "installed_versions", lambda: {"vllm": "0.30.0", "vllm-lens": "1.3.0"})
    monkeypatch.setattr(vllm_installed.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("VLLM_LENS_DISABLE", "1")
    with pytest.raises(ConfigError, match="VLLM_LENS_DISABLE is set"):
        require_vllm()


def pieces(lengths: Sequence[int], position: int, n_prompt: int) -> tuple[list[list[int]], int]:
    """In which rows of which pieces a hook puts its vector, and how often it says that it did."""
    hook = replacing(position, torch.ones(2), n_prompt)
    context, changed = SimpleNamespace(saved={}), []
    for length in lengths:
        out = hook(context, torch.zeros(length, 2))
        changed.append([] if out is None else out.any(dim=-1).nonzero()[:, 0].tolist())
    return changed, context.saved.get("times", 0)


@pytest.mark.parametrize(
    ("lengths", "changed"),
    [
        ([6, 1, 1], [[4], [], []]),  # the whole prompt, then token by token
        ([3, 3, 1], [[], [1], []]),  # a prompt in two pieces
        ([6, 1, 8, 1], [[4], [], [4], []]),  # run again from the start after two replies' tokens
    ],
)
def test_the_hook_puts_its_vector_at_the_marker_and_nowhere_else(lengths: list[int], changed: list[list[int]]) -> None:
    assert pieces(lengths, 4, 6) == (changed, sum(map(len, changed)))


class FakeLLM:
    """Stands for vLLM where it is not installed: returns what it was given."""

    model_config = SimpleNamespace(max_model_len=8)

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = outputs

    def generate(self, prompts: list[dict[str, Any]], *_: Any, **__: Any) -> list[Any]:
        for prompt, output in zip(prompts, self.outputs, strict=False):
            output.__dict__.setdefault("prompt_token_ids", prompt["prompt_token_ids"])
        return self.outputs


class BrokenLLM:
    """Stands for a vLLM whose worker has died."""

    def generate(self, *_: Any, **__: Any) -> list[Any]:
        raise RuntimeError("EngineCore encountered an issue.\nSee above.")


def engine_returning(monkeypatch: pytest.MonkeyPatch, *outputs: Any) -> VLLMEngine:
    made = object.__new__(VLLMEngine)
    HookedEngine.__init__(made)
    made._llm, made._adapters = FakeLLM(list(outputs)), {}
    monkeypatch.setattr(engine, "_sampling_params", lambda **fields: fields)
    monkeypatch.setitem(sys.modules, "vllm_lens", SimpleNamespace(Hook=SimpleNamespace))
    return made


REQUEST = Request([1, 2, 3], 4, injections=((1, torch.ones(8)),))


def test_a_hook_that_did_not_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = SimpleNamespace(token_ids=[5, 6], finish_reason="stop")
    ran, failed = (SimpleNamespace(outputs=[reply], hook_results=results) for results in ({"0": {"times": 1}}, {"0": {}}))
    [done] = engine_returning(monkeypatch, ran).run([REQUEST])
    assert (done.ids, done.stop_reason) == ([5, 6], "stop")
    with pytest.raises(EngineError, match="replacement of the marker's row for 1 of 2 requests"):
        engine_returning(monkeypatch, ran, failed).run([REQUEST, REQUEST])


@pytest.mark.parametrize(
    ("positions", "counted", "missing"),
    [
        (2, {"0": 3, "1": 3}, "capture"),
        (3, {"0": 3, "1": 2}, "hook at every token"),
        (3, {"1": 3}, "hook at every token"),
        (3, {"0": 3, "1": 5, "latest 1": 3}, "hook at every token"),  # two tokens were run twice
        (3, {"0": 4, "latest 0": 1, "1": 4, "latest 1": 1}, ""),  # one pass too many
        (3, {"0": 3, "1": 3}, ""),
    ],
)
def test_a_read_of_which_a_part_is_missing_is_an_error(
    positions: int, counted: dict[str, int], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = SimpleNamespace(token_ids=[5], finish_reason="length")
    output = SimpleNamespace(outputs=[reply], activations={"residual_stream": torch.ones(1, positions, 8)}, hook_results={"0": counted})
    made = engine_returning(monkeypatch, output)
    added = {0: torch.ones(8), 2: torch.ones(8)}  # block 2 comes after the one that is read
    if missing:
        with pytest.raises(EngineError, match=f"did not run its {missing} for 1 of 1 requests"):
            made.read([[1, 2, 3]], 1, added=added)
    else:
        [read] = made.read([[1, 2, 3]], 1, added=added)
        assert read.shape == (3, 8)


def test_a_sequence_that_is_too_long_is_told_before_vllm_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="A sequence of 8 tokens cannot be read in vLLM, which takes 7 here"):
        engine_returning(monkeypatch).read([[1, 2, 3], [1] * 8], 1)


def test_the_hook_adds_each_blocks_vector_and_counts_tokens() -> None:
    hook = counting({0: torch.ones(2), 3: torch.full((2,), 5.0)})
    saved: dict[str, int] = {}
    for block, length, expected in ((0, 4, 1.0), (3, 4, 5.0), (5, 4, None), (0, 1, 1.0)):
        out = hook(SimpleNamespace(saved=saved, layer_idx=block), torch.zeros(length, 2))
        assert out is None if expected is None else out.tolist() == [[expected, expected]] * length
    assert saved == {"0": 5, "latest 0": 1, "3": 4, "latest 3": 4, "5": 4, "latest 5": 4}
    assert [ran_at_every_token(saved, block, 4) for block in (0, 3, 5, 7)] == [True, True, True, False]


@pytest.mark.slow
def test_a_hook_travels_as_source_text() -> None:
    """Nothing of it may need this package, or this version of Python, where vLLM runs."""
    code = "import pickle, sys, types, torch; hook = pickle.load(open(sys.argv[1], 'rb')); "
    code += "context = types.SimpleNamespace(saved={}, layer_idx=1); print(hook(context, torch.zeros(3, 2)).tolist(), context.saved); "
    code += "print([name for name in sys.modules if name.split('.')[0] in ('nla', 'jaxtyping')])"
    for hook, expected in (
        (counting({1: torch.ones(2)}), "[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]] {'1': 3, 'latest 1': 3}"),
        (replacing(1, torch.ones(2), 3), "[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]] {'seen': 3, 'times': 1}"),
    ):
        packed = pickle.dumps(hook)
        assert b"nla." not in packed
        with TemporaryDirectory() as folder:
            (Path(folder) / "hook").write_bytes(packed)
            done = subprocess.run([sys.executable, "-c", code, "hook"], cwd=folder, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [expected, "[]"]


def test_answers_to_other_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = SimpleNamespace(token_ids=[5, 6], finish_reason="stop")
    left_over = SimpleNamespace(outputs=[reply], prompt_token_ids=[9], hook_results={"0": {"times": 1}})
    with pytest.raises(EngineError, match="answered other requests"):
        engine_returning(monkeypatch, left_over).run([REQUEST])


def test_a_dead_worker_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine_returning(monkeypatch)
    made._llm = BrokenLLM()
    with pytest.raises(EngineError, match=r"stopped while it ran 1 requests \(EngineCore encountered an issue"):
        made.run([REQUEST])


def test_what_vllm_cannot_inject_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    added = Request([1, 2, 3], 4, additions=(Addition(1, 0, torch.ones(8)),))
    with pytest.raises(ConfigError, match="injects one vector per prompt"):
        engine_returning(monkeypatch).run([added])


def findings_of(name: str, model: LoadedModel, nla: str | None) -> list[Finding]:
    return list(examine(name, ENGINES[name](model), model, truth_of(model, nla), nla))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen2"])
def test_the_built_in_engine_computes_what_transformers_computes(family: str, tiny_folder: Callable[[str], Path]) -> None:
    model = load_model(str(tiny_folder(family)), dtype="float32", device="cpu")
    findings = findings_of("built-in", model, None)
    assert [finding.verdict for finding in findings] == ["ok", "ok", "ok", "not run"], findings


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES_HERE)
def test_an_engine_computes_what_transformers_computes_on_a_tiny_llama(name: str, tmp_path: Path) -> None:
    wide = {"head_dim": 32}  # vLLM's kernels for CPUs know no smaller heads
    model = load_model(str(write_tiny_model(tmp_path / "model", "llama", **wide)), dtype="float32", device="cpu")
    av = write_tiny_av(tmp_path / "av", **wide)
    findings = findings_of(name, model, str(av))
    assert [finding.verdict for finding in findings] == ["ok"] * 4, findings


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES_HERE)
def test_an_engine_computes_what_transformers_computes_on_the_embedded_model(name: str, smollm2: LoadedModel) -> None:
    assert [finding.verdict for finding in findings_of(name, smollm2, None)] == ["ok"] * 4


class OneBlockTooEarly(BuiltIn):
    """The usual mistake: another convention for layers."""

    def read(self, rows: Sequence[Sequence[int]], layer: int) -> list[Tensor]:
        return super().read(rows, max(layer - 1, 0))


class Unsteered(BuiltIn):
    """An engine whose steering has no effect."""

    def read_steered(self, rows: Sequence[Sequence[int]], layer: int, block: int, vector: Tensor) -> list[Tensor]:
        return self.read(rows, layer)


class AnotherVector(BuiltIn):
    """An engine that mixes up the rows of a batch."""

    def explain(self, vectors: Tensor, nla: str | None) -> Any:
        return super().explain(vectors.roll(1, dims=0), nla)


@pytest.mark.slow
@pytest.mark.parametrize(("made", "wrong"), [(OneBlockTooEarly, 1), (Unsteered, 2), (AnotherVector, 3)])
def test_a_wrong_engine_is_found_out(made: type[BuiltIn], wrong: int, tiny: LoadedModel, tiny_av: Path) -> None:
    truth = truth_of(tiny, str(tiny_av))
    verdicts = [finding.verdict for finding in examine("mine", made(tiny), tiny, truth, str(tiny_av))]
    right = [finding.verdict for finding in examine("built-in", BuiltIn(tiny), tiny, truth, str(tiny_av))]
    assert right == ["ok"] * 4
    assert [place for place, verdict in enumerate(verdicts) if verdict == "WRONG"] == [wrong]


def test_the_command_lists_what_it_found(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "doctor.json"
    done = typed("nla", "doctor", str(tiny_folder("llama")), "--dtype", "float32", "--engine", "built-in", "--json", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [finding["passed"] for finding in json.loads(out.read_text())] == [True, True, True, None]
    assert "no pair is known" in done.stdout
    unknown = typed("nla", "doctor", "smollm2", "--engine", "tgi", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "No engine is named tgi; expected one of built-in, vllm, hf-logs." in unknown.stderr


@WITHOUT
def test_an_engine_that_is_named_must_be_there(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    done = typed("nla", "doctor", str(tiny_folder("llama")), "--engine", "vllm", cwd=tmp_path)
    assert done.returncode == 2
    assert "vllm is not installed" in done.stderr
    listed = typed("nla", "doctor", str(tiny_folder("llama")), "--dtype", "float32", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "vllm, could not" in listed.stdout
