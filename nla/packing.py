"""Faster linear layers on CPUs: bf16 weights laid out once in the order oneDNN wants them, instead of at every product.

Measured on 2 cores with AVX512-BF16: 1.7x as fast for single rows and 1.2x for 32 rows (`tests/bench`). It costs one more
copy of the weights and changes nothing where gradients are needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_ROWS_HINT = 16


def pack_linears(network: nn.Module) -> int:
    """Pack every bf16 linear layer that lies on the CPU; returns how many were packed (0 where the machine has no use for it)."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return 0
    linears = [m for m in network.modules() if type(m) is nn.Linear and m.weight.dtype == torch.bfloat16 and m.weight.device.type == "cpu"]
    for module in linears:
        module.forward = _packed_forward(module)  # type: ignore[method-assign, assignment]
    return len(linears)


def _packed_forward(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), _ROWS_HINT)

    def forward(x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and (x.requires_grad or module.weight.requires_grad):
            return linear(x, module.weight, module.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, module.bias, "none", [], "")
        return out

    return forward
