"""A thread that decodes for many callers: requests from any thread or event loop share one dynamic batch."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import anyio

from nla.engine.decoder import Completion, Decoder, Request
from nla.models.loaded import LoadedModel

_CPU_CACHE_BYTES = 2**30
_GPU_CACHE_SHARE = 0.4


class DecodeWorker:
    """Runs a `Decoder` in a daemon thread while there are requests. Without requests, the thread waits on a condition and does not poll."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._inbox: list[Request] = []
        self._callbacks: dict[int, Callable[[Completion | Exception], None]] = {}
        self._wake = threading.Condition()
        threading.Thread(target=self._loop, name="decode", daemon=True).start()

    async def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete requests in the same batch as those of other callers. Cancelling the caller removes its rows from the batch.

        Raises:
            Exception: whatever the forward pass raised, such as an out-of-memory error.
        """
        done = anyio.Event()
        results = self._submit(requests, _threadsafe(done.set))
        try:
            await done.wait()
        finally:
            for request in requests:
                request.cancelled = True
        return _all(results)

    def run(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete requests like `complete`, but block the calling thread until they are done.

        Raises:
            Exception: whatever the forward pass raised.
        """
        if not requests:
            return []
        done = threading.Event()
        results = self._submit(requests, done.set)
        done.wait()
        return _all(results)

    def _submit(self, requests: Sequence[Request], when_done: Callable[[], object]) -> dict[int, Completion | Exception]:
        """Queue requests and return their results by index, which are complete once the decoding thread has called `when_done`."""
        results: dict[int, Completion | Exception] = {}

        def keep(index: int, result: Completion | Exception) -> None:
            results[index] = result
            if len(results) == len(requests):
                when_done()

        with self._wake:
            for index, request in enumerate(requests):
                self._callbacks[id(request)] = partial(keep, index)
                self._inbox.append(request)
            self._wake.notify()
        return results

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._inbox and not self._decoder.busy:
                    self._wake.wait()
                arrived, self._inbox = self._inbox, []
            for request in arrived:
                self._decoder.add(request)
            try:
                finished = self._decoder.step()
            except Exception as ex:  # passed on to the callers; the thread has to continue for later requests
                for request in self._decoder.abandon():
                    self._callbacks.pop(id(request))(ex)
                continue
            for completion in finished:
                self._callbacks.pop(id(completion.request))(completion)


def _all(results: dict[int, Completion | Exception]) -> list[Completion]:
    """Return the completions in the order of their requests, or raise the first failure."""
    completions = []
    for index in range(len(results)):
        result = results[index]
        if isinstance(result, Exception):
            raise result
        completions.append(result)
    return completions


def _threadsafe(callback: Callable[[], object]) -> Callable[[], None]:
    """Return a function that any thread may call to run `callback` in the current event loop."""
    import sniffio  # imported here, because training machines, which decode in one thread, do not have it

    if sniffio.current_async_library() == "trio":
        import trio

        token = trio.lowlevel.current_trio_token()

        def soon() -> None:
            with suppress(trio.RunFinishedError):  # the event loop of the caller has ended
                token.run_sync_soon(callback)

        return soon
    loop = asyncio.get_running_loop()

    def call() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)

    return call


_workers: dict[tuple[int, int, tuple[str, str, str] | None], DecodeWorker] = {}
_starting = threading.Lock()


def worker_for(model: LoadedModel, max_rows: int) -> DecodeWorker:
    """Return the worker of a loaded model, which all provider instances with the same batch size share."""
    with _starting:
        # `steer` changes a model in place, and the steered model must not reuse keys and values that the unsteered model computed.
        steering = model.steering.identity if model.steering else None
        key = (id(model), max_rows, steering)
        if key not in _workers:
            _workers[key] = DecodeWorker(Decoder(model, max_rows=max_rows, max_positions=max_cached_positions(model)))
        return _workers[key]


def max_cached_positions(model: LoadedModel) -> int:
    """Return how many positions of keys and values fit into 1 GiB on a CPU, or into 40 % of the free memory on a GPU."""
    config = model.text_config
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_position = 2 * model.n_layers * kv_heads * d_head * model.precision.dtype.itemsize
    budget = float(_CPU_CACHE_BYTES)
    if model.device.type == "cuda":
        import torch

        budget = _GPU_CACHE_SHARE * torch.cuda.mem_get_info(model.device)[0]
    return max(int(budget // per_position), 1)
