"""A vLLM server with vllm-lens as an engine (`nla.engine.hooked` says how vectors get in and out).

Requests carry hooks, which are code: whoever reaches the server's port can run programs on its machine. So start it with
`--host 127.0.0.1`.
"""

import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from nla.engine.hooked import Answer, HookedEngine, Question
from nla.engine.vllm_installed import require_client
from nla.support.display import visible
from nla.support.errors import ConfigError, EngineError, first_line

AT_ONCE = 64
"""Most requests that wait for an answer at the same time; the server forms its own batches from them."""
_KEY = "VLLM_API_KEY"
_LONGEST_WAIT = httpx.Timeout(3600.0, connect=10.0)
_SHOWN = 300
"""Most characters of a server's own text in a message of ours."""


class VLLMServer(HookedEngine):
    """A model that a vLLM server serves. The API key is taken from the environment variable VLLM_API_KEY, if it is set.

    Args:
        base_url: the server's address, such as `http://127.0.0.1:8000`.
        served: the name under which it serves the model; None takes the model whose name or folder is among `expected`, or, where
            `expected` is empty, the only model that it serves.
        expected: names and folders of the checkpoint; empty where any will do, because the caller compares the streams.

    Raises:
        ConfigError: vllm-lens is not installed here, the address is none, or the server serves another model.
        EngineError: no vLLM server answers there.
    """

    def __init__(self, base_url: str, *, served: str | None = None, expected: tuple[str, ...] = ()) -> None:
        super().__init__()
        require_client()
        self._url = address(base_url)
        key = os.environ.get(_KEY)
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=_LONGEST_WAIT, headers=headers, limits=limits)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vllm-server")
        self.model = self._choose(served, expected)
        """The name under which the server serves the model."""

    @property
    def longest(self) -> int:
        """See `HookedEngine`."""
        return self._longest

    def answers(self, questions: list[Question]) -> list[Answer]:
        """See `HookedEngine`. A server serves an adapter under a name of its own, so questions name none."""
        replies = list(self._threads.map(self._complete, questions))
        return [self._read(reply) for reply in replies]  # one by one: threads may not share the plugin's decoder

    def _complete(self, question: Question) -> dict[str, Any]:
        body = {"model": self.model, "prompt": question.row, "return_token_ids": True, **question.sampling}
        return self._ask("POST", "/v1/completions", body | {"vllm_xargs": _as_text(question.arguments)})

    def _read(self, reply: dict[str, Any]) -> Answer:
        from vllm_lens import decode_activations

        try:
            choice = reply["choices"][0]
            stream = decode_activations({"activations": reply.get("activations")}).get("residual_stream")
            return Answer([int(token) for token in choice["token_ids"]], choice.get("finish_reason"), stream, _counts(reply))
        except Exception as ex:  # the decoder and what it is built on raise many kinds
            raise EngineError(
                f"{self._url} gave a reply of another form than vLLM's ({visible(first_line(ex))}); check that "
                "base_url is a vLLM server of a version that fits (nla/engine/README.md)."
            ) from ex

    def _choose(self, served: str | None, expected: tuple[str, ...]) -> str:
        entries = self._ask("GET", "/v1/models", None).get("data")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise EngineError(f"{self._url}/v1/models gave a reply of another form than vLLM's; check that base_url is a vLLM server.")
        models = {str(entry.get("id")): str(entry.get("root")) for entry in entries}
        self._longest = max((int(entry["max_model_len"]) for entry in entries if entry.get("max_model_len")), default=sys.maxsize)
        listed = visible(", ".join(models) or "no model", limit=_SHOWN)
        if served is not None:
            if served not in models:
                raise ConfigError(
                    f"{self._url} serves {listed}, and not {visible(served, limit=100)}; give one of its names as served=NAME."
                )
            return served
        fitting = [name for name, root in models.items() if {name, root} & set(expected)] if expected else list(models)
        if len(fitting) != 1:
            known = visible(" or ".join(expected), limit=_SHOWN)
            wanted = f"Expected {known}. Start the server on that model" if expected else "Start the server on one model only"
            raise ConfigError(f"{self._url} serves {listed}. {wanted}, or name the right one with served=NAME.")
        return fitting[0]

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            reply = self._client.request(method, self._url + path, json=body)
            said = reply.json()
        except (httpx.HTTPError, ValueError) as ex:
            raise EngineError(
                f"No vLLM server answers at {self._url} ({visible(first_line(ex))}). Start one with `vllm serve MODEL --host 127.0.0.1 "
                "--no-enable-prefix-caching`, with vllm-lens in its environment (nla/engine/README.md)."
            ) from ex
        if reply.is_error or not isinstance(said, dict) or "error" in said:
            raise EngineError(
                f"{self._url}{path} answered with status {reply.status_code}: {visible(_message(said), limit=_SHOWN)} (See the server's "
                f"output. An API key is taken from {_KEY}.)"
            )
        return said


def address(base_url: str) -> str:
    """Return a server's address without `/v1` at its end.

    Raises:
        ConfigError: it is not an http or https address, or holds a password, which logs would record.
    """
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as ex:
        raise ConfigError(
            f"Invalid base_url {visible(base_url, limit=100)} ({ex}): expected an address such as http://127.0.0.1:8000."
        ) from ex
    if url.userinfo or url.query:
        raise ConfigError(f"Invalid base_url for {url.host}: logs record it, so it must hold no password; put the API key into {_KEY}.")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"Invalid base_url {visible(base_url, limit=100)}: expected an address such as http://127.0.0.1:8000.")
    return base_url.rstrip("/").removesuffix("/v1")


def _as_text(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments in the form that a server takes: numbers and texts as they are, everything else as JSON."""
    return {
        name: value if isinstance(value, str | int | float) else json.dumps(value, default=_dumped) for name, value in arguments.items()
    }


def _dumped(value: Any) -> Any:
    return value.model_dump()


def _counts(reply: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return what hooks counted: the integers among what they saved. Nothing else of it is decoded, because it may be pickled."""
    results = reply.get("hook_results") or {}
    return {hook: {name: n for name, n in saved.items() if isinstance(n, int)} for hook, saved in results.items()}


def _message(said: Any) -> str:
    error = said.get("error", said) if isinstance(said, dict) else said
    return first_line(Exception(str(error.get("message", error)) if isinstance(error, dict) else str(error)))


def location_names(*places: str | Path) -> tuple[str, ...]:
    """Return the names by which a server may know checkpoints: as given, and as absolute paths where they are folders."""
    folders = [Path(place) for place in places if Path(place).is_dir()]
    return tuple(dict.fromkeys([*map(str, places), *(str(folder.resolve()) for folder in folders)]))
