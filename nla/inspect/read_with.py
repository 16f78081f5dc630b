"""The engine that reads a model's transcripts: `-M read_with=vllm`, in place of the built-in one."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from nla.activations.engine_reader import EngineReader
from nla.engine.vllm_options import EngineOptions, Length
from nla.inspect.views import view_of
from nla.models.adapted import adapter_folder
from nla.models.loaded import LoadedModel
from nla.support.display import visible
from nla.support.errors import ConfigError
from nla.support.plugins import split_spec
from nla.verbalizers.av_vllm import checkpoint_of, rank_to_allow
from nla.verbalizers.base import read_options

BUILT_IN, VLLM = "built-in", "vllm"


class ReaderOptions(EngineOptions):
    """Options of `-M read_with=vllm:option=value`."""

    max_model_len: Length = -1
    """Longest transcript in tokens; -1 takes as many as fit into the memory, up to the model's context window."""


def reading_view(model: LoadedModel, spec: str) -> LoadedModel:
    """Return a view of a model whose transcripts another engine reads; the model itself for `built-in`.

    Args:
        model: the model, with its adapter and steering.
        spec: `built-in`, `vllm`, or `vllm:option=value` with fields of `ReaderOptions`.

    Raises:
        ConfigError: there is no such engine or option, vLLM is not installed, or it cannot run this model.
        ContractError, FetchError: the files of the model's adapter are not there any more.
    """
    name, typed = split_spec(spec)
    if name == BUILT_IN and not typed:
        return model
    if name != VLLM:
        raise ConfigError(f"Invalid -M read_with={visible(spec, limit=80)}: expected {BUILT_IN} or {VLLM}; only {VLLM} takes options.")
    chosen = read_options(ReaderOptions, typed)
    chosen.check(model.precision.name)
    checkpoint = checkpoint_of(model)
    # A server has the adapter under a name of its own.
    adapter = adapter_folder(model) if chosen.base_url is None else None
    reader = _reader(chosen, checkpoint, model, adapter)
    return view_of(model, f"read_with:{spec}", lambda: replace(model, reader=reader, unread=model))


_readers: dict[tuple[str, ...], EngineReader] = {}
"""One engine per checkpoint and options: steered views and adapters of a process share it where they can."""


def _reader(chosen: ReaderOptions, checkpoint: Path | str, model: LoadedModel, adapter: Path | None) -> EngineReader:
    source, dtype = model.source, model.precision.name
    key = (str(checkpoint), str(source.revision), dtype, str(adapter), chosen.model_dump_json())
    if key not in _readers:
        start = partial(
            chosen.start,
            checkpoint,
            dtype,
            on_cpu=model.device.type == "cpu",
            revision=source.revision,
            adapter_rank=rank_to_allow(adapter) if adapter else 0,
        )
        _readers[key] = EngineReader(f"vLLM at {chosen.base_url}" if chosen.base_url else "vLLM", start, adapter)
    return _readers[key]
