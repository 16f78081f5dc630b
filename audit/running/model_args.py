"""Model arguments for scoring an existing log: those with which the log was generated, including its steering and dtype."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from inspect_ai.log import EvalLog

from graders.record import read_records
from nla.inspect.provider import LocalArgs
from nla.inspect.weights import unit_recorded
from nla.instrument import CONTRAST, MEAN_NORM
from nla.support.display import visible
from nla.support.errors import ConfigError

_NOT_COPIED = {"device", "batch", "batch_size", "threads", "device_map", "max_connections", "hidden_states", "do_sample"}
_NOT_COPIED |= {
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "max_model_len",
    "max_num_seqs",
    "enforce_eager",
    "host",
    "port",
    "read_with",
}
"""Arguments of `local/`, `hf/` and `vllm/` that are not copied from a log: they are about the machine, or about how replies were chosen,
and the replies that are read were chosen already."""
_RUNS_CODE = "trust_remote_code"


def model_args_of(log: EvalLog, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for the `local/` model that scores a log.

    Args:
        log: the log.
        given: the user's arguments, which are added to those in the log.

    Raises:
        ConfigError: the user's arguments contradict those in the log, `local/` does not support an argument in the log, the log was made
            with code that comes with the model, which only the user may allow to run, or no reply records the unit of its steering.
    """
    known = {field.name for field in fields(LocalArgs)}
    logged = {name: value for name, value in (log.eval.model_args or {}).items() if name not in _NOT_COPIED and value is not None}
    logged |= {"dtype": dtype} if logged.get("dtype", "auto") == "auto" and (dtype := _dtype_used(log)) else {}
    logged |= _unit_of(log, logged, given)
    differing = [
        f"{name} {_shown(logged[name])} -> {_shown(given[name])}" for name in given if name in logged and given[name] != logged[name]
    ]
    if differing:
        raise ConfigError(f"{log.location} was made with other model arguments ({', '.join(differing)}); leave them out.")
    if unknown := sorted(set(logged) - known):
        arguments = ", ".join(f"{name}={_shown(logged[name])}" for name in unknown)
        raise ConfigError(
            f"{log.location} was made with the model arguments {arguments}, which local/ does not support (it supports "
            f"{', '.join(sorted(known))}); score it with the provider that made it."
        )
    if logged.get(_RUNS_CODE) and not given.get(_RUNS_CODE):
        raise ConfigError(
            f"{log.location} was made with {_RUNS_CODE}=true; give --model-args {_RUNS_CODE}=true to run the model's code here too."
        )
    return logged | dict(given)


def _unit_of(log: EvalLog, logged: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Return the unit in which a log was steered as a model argument, unless its own arguments name one; empty without steering."""
    if not logged.get("steer") or "steer_unit" in logged:
        return {}
    for sample in log.samples or []:
        awareness = read_records(sample.scores).awareness
        for recorded in (sample.output.metadata or {}, awareness.model if awareness else {}):
            if unit := unit_recorded(recorded):
                return {"steer_unit": unit}
            if "steer" in recorded:  # a strength of 0
                return {}
    if given.get("steer_unit"):
        return {}
    raise ConfigError(
        f"{log.location} was steered by {_shown(logged['steer'])}, and no reply records the unit of the strength; give it with "
        f"--model-args steer_unit={MEAN_NORM}, or steer_unit={CONTRAST} if the first version made the log."
    )


def _dtype_used(log: EvalLog) -> str | None:
    """Return the dtype that `auto` selected when the log was made, as the log's replies or scores record it."""
    for sample in log.samples or []:
        awareness = read_records(sample.scores).awareness
        recorded = (sample.output.metadata or {}).get("dtype") or (awareness.model.get("dtype") if awareness else None)
        if recorded:
            return str(recorded)
    return None


def _shown(value: Any) -> str:
    return visible(repr(value), limit=60)
