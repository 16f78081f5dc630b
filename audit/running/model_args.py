"""The model arguments under which an existing log is read: those it was generated with, so that steering or dtype are not forgotten."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from inspect_ai.log import EvalLog

from graders.record import read_records
from nla.inspect.provider import LocalArgs
from nla.support.display import visible
from nla.support.errors import ConfigError

_OF_THE_MACHINE = {"device", "batch", "threads", "device_map", "max_connections", "gpu_memory_utilization", "tensor_parallel_size"}
"""Arguments that say how a machine computes and not what: those of the log's machine are not taken over."""
_RUNS_CODE = "trust_remote_code"


def model_args_of(log: EvalLog, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for the `local/` model that reads a log.

    Args:
        log: the log.
        given: arguments that the user gave.

    Raises:
        ConfigError: the user's arguments contradict the log's, the log's cannot be applied by `local/`, or the log asks for code of the
            model to be run, which only the user may allow.
    """
    known = {field.name for field in fields(LocalArgs)}
    logged = {name: value for name, value in (log.eval.model_args or {}).items() if name not in _OF_THE_MACHINE and value is not None}
    logged |= {"dtype": dtype} if logged.get("dtype", "auto") == "auto" and (dtype := _dtype_used(log)) else {}
    differing = [
        f"{name} {_shown(logged[name])} -> {_shown(given[name])}" for name in given if name in logged and given[name] != logged[name]
    ]
    if differing:
        raise ConfigError(f"{log.location} was made with other model arguments ({', '.join(differing)}); leave them out.")
    if unknown := sorted(set(logged) - known):
        arguments = ", ".join(f"{name}={_shown(logged[name])}" for name in unknown)
        raise ConfigError(
            f"{log.location} was made with the model arguments {arguments}, which local/ does not know (it knows "
            f"{', '.join(sorted(known))}); score it where it was made."
        )
    if logged.get(_RUNS_CODE) and not given.get(_RUNS_CODE):
        raise ConfigError(
            f"{log.location} was made with {_RUNS_CODE}=true; give --model-args {_RUNS_CODE}=true to run the model's code here too."
        )
    return logged | dict(given)


def _dtype_used(log: EvalLog) -> str | None:
    """The dtype that `auto` stood for when the log was made, as its replies or scores record it."""
    for sample in log.samples or []:
        awareness = read_records(sample.scores).awareness
        recorded = (sample.output.metadata or {}).get("dtype") or (awareness.model.get("dtype") if awareness else None)
        if recorded:
            return str(recorded)
    return None


def _shown(value: Any) -> str:
    return visible(repr(value), limit=60)
