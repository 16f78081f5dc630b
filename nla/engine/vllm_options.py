"""The options of vLLM that a user may type after a name, as in `av_vllm:tensor_parallel=4`, and the engine that they start."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from nla.engine.hooked import HookedEngine
from nla.support.errors import ConfigError


def _auto_or_usable(length: int) -> int:
    if length != -1 and not 64 <= length <= 10_000_000:
        raise ValueError("expected -1, or 64 to 10000000")
    return length


Length = Annotated[int, AfterValidator(_auto_or_usable)]
_OF_THIS_PROCESS = ("tensor_parallel", "gpu_memory", "max_model_len")


class EngineOptions(BaseModel):
    """Options of vLLM: how it is started in this process, or which server is asked instead."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    base_url: str | None = None
    """Address of a vLLM server to ask; None starts vLLM in this process."""
    served: str | None = None
    """The name under which the server serves the model; None takes the one that fits."""
    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    """GPUs that share the weights."""
    gpu_memory: float = Field(default=0.6, gt=0, lt=1)
    """Share of each GPU's memory that vLLM takes; the rest is for the audited model."""
    max_model_len: Length = 2048
    """Longest sequence in tokens; -1 takes as many as fit into the memory, up to the model's context window."""

    def check(self, dtype: str) -> None:
        """Check that vLLM or a server's client is installed, that vLLM can take a dtype, and that every option here has an effect.

        Raises:
            ConfigError: otherwise.
        """
        from nla.engine.vllm_installed import require_client, require_vllm

        if self.base_url is None:
            if self.served is not None:
                raise ConfigError(
                    "served=NAME names a model of a server; give the server's address too, as base_url=http://127.0.0.1:8000."
                )
            if dtype == "4bit":
                raise ConfigError("vLLM cannot take over the weights of a model in 4 bits; give another dtype, or use the built-in engine.")
            require_vllm()
            return
        if without_effect := [name for name in _OF_THIS_PROCESS if name in self.model_fields_set]:
            raise ConfigError(f"{', '.join(without_effect)} would change nothing with base_url; set it when you start the server.")
        require_client()
        from nla.engine.vllm_server import address

        address(self.base_url)

    def start(
        self,
        checkpoint: Path | str,
        dtype: str,
        *,
        on_cpu: bool,
        revision: str | None = None,
        adapter_rank: int = 0,
        logits_processors: Sequence[str] = (),
        expected: tuple[str | Path, ...] = (),
        memory_share: float = 1.0,
    ) -> HookedEngine:
        """Start vLLM on a checkpoint, or connect to the server that serves it. For a server, only `expected` is used.

        Args:
            checkpoint: folder or hub id.
            dtype: bfloat16, float16 or float32.
            on_cpu: run on the CPU.
            revision: of a hub id.
            adapter_rank: largest rank of the adapters that requests may use; 0 for none.
            logits_processors: the logits processors to load, each as `module:class`.
            expected: names and folders by which a server may know the checkpoint; empty where any will do.
            memory_share: share of `gpu_memory` for this engine; below 1 where the same options start several.

        Raises:
            ConfigError: see `VLLMEngine` and `VLLMServer`.
        """
        if self.base_url is not None:
            from nla.engine.vllm_server import VLLMServer, location_names

            return VLLMServer(self.base_url, served=self.served, expected=location_names(*expected))
        from nla.engine.vllm import EngineSettings, VLLMEngine

        settings = EngineSettings(
            tensor_parallel=self.tensor_parallel,
            gpu_memory=self.gpu_memory * memory_share,
            max_model_len=self.max_model_len,
            adapter_rank=adapter_rank,
            logits_processors=tuple(logits_processors),
        )
        return VLLMEngine(checkpoint, dtype, on_cpu=on_cpu, settings=settings, revision=revision)
