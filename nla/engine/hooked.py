"""What an engine on vLLM does, in this process or behind a server: read residual streams, and complete prompts with an injected vector.

Vectors get in and out by hooks of the plugin vllm-lens (UK AISI), which run inside vLLM's worker: an injected vector replaces the marker's
row in the input of block 0, so that no prompt embeddings are needed and adapters work. When a hook fails, the plugin only logs the error.
Every request therefore counts how often its hook ran, and a request whose hook did not run is an error. Requests of several threads run in
one batch. Layers are counted as in the rest of the project: layer K is the output of decoder block K, 0-based.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, no_type_check

from jaxtyping import Float
from torch import Tensor

from nla.engine.decoder import Completion, Request, StopReason
from nla.support.errors import ConfigError
from nla.support.gathered import Gathered
from nla.support.seeds import seeded_generator

BlockHook: TypeAlias = Callable[..., Any]
"""Takes vllm-lens's context and hidden states `[pos, d_model]`; returns the hidden states to go on with, or None for no change."""
MOST_SEQUENCES = 1024
"""Most sequences that are given to vLLM at once, unless one caller has more; vLLM forms its own batches from them."""


@dataclass(frozen=True)
class Question:
    """One sequence for vLLM to run."""

    row: list[int]
    """Token ids, including any BOS token."""
    sampling: dict[str, Any]
    """Fields of vLLM's `SamplingParams`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of vllm-lens and of logits processors."""
    adapter: Path | None = None
    """Folder of the adapter that the sequence runs under."""


@dataclass(frozen=True)
class Answer:
    """What vLLM returned for a `Question`."""

    ids: list[int]
    finish_reason: str | None
    stream: Float[Tensor, "1 pos d_model"] | None = None
    """The residual stream after the block that was asked for, in the model's dtype; None where the plugin returned none."""
    hook_results: Mapping[str, Any] = field(default_factory=dict)
    """What each hook saved, by its number."""


class HookedEngine(ABC):
    """A checkpoint in vLLM with vllm-lens. Threads may share it."""

    def __init__(self) -> None:
        self._gathered = Gathered(self.answers, MOST_SEQUENCES)

    @abstractmethod
    def answers(self, questions: list[Question]) -> list[Answer]:
        """Run sequences and return their answers, in their order.

        Raises:
            ConfigError: vLLM failed.
        """

    def read(
        self,
        rows: Sequence[Sequence[int]],
        layer: int,
        *,
        adapter: Path | None = None,
        added: Mapping[int, Float[Tensor, " d_model"]] | None = None,
    ) -> list[Float[Tensor, "_pos d_model"]]:
        """Return the residual stream after block `layer` at every token of each sequence (float32, on the CPU).

        Args:
            rows: token ids, including any BOS token.
            layer: the layer K.
            adapter: folder of an adapter that the sequences run under.
            added: vectors that are added to the output of some blocks at every token, by block (steering).

        Raises:
            ConfigError: vLLM failed, the plugin returned no stream or too few positions, or the steering hook missed a token.
        """
        steering = {block: vector for block, vector in (added or {}).items() if block <= layer}
        arguments = {"output_residual_stream": [layer], **_hooks(steering)}
        questions = [Question(list(row), {"max_tokens": 1, "temperature": 0.0}, arguments, adapter) for row in rows]
        answers = self._gathered.run(questions)
        unsteered = sum(not _steered(answer, steering, len(row)) for answer, row in zip(answers, rows, strict=True))
        if unsteered:
            raise _did_not_run("steering", unsteered, len(rows))
        streams = [answer.stream for answer in answers]
        complete = [stream for stream, row in zip(streams, rows, strict=True) if stream is not None and stream.shape[1] >= len(row)]
        if len(complete) < len(rows):
            raise _did_not_run("capture", len(rows) - len(complete), len(rows))
        return [stream[0, : len(row)].float().cpu() for stream, row in zip(complete, rows, strict=True)]

    def run(
        self,
        requests: Sequence[Request],
        *,
        stop: Sequence[str] = (),
        rules: Mapping[str, object] | None = None,
        adapter: Path | None = None,
    ) -> list[Completion]:
        """Complete requests with at most one injected vector each, as `Decoder.run` does.

        Draws depend on a request's seed, but come from vLLM's generator, so they differ from those of the built-in engine.

        Args:
            requests: what to complete. An injected vector replaces the embedding at its position as it is, so the caller applies the
                injection scale. The callbacks `should_stop` and `banned` are ignored: give `stop` and `rules` instead.
            stop: texts that end a reply; the reply includes the one that ended it.
            rules: arguments of the engine's logits processors, in place of `banned`.
            adapter: folder of the adapter that the requests run under.

        Raises:
            ConfigError: vLLM failed, a hook did not run, or a request has additions or several injections.
        """
        questions = [_question(request, stop, dict(rules or {}), adapter) for request in requests]
        answers = self._gathered.run(questions)
        unhooked = sum(bool(r.injections) and not _times_run(answer) for r, answer in zip(requests, answers, strict=True))
        if unhooked:
            raise _did_not_run("replacement of the marker's row", unhooked, len(requests))
        return [_completion(request, answer) for request, answer in zip(requests, answers, strict=True)]


def _hooks(added: Mapping[int, Float[Tensor, " d_model"]]) -> dict[str, Any]:
    """Return the argument of vllm-lens that adds vectors to the outputs of blocks; an empty dictionary if there are none."""
    if not added:
        return {}
    from vllm_lens import Hook

    return {"apply_hooks": [Hook(fn=adding({b: v.detach().cpu() for b, v in added.items()}), layer_indices=sorted(added))]}


def adding(vectors: Mapping[int, Float[Tensor, " d_model"]]) -> BlockHook:
    """Return a hook on the outputs of blocks that adds each block's vector at every token, and counts the tokens."""

    @no_type_check  # a hook is pickled, which a function that checks its arguments does not allow
    def add(context: Any, hidden: Tensor) -> Tensor:
        block = str(context.layer_idx)
        context.saved[block] = context.saved.get(block, 0) + len(hidden)
        return hidden + vectors[context.layer_idx].to(hidden)

    hook: BlockHook = add
    return hook


def _steered(answer: Answer, added: Mapping[int, Tensor], n_tokens: int) -> bool:
    """Return whether the hook ran at every token, in every block that it adds a vector to."""
    counts = answer.hook_results.get("0", {})
    return all(counts.get(str(block), 0) >= n_tokens for block in added)


def _question(request: Request, stop: Sequence[str], arguments: dict[str, Any], adapter: Path | None) -> Question:
    from vllm_lens import Hook

    if request.additions or len(request.injections) > 1:
        raise ConfigError(
            "The vLLM engine injects one vector per prompt, in place of an embedding. This request has several, or adds one after a block; "
            "use the built-in engine (verbalizer=av)."
        )
    for position, vector in request.injections:
        replace = replacing(position, vector.detach().cpu(), len(request.prompt_ids))
        arguments["apply_hooks"] = [Hook(fn=replace, layer_indices=[0], pre=True)]
    chosen = request.sampling
    sampling = {
        "max_tokens": request.max_tokens,
        "temperature": chosen.temperature,
        "top_p": chosen.top_p,
        "top_k": chosen.top_k,
        "seed": int(seeded_generator("decode", *request.seed).integers(2**31)),
        "stop": list(stop),
        "stop_token_ids": sorted(request.stop_ids),
        "include_stop_str_in_output": True,
    }
    return Question(list(request.prompt_ids), sampling, arguments, adapter)


def replacing(position: int, row: Float[Tensor, " d_model"], n_prompt: int) -> BlockHook:
    """Return a hook on the input of block 0 that replaces the row at one position of the prompt, and counts how often it did.

    vLLM may run a prompt in several pieces, and may drop a request's cache to free memory and run it again from the start. After the
    whole prompt, a piece of several tokens is therefore taken for such a new start.
    """

    @no_type_check  # see `adding`
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

    hook: BlockHook = replace
    return hook


def _times_run(answer: Answer) -> int:
    """Return how often a request's hook replaced its row."""
    return int(answer.hook_results.get("0", {}).get("times", 0))


def _did_not_run(what: str, missing: int, n: int) -> ConfigError:
    return ConfigError(
        f"vllm-lens did not run its {what} for {missing} of {n} requests, so their results are not used. The first warning of "
        "vllm-lens in vLLM's output says why. If there is no warning, either vllm-lens is not installed where vLLM runs, or it did not "
        "find the model's blocks; name them there, as in VLLM_LENS_LAYER_PATH='model.layers.{i}'."
    )


def _completion(request: Request, answer: Answer) -> Completion:
    reason: StopReason = "max_tokens" if answer.finish_reason == "length" else "stop"
    return Completion(request, answer.ids, reason, None, 0)
