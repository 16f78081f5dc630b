"""The decoding engine: one dynamic batch whose rows join, advance by one token per step, and leave.

The `local/` provider, the verbalizers and reinforcement learning use it. It is fast because

1. rows keep their own lengths (`nla.kernels.kv_cache`, `nla.kernels.attention`), so decoding needs no padding and finished rows cost
   nothing;
2. a new prompt starts from the longest prefix that it shares with a recent prompt;
3. the tokens that all rows begin with (the trunk) are stored once, and attention to them is one product;
4. a step over many rows reads the weights once.
"""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from nla.engine.additions import Addition, adding
from nla.engine.prefixes import MIN_SHARED_PREFIX, PrefixStore, shared_length
from nla.engine.sampling import SamplingParams, choose_tokens
from nla.kernels.attention import RaggedStep, ragged_step
from nla.kernels.kv_cache import KVCache, Prefix, cache_argument
from nla.kernels.padding import right_padded
from nla.models.loaded import LoadedModel
from nla.support.seeds import seeded_generator

StopReason = Literal["stop", "max_tokens", "model_length", "cancelled"]

_MIN_TRUNK_ROWS = 4
"""With fewer rows, a trunk does not save time."""
_MAX_PADDING = 1.3
"""Prompts run together as long as padding them to one length multiplies the tokens by at most this factor."""


@dataclass(frozen=True)
class TokenLogprob:
    """Log probability of a chosen token and of the likeliest tokens (natural logarithm, at temperature 1)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Request:
    """A prompt to continue.

    `injections` are pairs of a prompt position and a vector `[d_model]` that replaces the embedding there, after any embedding scale of
    the model; `additions` are vectors that are added after a block. `seed` is the key of the row's random draws. `should_stop` is called
    with the generated ids after each token and ends the row by returning True. `banned` is called with them before each token and returns
    the ids that may not come next. `cancelled` may be set from any thread.
    """

    prompt_ids: list[int]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: tuple[object, ...] = ()
    injections: tuple[tuple[int, Float[Tensor, " d_model"]], ...] = ()
    additions: tuple[Addition, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    should_stop: Callable[[list[int]], bool] | None = None
    banned: Callable[[list[int]], Collection[int]] | None = None
    top_logprobs: int | None = None
    cancelled: bool = False

    @cached_property
    def id_array(self) -> NDArray[np.int64]:
        """The prompt's token ids as an array, for fast comparison."""
        return np.asarray(self.prompt_ids, dtype=np.int64)

    @property
    def shareable(self) -> int:
        """Number of leading positions that another request with the same ids could reuse."""
        changed = [*(position for position, _ in self.injections), *(addition.position for addition in self.additions)]
        return min(changed, default=len(self.prompt_ids))

    @property
    def reusable(self) -> int:
        """Number of leading positions that may come from another request. The last prompt token always runs, for its logits."""
        return min(self.shareable, len(self.prompt_ids) - 1)


@dataclass(frozen=True)
class Completion:
    """The result of a request. `ids` include the stop token that ended it, if there was one."""

    request: Request
    ids: list[int]
    stop_reason: StopReason
    logprobs: list[TokenLogprob] | None
    reused_prefix: int


@dataclass(eq=False)
class _Row:
    request: Request
    draws: np.random.Generator
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reused: int = 0

    @property
    def length(self) -> int:
        """Number of positions whose keys and values are stored; the newest token is not yet among them."""
        return len(self.request.prompt_ids) + max(len(self.ids) - 1, 0)


class Decoder:
    """A dynamic batch over one model. It is not thread-safe: a single thread adds requests and steps; others may only set `cancelled`.

    Args:
        model: the model, which is used through `LoadedModel.run`.
        max_rows: number of rows decoded at once.
        max_positions: limit on the number of rows times the longest row (without the trunk), which limits the memory of keys and values.
        prefill_tokens: number of prompt tokens run between two decoding steps while rows are decoding.
    """

    def __init__(self, model: LoadedModel, *, max_rows: int = 32, max_positions: int = 65_536, prefill_tokens: int = 1_024) -> None:
        self.model = model
        self.max_rows = max_rows
        self.max_positions = max_positions
        self.prefill_tokens = prefill_tokens
        self._waiting: deque[Request] = deque()
        self._rows: list[_Row] = []
        self._finished: list[Completion] = []
        self._cache = KVCache()
        self._prefixes = PrefixStore()
        config = model.text_config
        windowed = getattr(config, "sliding_window", None) or getattr(config, "attn_logit_softcapping", None)
        self._switch = model.rope_switch
        self._may_have_trunk = not windowed and self._switch is None

    def add(self, request: Request) -> None:
        """Queue a request; it joins the batch at a later `step`."""
        self._waiting.append(request)

    @property
    def busy(self) -> bool:
        """Whether a call of `step` would do anything."""
        return bool(self._waiting or self._rows or self._finished)

    def run(self, requests: Sequence[Request], on_done: Callable[[Completion], None] = lambda _: None) -> list[Completion]:
        """Complete all requests and return the results in the order of the requests. `on_done` gets each one as it ends."""
        done: dict[int, Completion] = {}
        for request in requests:
            self.add(request)
        while self.busy:
            for completion in self.step():
                done[id(completion.request)] = completion
                on_done(completion)
        return [done[id(request)] for request in requests]

    def step(self) -> list[Completion]:
        """Let waiting requests join, advance all rows by one token, and return the rows that ended."""
        self.model.run(self._step)
        finished, self._finished = self._finished, []
        return finished

    @torch.inference_mode()
    def _step(self) -> None:
        self._drop_cancelled()
        budget = self.prefill_tokens
        while self._waiting and (budget > 0 or not self._rows) and self._fits([self._waiting[0]]):
            budget -= self._join(max(budget, 1))
        if self._rows:
            self._advance()
        if not self._rows:
            self._cache.clear()

    def abandon(self) -> list[Request]:
        """Drop everything after a failed step and return the requests that will not be completed."""
        lost = [*self._waiting, *(row.request for row in self._rows), *(done.request for done in self._finished)]
        self._waiting.clear()
        self._rows.clear()
        self._finished.clear()
        self._cache.clear()
        return lost

    def _fits(self, requests: list[Request]) -> bool:
        if not self._rows and len(requests) == 1:
            return True
        longest = max(len(r.prompt_ids) + r.max_tokens for r in (*requests, *(row.request for row in self._rows)))
        rows = len(self._rows) + len(requests)
        # Once a row does not begin with the trunk, every row has to store it.
        shared = self._cache.trunk_length if self._on_trunk(requests[0]) else 0
        stored = min(longest, self.model.max_positions) - shared
        return rows <= self.max_rows and rows * stored <= self.max_positions

    def _drop_cancelled(self) -> None:
        for request in [r for r in self._waiting if r.cancelled]:
            self._waiting.remove(request)
            self._finished.append(Completion(request, [], "cancelled", None, 0))
        for index in reversed([i for i, row in enumerate(self._rows) if row.request.cancelled]):
            self._leave(index, "cancelled")

    def _join(self, budget: int) -> int:
        """Run the prompts of the next waiting requests into the next slots and return the number of prompt tokens run."""
        first = self._waiting[0]
        if len(first.prompt_ids) >= self.model.max_positions or first.max_tokens <= 0:
            reason: StopReason = "max_tokens" if first.max_tokens <= 0 else "model_length"
            self._finished.append(Completion(self._waiting.popleft(), [], reason, None, 0))
            return 0
        if not self._rows:
            self._plant_trunk()
        elif not self._on_trunk(first):
            self._cache.fold_trunk()
        group, start, prefixes = self._next_group(budget)
        slot = len(self._rows)
        self._cache.expected_slots = min(self.max_rows, slot + len(self._waiting))
        for offset, prefix in enumerate(prefixes):
            if prefix is not None:
                self._cache.write_prefix(slot + offset, prefix, start)
        logits = self._forward_prompts(group, slot, start)
        joined = [_Row(request, seeded_generator("decode", *request.seed), reused=start) for request in group]
        for row in joined:
            self._waiting.popleft()
            self._rows.append(row)
            ids = row.request.id_array[: row.request.shareable]
            if len(ids) >= MIN_SHARED_PREFIX:
                self._keep_prefix(ids, len(self._rows) - 1, self._beyond_switch(row.request))
        self._choose(joined, logits)
        return sum(len(request.prompt_ids) - start for request in group)

    def _plant_trunk(self) -> None:
        """Run the common beginning of all waiting requests once for all rows, if there are enough of them."""
        self._cache.clear()
        waiting = list(itertools.islice(self._waiting, self.max_rows))
        first = waiting[0]
        shared = min(shared_length(first.id_array, request.id_array, min(first.reusable, request.reusable)) for request in waiting)
        if not self._may_have_trunk or len(waiting) < _MIN_TRUNK_ROWS or shared < MIN_SHARED_PREFIX:
            return
        start, prefix = self._longest_prefix(first)
        if prefix is None or start < shared:
            if prefix is not None:
                self._cache.write_prefix(0, prefix, start)
            ids = torch.tensor([first.prompt_ids[start:shared]], device=self.model.device)
            self._forward(slice(0, 1), torch.arange(start, shared, device=self.model.device)[None], [shared], 1, input_ids=ids)
            prefix = self._keep_prefix(first.id_array[:shared], 0, False)
            self._cache.clear()
        self._cache.trunk = prefix.first(shared)

    def _on_trunk(self, request: Request) -> bool:
        trunk = self._cache.trunk
        return trunk is None or shared_length(trunk.ids, request.id_array, request.reusable) == trunk.length

    def _next_group(self, budget: int) -> tuple[list[Request], int, list[Prefix | None]]:
        """Return the waiting requests to run in one pass, the length of the prefix they reuse, and the stored prefix of each.

        Requests are grouped as long as they start at the same position and need little padding. If a request shares more tokens with the
        first request of the group than with any stored prefix, it waits for the next pass, where it can reuse the first one's prompt.
        """
        first = self._waiting[0]
        start, prefix = self._longest_prefix(first)
        group, prefixes = [first], [prefix]
        for request in itertools.islice(self._waiting, 1, None):
            same_start, prefix = self._longest_prefix(request)
            lengths = [len(r.prompt_ids) - start for r in (*group, request)]
            padded = max(lengths) * len(lengths)
            would_share = shared_length(first.id_array, request.id_array, min(first.shareable, request.shareable))
            reuse_later = (
                would_share >= max(start + 1, MIN_SHARED_PREFIX) and would_share < len(request.prompt_ids) and start < first.shareable
            )
            valid = len(request.prompt_ids) < self.model.max_positions and request.max_tokens > 0 and self._on_trunk(request)
            if not valid or same_start != start or reuse_later or padded > budget or padded > _MAX_PADDING * sum(lengths):
                break
            if not self._fits([*group, request]):
                break
            group.append(request)
            prefixes.append(prefix)
        return group, start, prefixes

    def _forward_prompts(self, group: list[Request], slot: int, start: int) -> Float[Tensor, "row vocab"]:
        device = self.model.device
        lengths = [len(request.prompt_ids) - start for request in group]
        # Keys and values of the padding are overwritten by later tokens.
        embeds = self._embed([request.prompt_ids[start:] for request in group], group, start)
        positions = torch.arange(start, start + max(lengths), device=device).expand(len(group), -1)
        last, row_of = torch.tensor(lengths, device=device).sub(1).unique(return_inverse=True)
        whole = [len(request.prompt_ids) for request in group]
        with adding(self.model, [request.additions for request in group], start):
            logits = self._forward(slice(slot, slot + len(group)), positions, whole, last, inputs_embeds=embeds)
        return logits[torch.arange(len(group), device=device), row_of]

    def _embed(self, ids: list[list[int]], requests: list[Request], start: int) -> Float[Tensor, "row pos d_model"]:
        """Return the embeddings of right-padded rows whose first token is at position `start`, with the requests' vectors injected."""
        embeds: Tensor = self.model.embedding(right_padded(ids).to(self.model.device))
        for i, request in enumerate(requests):
            for position, vector in request.injections:
                embeds[i, position - start] = vector.to(embeds)
        return embeds

    def _beyond_switch(self, request: Request) -> bool:
        """Return whether a prompt is computed with longrope's frequencies for long sequences."""
        return self._switch is not None and len(request.prompt_ids) > self._switch

    def _recompute(self, slot: int) -> None:
        """Compute a row's keys and values again with longrope's frequencies for long sequences, as transformers does for Phi-3."""
        row = self._rows[slot]
        embeds = self._embed([[*row.request.prompt_ids, *row.ids[:-1]]], [row.request], 0)
        positions = torch.arange(row.length, device=self.model.device)[None]
        with adding(self.model, [row.request.additions], 0):
            self._forward(slice(slot, slot + 1), positions, [row.length + 1], 1, inputs_embeds=embeds)

    def _advance(self) -> None:
        running = [row for row in self._rows if row.length < self.model.max_positions]
        for index in reversed([i for i, row in enumerate(self._rows) if row not in running]):
            self._leave(index, "model_length")
        if self._rows:
            device = self.model.device
            if self.model.architecture.restarts_at_switch:
                for slot in [slot for slot, row in enumerate(self._rows) if row.length == self._switch]:
                    self._recompute(slot)
            ids = torch.tensor([[row.ids[-1]] for row in self._rows], device=device)
            positions = torch.tensor([[row.length] for row in self._rows], device=device)
            logits = self._forward(slice(0, len(self._rows)), positions, [row.length + 1 for row in self._rows], 1, input_ids=ids)
            self._choose(self._rows, logits[:, -1])

    def _forward(
        self,
        slots: slice,
        positions: Int[Tensor, "row q"],
        lengths: list[int],
        keep: int | Tensor,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Float[Tensor, "row kept vocab"]:
        n_keys = int(positions[:, -1].max()) + 1
        self._cache.target(slots, positions, n_keys)
        with ragged_step(RaggedStep(positions, n_keys, torch.tensor(lengths, device=positions.device), self._cache.trunk)):
            out = self.model.network(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=keep,
                **cache_argument(self.model.network, self._cache),
            )
        logits: Tensor = out.logits
        return logits

    def _choose(self, rows: list[_Row], logits: Float[Tensor, "row vocab"]) -> None:
        uniforms = [float(row.draws.random()) for row in rows]
        _ban(rows, logits)
        tokens = choose_tokens(logits, [row.request.sampling for row in rows], uniforms)
        for i, (row, token) in enumerate(zip(list(rows), tokens, strict=True)):
            row.ids.append(token)
            if row.request.top_logprobs is not None:
                row.logprobs.append(_token_logprob(logits[i], token, row.request.top_logprobs))
        for row in [row for row in rows if self._ended(row)]:
            self._leave(self._rows.index(row), "max_tokens" if not self._stopped(row) else "stop")

    def _ended(self, row: _Row) -> bool:
        return len(row.ids) >= row.request.max_tokens or self._stopped(row)

    def _stopped(self, row: _Row) -> bool:
        stop = row.request.should_stop
        return row.ids[-1] in row.request.stop_ids or (stop is not None and stop(row.ids))

    def _leave(self, index: int, reason: StopReason) -> None:
        row = self._rows[index]
        last = self._rows.pop()
        if last is not row:
            self._rows[index] = last
            self._cache.move(len(self._rows), index, last.length)
        logprobs = row.logprobs if row.request.top_logprobs is not None else None
        self._finished.append(Completion(row.request, row.ids, reason, logprobs, row.reused))

    def _longest_prefix(self, request: Request) -> tuple[int, Prefix | None]:
        return self._prefixes.longest(request.id_array, request.reusable, self._beyond_switch(request), self._cache.trunk)

    def _keep_prefix(self, ids: NDArray[np.int64], slot: int, beyond_switch: bool) -> Prefix:
        """Copy the keys and values of a row's first tokens, and store the copy for later rows while there is room."""
        return self._prefixes.keep(ids, beyond_switch, lambda: self._cache.read_prefix(slot, ids))


def _ban(rows: Sequence[_Row], logits: Float[Tensor, "row vocab"]) -> None:
    """Set the logits of the tokens that may not come next to minus infinity, in place."""
    pairs = [(i, token) for i, row in enumerate(rows) if row.request.banned is not None for token in row.request.banned(row.ids)]
    if pairs:
        where, tokens = torch.tensor(pairs, device=logits.device).T
        logits[where, tokens] = -torch.inf


def _token_logprob(logits: Float[Tensor, " vocab"], token: int, top: int) -> TokenLogprob:
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(top) if top else None
    likeliest = tuple((int(i), float(v)) for v, i in zip(best.values, best.indices, strict=True)) if best else ()
    return TokenLogprob(token, float(logprobs[token]), likeliest)
