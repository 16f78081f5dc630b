"""vLLM itself reads transcripts, runs the AR, and answers as a server. Skipped where vLLM is not installed (nla/engine/README.md says how).

The models are tiny and random, with heads of 32 dimensions, because vLLM's kernels for CPUs know no smaller ones.
"""

import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nla.activations.capture import residual_stream
from nla.engine.vllm import EngineSettings, VLLMEngine
from nla.inspect import read_with, views
from nla.inspect.provider import LocalArgs
from nla.inspect.shared_read import read_vectors
from nla.models.adapted import with_adapter
from nla.models.loaded import LoadedModel, load_model
from nla.pair.engine_reconstructor import EngineReconstructor
from nla.pair.export import write_index
from nla.pair.reconstructor import load_reconstructor
from nla.support.errors import ConfigError
from nla.verbalizers import verbalizer_for
from nla.verbalizers.base import Verbalizer
from tests.conftest import write_tiny_av, write_tiny_model
from tests.test_reconstructor import TEXTS, write_ar
from tests.test_shared_read import conversation
from tests.test_vllm import WITH

pytestmark = [WITH, pytest.mark.slow]
WIDE = {"head_dim": 32}
REPLIES = [f"Reply number {n} says something about {n * 7}, and then it ends." for n in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("wide"), "llama", **WIDE)


@pytest.fixture(autouse=True)
def _free_engines() -> Iterator[None]:
    """Each engine is two processes of some GiB, which end with it."""
    yield
    views._views.clear()
    read_with._readers.clear()
    gc.collect()


def vectors_of(model: LoadedModel) -> list[Tensor]:
    """Vectors of all conversations, which threads read at the same time, as scorers do."""

    def read(number: int) -> Tensor:
        return read_vectors(model, conversation(REPLIES[number]), 1, n_sampled=3, key=(0, number, 1)).vectors

    with ThreadPoolExecutor(len(REPLIES)) as pool:
        return list(pool.map(read, range(len(REPLIES))))


def args(engine: str, **more: object) -> LocalArgs:
    return LocalArgs.parse({"dtype": "float32", "device": "cpu", "read_with": engine, **more})


@pytest.fixture(scope="module")
def directions(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_model(str(folder), dtype="float32", device="cpu")
    path = tmp_path_factory.mktemp("directions") / "directions.safetensors"
    save_file({"directions": torch.randn(model.n_layers, model.d_model, generator=torch.Generator().manual_seed(5))}, path)
    return path


@pytest.mark.parametrize("steered", [False, True])
def test_vllm_reads_what_the_built_in_engine_reads(steered: bool, folder: Path, directions: Path) -> None:
    steer = {"steer": f"{directions}:0.5"} if steered else {}
    here, there = (args(engine, **steer).load(str(folder)) for engine in ("built-in", "vllm:max_model_len=256"))
    for read, expected in zip(vectors_of(there), vectors_of(here), strict=True):
        torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)
    assert there.describe()["read_with"] == "vLLM"
    assert there.reader._engine._gathered._waiting == []


def test_a_transcript_that_is_too_long_for_vllm_costs_only_itself(folder: Path) -> None:
    view = args("vllm:max_model_len=128").load(str(folder))
    view.reader.prepare(view, 1)
    engine = view.reader._engine
    with ThreadPoolExecutor(3) as pool:
        long, *others = [pool.submit(engine.read, [[5] * n], 1) for n in (200, 9, 9)]
        assert [other.result()[0].shape[0] for other in others] == [9, 9]
        with pytest.raises(ConfigError, match="A sequence of 200 tokens cannot be read in vLLM, which takes 127"):
            long.result()


def test_the_ar_in_vllm_predicts_what_the_built_in_ar_predicts(tmp_path: Path) -> None:
    folder = write_ar(tmp_path / "ar", "llama", layer=2, **WIDE)
    write_index(folder)  # the head's file lies beside the weights
    own = load_reconstructor(str(folder), dtype="float32", device="cpu")
    engine = VLLMEngine(folder, "float32", on_cpu=True, settings=EngineSettings(max_model_len=256))
    theirs = EngineReconstructor(own.model, own.head, own.sidecar, engine, None)
    torch.testing.assert_close(theirs.reconstruct(TEXTS), own.reconstruct(TEXTS), rtol=1e-4, atol=1e-4)
    vectors = torch.randn(len(TEXTS), 32, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(theirs.score(vectors, TEXTS), own.score(vectors, TEXTS), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """Starts a server on a model and returns its address once it answers."""
    running: list[subprocess.Popen[bytes]] = []

    def start(model: Path) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["--dtype", "float32", "--max-model-len", "512", "--no-enable-prefix-caching", "--no-enable-chunked-prefill"]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1"]
        log = (tmp_path_factory.mktemp("server") / "log").open("wb")
        env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        running.append(subprocess.Popen([*command, "--port", str(port), *options], stdout=log, stderr=log, env=env))
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                    return url
            except httpx.HTTPError:
                assert running[-1].poll() is None, Path(log.name).read_text(encoding="utf-8")[-2000:]
            time.sleep(0.5)
        raise AssertionError(Path(log.name).read_text(encoding="utf-8")[-2000:])

    yield start
    for process in running:
        process.terminate()
        process.wait(30)


def test_a_server_reads_and_refuses_another_model(folder: Path, directions: Path, serve: Callable[[Path], str], tmp_path: Path) -> None:
    server = f"vllm:base_url={serve(folder)}"
    for steer in ({}, {"steer": f"{directions}:0.5"}):
        here, there = (args(engine, **steer).load(str(folder)) for engine in ("built-in", server))
        for read, expected in zip(vectors_of(there), vectors_of(here), strict=True):
            torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)
    other = write_tiny_model(tmp_path / "other", "llama", initializer_range=0.3, rms_norm_eps=0.1, **WIDE)
    with pytest.raises(ConfigError, match="differ from those of"):
        vectors_of(args(server).load(str(other)))


def test_an_av_behind_a_server_writes_what_the_built_in_one_writes(folder: Path, serve: Callable[[Path], str], tmp_path: Path) -> None:
    av = write_tiny_av(tmp_path / "av", **WIDE)
    model = load_model(str(folder), dtype="float32", device="cpu")
    vectors = torch.stack([residual_stream(model, model.tokenizer.encode(text), 1)[-1] for text in REPLIES])

    def texts(verbalizer: Verbalizer) -> list[str]:
        return [explanation.text for explanation in verbalizer.verbalize(vectors, [(n,) for n in range(len(vectors))])]

    url = serve(av)
    assert texts(verbalizer_for(f"av_vllm:temperature=0:base_url={url}", model, None, str(av))) == texts(
        verbalizer_for("av:temperature=0", model, None, str(av))
    )
    with pytest.raises(ConfigError, match="Start the server on that model"):
        verbalizer_for(f"av_vllm:base_url={url}", model, None, str(write_tiny_av(tmp_path / "another", **WIDE)))


def test_an_organism_is_read_under_its_adapter(smollm2: LoadedModel) -> None:
    aware = with_adapter(smollm2, "nla/organisms/shipped/smollm2-aware")
    here, there = (args(engine, adapter="nla/organisms/shipped/smollm2-aware").load("smollm2") for engine in ("built-in", "vllm"))
    assert here is aware
    read, expected, plain = (read_vectors(m, conversation(REPLIES[0]), 20, n_sampled=3, key=(0,)).vectors for m in (there, here, smollm2))
    torch.testing.assert_close(read, expected, rtol=1e-3, atol=1e-2)
    assert (plain - expected).norm() > 0.01 * expected.norm()
