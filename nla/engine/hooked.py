"""What an engine on vLLM does, in this process or behind a server: read residual streams, and complete prompts with an injected vector.

Vectors get in and out by hooks of the plugin vllm-lens (UK AISI), which run inside vLLM's worker: an injected vector replaces the marker's
row in the input of block 0, so that no prompt embeddings are needed and adapters work. When a hook fails, the plugin only logs the error.
Every request therefore counts how often its hook ran, and a request whose hook did not run is an error. Requests of several threads run in
one batch. Layers are counted as in the rest of the project: layer K is the output of decoder block K, 0-based.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from nla.engine.decoder import Completion, Request, StopReason
from nla.engine.vllm_hooks import counting, ran_at_every_token, replacing
from nla.support.errors import ConfigError, EngineError
from nla.support.gathered import Gathered
from nla.support.seeds import seeded_generator

MOST_SEQUENCES = 128
"""Most sequences that are given to vLLM at once, unless one caller has more. For every sequence that runs, vllm-lens looks through the
hooks of all."""


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

    @property
    def counts(self) -> Mapping[str, int]:
        """What the request's one hook counted."""
        counts: Mapping[str, int] = self.hook_results.get("0", {})
        return counts


class HookedEngine(ABC):
    """A checkpoint in vLLM with vllm-lens. Threads may share it."""

    def __init__(self) -> None:
        self._gathered = Gathered(self.answers, MOST_SEQUENCES)

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens of the longest sequence that vLLM takes, the first one that it generates included."""

    @abstractmethod
    def answers(self, questions: list[Question]) -> list[Answer]:
        """Run sequences and return their answers, in their order.

        Raises:
            EngineError: vLLM failed.
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
            ConfigError: a sequence is longer than vLLM takes.
            EngineError: vLLM failed, the plugin returned no stream or too few positions, or a hook missed a token or saw one twice.
        """
        if (longest := max(map(len, rows), default=0)) >= self.longest:
            raise ConfigError(
                f"A sequence of {longest} tokens cannot be read in vLLM, which takes {self.longest - 1} here (max_model_len)."
            )
        steering = {block: vector for block, vector in (added or {}).items() if block <= layer}
        arguments = {"output_residual_stream": [layer], **_counting_hook(steering, layer)}
        questions = [Question(list(row), {"max_tokens": 1, "temperature": 0.0}, arguments, adapter) for row in rows]
        answers = self._gathered.run(questions)
        blocks = {*steering, layer}
        uncounted = sum(not _ran(answer, blocks, len(row)) for answer, row in zip(answers, rows, strict=True))
        if uncounted:
            raise _did_not_run("hook at every token", uncounted, len(rows))
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
            ConfigError: a request has additions or several injections.
            EngineError: vLLM failed, or a hook did not run.
        """
        questions = [_question(request, stop, dict(rules or {}), adapter) for request in requests]
        answers = self._gathered.run(questions)
        unhooked = sum(bool(r.injections) and not answer.counts.get("times") for r, answer in zip(requests, answers, strict=True))
        if unhooked:
            raise _did_not_run("replacement of the marker's row", unhooked, len(requests))
        return [_completion(request, answer) for request, answer in zip(requests, answers, strict=True)]


def _counting_hook(added: Mapping[int, Float[Tensor, " d_model"]], layer: int) -> dict[str, Any]:
    """Return the argument of vllm-lens that adds vectors to the outputs of blocks, and counts tokens there and after block `layer`."""
    from vllm_lens import Hook

    vectors = {block: vector.detach().cpu() for block, vector in added.items()}
    return {"apply_hooks": [Hook(fn=counting(vectors), layer_indices=sorted({*added, layer}))]}


def _ran(answer: Answer, blocks: Collection[int], n_tokens: int) -> bool:
    """Return whether the hook ran at every token, in every block that it is on."""
    return all(ran_at_every_token(answer.counts, block, n_tokens) for block in blocks)


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
        "min_p": 0.0,  # a server takes what is not given from the checkpoint's generation config, and vLLM here does not
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": int(seeded_generator("decode", *request.seed).integers(2**31)),
        "stop": list(stop),
        "stop_token_ids": sorted(request.stop_ids),
        "include_stop_str_in_output": True,
    }
    return Question(list(request.prompt_ids), sampling, arguments, adapter)


def _did_not_run(what: str, missing: int, n: int) -> EngineError:
    return EngineError(
        f"vllm-lens did not run its {what} for {missing} of {n} requests, so their results are not used. The first warning of "
        "vllm-lens in vLLM's output says why. If there is no warning, either vllm-lens is not installed where vLLM runs, or it did not "
        "find the model's blocks; name them there, as in VLLM_LENS_LAYER_PATH='model.layers.{i}'. Or vLLM ran short of memory and ran "
        "parts of a sequence twice; give it more."
    )


def _completion(request: Request, answer: Answer) -> Completion:
    reason: StopReason = "max_tokens" if answer.finish_reason == "length" else "stop"
    return Completion(request, answer.ids, reason, None, 0)
