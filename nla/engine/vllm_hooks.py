"""The functions that run inside vLLM's worker, as hooks of vllm-lens, and how they get there.

A server may run another Python than this process, and bytecode of one version crashes another. Hooks therefore travel as source text,
which the worker compiles; what they need besides is given as arguments.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

BlockHook: TypeAlias = Callable[..., Any]
"""Takes vllm-lens's context and hidden states `[pos, d_model]`; returns the hidden states to go on with, or None for no change."""


class _FromSource:
    """A function that is pickled as its source text. It must use nothing but its arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # The annotations name modules that the worker need not have; with this import they are never evaluated.
        source = f"from __future__ import annotations\n{inspect.getsource(self._function)}"
        return eval, (f"(lambda names: (exec({source!r}, names), names[{self._function.__name__!r}])[1])({{}})",)


def replacing(position: int, row: Float[Tensor, " d_model"], n_prompt: int) -> BlockHook:
    """Return a hook on the input of block 0 that puts a row in a prompt position's place, and counts how often it did.

    Args:
        position: of the prompt.
        row: what takes the place of the embedding there.
        n_prompt: tokens of the prompt.
    """
    return partial(_FromSource(_replace), position=position, row=row, n_prompt=n_prompt)


def counting(added: Mapping[int, Float[Tensor, " d_model"]]) -> BlockHook:
    """Return a hook on the outputs of blocks that adds each block's vector at every token, and counts the tokens.

    In a block without a vector it only counts.
    """
    return partial(_FromSource(_count), added=dict(added))


def _replace(context: Any, hidden: Tensor, *, position: int, row: Tensor, n_prompt: int) -> Tensor | None:
    # vLLM may run a prompt in several pieces, and may drop a request's cache to free memory and run it again from the start. After the
    # whole prompt, a piece of several tokens is therefore taken as a new start.
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


def _count(context: Any, hidden: Tensor, *, added: Mapping[int, Tensor]) -> Tensor | None:
    block = str(context.layer_idx)
    context.saved[block] = context.saved.get(block, 0) + len(hidden)
    context.saved["latest " + block] = len(hidden)
    vector = added.get(context.layer_idx)
    return None if vector is None else hidden + vector.to(hidden)


def ran_at_every_token(counts: Mapping[str, int], block: int, n_tokens: int) -> bool:
    """Return whether the hook of `counting` ran at each of a sequence's tokens in a block, and at each once.

    Where vLLM has dropped a part of a sequence and run it again, more tokens were counted, and their streams are not in order. A last
    pass over one token is no such case: vLLM may begin with the next token before it notices that the sequence is done.
    """
    surplus = counts.get(str(block), 0) - n_tokens
    return surplus == 0 or (surplus == 1 and counts.get(f"latest {block}") == 1)
