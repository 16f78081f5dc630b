"""vLLM in this process, as an engine beside the built-in one (`nla.engine.hooked` says how vectors get in and out)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla.engine.hooked import Answer, HookedEngine, Question
from nla.engine.vllm_installed import require_vllm
from nla.engine.vllm_watch import start_watch
from nla.support.errors import ConfigError, EngineError, first_line


@dataclass(frozen=True)
class EngineSettings:
    """What vLLM is started with."""

    tensor_parallel: int = 1
    """GPUs that share the weights."""
    gpu_memory: float = 0.6
    """Share of each GPU's memory that vLLM takes."""
    max_model_len: int = 2048
    """Longest sequence in tokens; -1 takes as many as fit into the memory, up to the model's context window."""
    adapter_rank: int = 0
    """Largest rank of the adapters that requests may use; 0 for none."""
    logits_processors: tuple[str, ...] = ()
    """Logits processors by `module:class`, for rules about what may be written."""


class VLLMEngine(HookedEngine):
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
        super().__init__()
        require_vllm()
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # otherwise some hundred lines about its start and end
        if on_cpu:
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        from vllm import LLM

        start_watch()
        self._adapters: dict[Path, int] = {}
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

    @property
    def longest(self) -> int:
        """See `HookedEngine`."""
        return int(self._llm.model_config.max_model_len)

    def answers(self, questions: list[Question]) -> list[Answer]:
        """See `HookedEngine`."""
        sampling = [_sampling_params(**question.sampling, extra_args=dict(question.arguments)) for question in questions]
        adapters = [None if question.adapter is None else self._lora(question.adapter) for question in questions]
        lora = {"lora_request": adapters} if any(adapters) else {}
        prompts = [{"prompt_token_ids": question.row} for question in questions]
        try:
            outputs: list[Any] = self._llm.generate(prompts, sampling, use_tqdm=False, **lora)
        except Exception as ex:  # vLLM raises many kinds of exceptions, and its worker has printed the cause before
            raise EngineError(f"vLLM stopped while it ran {len(questions)} requests ({first_line(ex)}); the output above says why.") from ex
        if [list(output.prompt_token_ids) for output in outputs] != [question.row for question in questions]:
            raise EngineError(
                "vLLM answered other requests than those that were asked; an earlier call was cut off. Start the command again."
            )
        return [_answer(output) for output in outputs]

    def _lora(self, adapter: Path) -> Any:
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(adapter, len(self._adapters) + 1)
        return LoRARequest(f"adapter-{number}", number, str(adapter))


def _answer(output: Any) -> Answer:
    completion = output.outputs[0]
    captured = getattr(output, "activations", None) or {}
    saved = getattr(output, "hook_results", None) or {}
    return Answer(list(completion.token_ids), completion.finish_reason, captured.get("residual_stream"), saved)


def _sampling_params(**fields: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**fields)
