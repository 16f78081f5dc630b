"""The rule of a sidecar's `lines_without_repeats`, as a logits processor that vLLM loads in its worker (`nla.verbalizers.no_repeats`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from nla.verbalizers.no_repeats import LINES_ARGUMENT, OPENING_ARGUMENT, RepeatGuard, Spellings


class WithoutRepeats(AdapterLogitsProcessor):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Forbids the tokens that would repeat an item in the current line of a reply."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._spellings = Spellings(AutoTokenizer.from_pretrained(vllm_config.model_config.tokenizer))

    def is_argmax_invariant(self) -> bool:
        """The likeliest token may be one that is forbidden."""
        return False

    def new_req_logits_processor(self, params: Any) -> Callable[[list[int], Tensor], Tensor] | None:
        """Return the rule for one request; None where its sidecar has none."""
        arguments = params.extra_args or {}
        if not arguments.get(LINES_ARGUMENT):
            return None
        guard = RepeatGuard(self._spellings, arguments[OPENING_ARGUMENT], int(arguments[LINES_ARGUMENT]))

        def forbid(output_ids: list[int], logits: Tensor) -> Tensor:
            banned = guard(output_ids)
            if banned:
                logits[sorted(banned)] = -torch.inf
            return logits

        return forbid
