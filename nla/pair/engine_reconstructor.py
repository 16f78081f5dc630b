"""The AR on vLLM: the residual stream after block K at an explanation's last token, times the head."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nla.engine.hooked import HookedEngine
from nla.kernels.compute_thread import compute
from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar, ar_prompt_ids
from nla.pair.reconstructor import Reconstructor


class EngineReconstructor(Reconstructor):
    """An AR whose blocks run in vLLM. The head is applied here, in float32.

    Args:
        model: the model whose tokenizer writes the prompts.
        head: [d_model, d_model]; the prediction is `head @ residual`.
        sidecar: the contract it was trained under.
        engine: the engine that holds the AR's weights, or those of its base model.
        adapter: folder of the AR's adapter; None where the engine holds the AR's own weights.
    """

    def __init__(
        self, model: LoadedModel, head: Float[Tensor, "d_model d_model"], sidecar: Sidecar, engine: HookedEngine, adapter: Path | None
    ) -> None:
        super().__init__(model, head, sidecar)
        self.engine, self.adapter = engine, adapter

    def reconstruct(self, explanations: Sequence[str], batch: int = 64) -> Float[Tensor, "n d_model"]:
        """See `Reconstructor`. vLLM forms its own batches, so `batch` has no effect.

        Raises:
            ConfigError: vLLM failed, or returned no stream.
        """
        prompts = [ar_prompt_ids(self.model.tokenizer, self.sidecar, text) for text in explanations]
        if not prompts:
            return torch.empty(0, self.sidecar.d_model)
        last = [stream[-1] for stream in self.engine.read(prompts, self.sidecar.layer, adapter=self.adapter)]
        return compute(lambda: torch.stack(last) @ self.head.cpu().T)
