"""The `local/` Inspect provider: an open-weights model in this process, batched continuously, with its token ids recorded.

    inspect eval tasks/mmlu.py --model local/smollm2 -M dtype=float32 -M batch=16 -M threads=2

Differences from Inspect's `hf/` that users may notice: temperature defaults to 1 and every draw is seeded by (seed, sample
id, epoch, prompt), so the same command gives the same answers; stop reasons, usage and log probabilities are exact.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from logging import getLogger
from typing import Any

import torch
from inspect_ai._util.logger import warn_once
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
    get_model,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from transformers import PreTrainedTokenizerBase

from nla.engine.decoder import Completion, Request, TokenLogprob
from nla.engine.sampling import SamplingParams
from nla.engine.scheduler import worker_for
from nla.inspect.read_with import BUILT_IN, VLLM, reading_view
from nla.inspect.views import parse_template_args, steered_view, templated_view
from nla.instrument import MEAN_NORM, STEER_UNITS
from nla.kernels.compute_thread import on_compute_thread
from nla.models.adapted import with_adapter
from nla.models.chat_template import require_chat_template, template_record, template_source
from nla.models.loaded import LoadedModel, load_model
from nla.support.display import visible
from nla.support.errors import ConfigError
from nla.transcripts.borders import contains_stop, decoded, tokens_within
from nla.transcripts.chat import assistant_message, refuse_unreadable
from nla.transcripts.origin import marked_by_name
from nla.transcripts.reply import record
from nla.transcripts.sent import SentConversation
from nla.transcripts.transcript import Context, context_of

logger = getLogger(__name__)

_DEFAULT_MAX_TOKENS = 2_048
_UNSUPPORTED = (
    *("best_of", "frequency_penalty", "presence_penalty", "logit_bias", "response_schema", "prompt_logprobs"),
    *("modalities", "extra_body", "fallback_models"),
)
"""Generation settings that would change the answers but that this provider does not implement: they are refused, not ignored."""
_OF_OTHERS = ("reasoning_effort", "reasoning_tokens", "reasoning_mode", "effort", "verbosity")
"""Settings for models of particular providers, which tasks give for every model: a warning says that they have no effect."""


@dataclass(frozen=True)
class LocalArgs:
    """Model arguments (`-M name=value`)."""

    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    """`auto` spreads the blocks over all GPUs, for a model that one cannot hold."""
    revision: str | None = None
    adapter: str | None = None
    """A LoRA for this base model, as peft saves it: a folder or hub id."""
    batch: int = 32
    """Rows decoded at once."""
    threads: int | None = None
    """Torch threads for this process; None leaves torch's choice."""
    steer: str | None = None
    """`NAME:STRENGTH`, see `nla.activations.steering.steered`; generation and every later reading of the transcript are under it."""
    steer_unit: str = MEAN_NORM
    """Unit of the strength: `mean_norm`, or `contrast` for logs of the first version (see `nla.activations.steering`)."""
    trust_remote_code: bool = False
    chat_template: str | None = None
    """A file with a chat template (Jinja) in place of the model's own, e.g. for a base model."""
    enable_thinking: bool | None = None
    """Argument of that name for the chat template (Qwen 3 and others); None does not give it."""
    read_with: str = BUILT_IN
    """The engine that reads transcripts: `built-in`, or `vllm` with options (`nla.inspect.read_with`)."""
    template_args: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments for the chat template, as a JSON object."""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> "LocalArgs":
        """Read `-M` arguments.

        Raises:
            ConfigError: unknown argument, or a value of the wrong type.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(
                f"Unknown model argument {visible(', '.join(unknown), limit=100)}; local/ knows {', '.join(known)}. "
                "Give arguments of the chat template in template_args."
            )
        for name in ("batch", "threads"):
            value = given.get(name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"Invalid -M {name}={visible(value, limit=60)}: expected an integer of at least 1.")
        if given.get("adapter") is not None and not (isinstance(given["adapter"], str) and given["adapter"].strip()):
            raise ConfigError(f"Invalid -M adapter={visible(given['adapter'], limit=60)}: expected a folder or a hub id.")
        if given.get("device_map") not in (None, "auto"):
            raise ConfigError(f"Invalid -M device_map={visible(given['device_map'], limit=60)}: expected auto, or -M device=NAME.")
        if not isinstance(given.get("read_with", BUILT_IN), str):
            raise ConfigError(f"Invalid -M read_with={visible(given['read_with'], limit=60)}: expected {BUILT_IN} or {VLLM}.")
        if given.get("steer_unit", MEAN_NORM) not in STEER_UNITS:
            raise ConfigError(f"Invalid -M steer_unit={visible(given['steer_unit'], limit=60)}: expected {' or '.join(STEER_UNITS)}.")
        for name in ("trust_remote_code", "enable_thinking"):
            value = given.get(name)
            if value is not None and not isinstance(value, bool):
                raise ConfigError(f"Invalid -M {name}={visible(value, limit=60)}: expected true or false.")
        return cls(**{**given, "template_args": parse_template_args(given.get("template_args"))})

    def load(self, name: str) -> LoadedModel:
        """Load the model that these arguments specify, on the compute thread."""

        def load() -> LoadedModel:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            model = load_model(
                name,
                dtype=self.dtype,
                device=self.device,
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
                spread=self.device_map is not None,
            )
            model = model if self.adapter is None else with_adapter(model, self.adapter)
            model = templated_view(model, self.chat_template, self.all_template_args())
            model = model if self.steer is None else steered_view(model, self.steer, self.steer_unit)
            return reading_view(model, self.read_with)

        return on_compute_thread(load)

    def all_template_args(self) -> dict[str, Any]:
        """Return the chat template's arguments, `enable_thinking` among them."""
        return dict(self.template_args) | ({} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking})


class LocalAPI(ModelAPI):
    """Inspect model provider `local/`: see the module's first lines and `LocalArgs`."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self.args = LocalArgs.parse(model_args)
        self.model = self.args.load(model_name)
        require_chat_template(self.tokenizer, model_name)
        # Inspect's cache key holds the base URL but no model arguments: what changes answers has to be in there.
        steer = f":{':'.join(self.model.steering.identity)}" if self.model.steering else ""
        changed = template_record(self.tokenizer)
        template = f":{json.dumps(changed, sort_keys=True)}" if changed else ""
        adapter = f":{self.model.adapter.digest}" if self.model.adapter else ""
        self.base_url = (
            f"local:{self.model.source.location}@{self.args.revision or ''}:{self.model.precision.name}{adapter}{steer}{template}"
        )
        self._calls: Counter[tuple[object, ...]] = Counter()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with the chat template in use."""
        return self.model.tokenizer

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Generate `num_choices` replies. A prompt that fills the context window gives an empty reply with `model_length`.

        Raises:
            ConfigError: a setting that this provider does not carry out.
            DataError: a message holds images or the like.
            ModelError: the chat template refuses the conversation.
        """
        offered = self._offered(tools, tool_choice)
        start = time.perf_counter()
        sample = sample_active()
        refuse_unreadable(input, sample.sample.id if sample is not None else None)
        clock = datetime.now()
        context = context_of(self.tokenizer, marked_by_name(input, self.model_name), offered, clock=clock)
        prompt = context.tokens.ids
        requests = self._requests(prompt, config)
        completions = await worker_for(self.model, self.args.batch).complete(requests)
        write = partial(self._choice, tools=offered, context=context, clock=clock, config=config)
        output_tokens = sum(len(completion.ids) for completion in completions)
        return ModelOutput(
            model=self.model_name,
            choices=[write(completion) for completion in completions],
            usage=ModelUsage(input_tokens=len(prompt), output_tokens=output_tokens, total_tokens=len(prompt) + output_tokens),
            input_context_tokens=len(prompt),
            time=time.perf_counter() - start,
            metadata=self.model.describe(),
        )

    def max_tokens(self) -> int | None:
        """Default limit on the tokens of a reply."""
        return _DEFAULT_MAX_TOKENS

    def max_connections(self) -> int:
        """Number of calls at once: as many as a batch has rows (further calls wait in the provider's own queue)."""
        return self.args.batch

    async def count_text_tokens(self, text: str) -> int:
        """Count the tokens of a text with the model's own tokenizer."""
        return len(await self.tokenize(text))

    async def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @staticmethod
    def _check_settings(config: GenerateConfig) -> None:
        if refused := [name for name in _UNSUPPORTED if getattr(config, name) is not None]:
            raise ConfigError(f"local/ does not support {', '.join(refused)}; leave it out, or use another provider.")
        if ignored := [name for name in _OF_OTHERS if getattr(config, name) is not None]:
            warn_once(logger, f"local/ ignores {', '.join(ignored)}; arguments of the chat template are given with -M template_args.")

    def _offered(self, tools: list[ToolInfo], tool_choice: ToolChoice) -> list[ToolInfo]:
        if tool_choice == "none":
            return []
        if tools and tool_choice != "auto":
            warn_once(logger, f"local/ cannot force a tool call (tool_choice={tool_choice}); the model chooses by itself.")
        return tools

    def _requests(self, prompt: list[int], config: GenerateConfig) -> list[Request]:
        self._check_settings(config)
        sampling = SamplingParams(
            temperature=1.0 if config.temperature is None else config.temperature,
            top_p=1.0 if config.top_p is None else config.top_p,
            top_k=config.top_k or 0,
        )
        key = self._draw_key(prompt, config.seed)
        return [
            Request(
                prompt_ids=prompt,
                max_tokens=_DEFAULT_MAX_TOKENS if config.max_tokens is None else config.max_tokens,
                sampling=sampling,
                seed=(*key, choice),
                stop_ids=self.model.stop_ids,
                should_stop=_stop_test(self.tokenizer, config.stop_seqs),
                top_logprobs=(config.top_logprobs or 0) if config.logprobs else None,
            )
            for choice in range(config.num_choices or 1)
        ]

    def _draw_key(self, prompt: list[int], seed: int | None) -> tuple[object, ...]:
        """Return what the draws of a call depend on: the sample and the prompt, never what else is being generated."""
        sample = sample_active()
        identity = (sample.sample.id, sample.epoch) if sample is not None else (None, 1)
        digest = hashlib.sha256(repr(prompt).encode()).hexdigest()
        attempt = (sample.id if sample is not None else None, digest)
        self._calls[attempt] += 1
        return (seed or 0, *identity, digest, self._calls[attempt])

    def _choice(
        self, completion: Completion, *, tools: list[ToolInfo], context: Context, clock: datetime, config: GenerateConfig
    ) -> ChatCompletionChoice:
        ids = completion.ids
        stopped_by_id = bool(ids) and completion.stop_reason == "stop" and ids[-1] in self.model.stop_ids
        kept = ids[:-1] if stopped_by_id else ids
        text = decoded(self.tokenizer, kept, skip_special=True)
        cut = min((at for at in (text.find(stop) for stop in config.stop_seqs or []) if at >= 0), default=None)
        if cut is not None:
            text, kept = text[:cut], kept[: tokens_within(self.tokenizer, kept, cut, skip_special=True)]
        message = assistant_message(text, tools, model=self.model_name, family=self._family(), opened=context.opened)
        prompt, written_time = context.tokens.ids, clock.isoformat() if context.dated else None
        sent = SentConversation.from_config(config)
        message.metadata = record(self.tokenizer, kept, len(prompt), tools, prompt=prompt, clock=written_time, message=message, sent=sent)
        reason: StopReason = "tool_calls" if message.tool_calls else _INSPECT_REASON[completion.stop_reason]
        logprobs = completion.logprobs
        return ChatCompletionChoice(
            message=message,
            stop_reason=reason,
            logprobs=Logprobs(content=[self._logprob(entry) for entry in logprobs]) if logprobs is not None else None,
        )

    def _family(self) -> str:
        """Name by which Inspect's handler chooses the calling convention: the model's, or one that means the form the prompt describes."""
        if "tools" not in template_source(self.tokenizer, tools=True):
            return "described in the prompt"
        return f"{self.model_family()} {self.model.network.config.model_type}"

    def _logprob(self, entry: TokenLogprob) -> Logprob:
        top = [TopLogprob(token=str(self.tokenizer.decode([token])), logprob=value) for token, value in entry.top]
        return Logprob(token=str(self.tokenizer.decode([entry.token])), logprob=entry.logprob, top_logprobs=top or None)


_INSPECT_REASON: dict[str, StopReason] = {
    "stop": "stop",
    "max_tokens": "max_tokens",
    "model_length": "model_length",
    "cancelled": "unknown",
}


def _stop_test(tokenizer: PreTrainedTokenizerBase, stops: list[str] | None) -> Callable[[list[int]], bool] | None:
    return partial(contains_stop, tokenizer, stops=stops) if stops else None


def local_model(name: str, model_args: dict[str, Any]) -> LoadedModel:
    """Return the model of a `local/` name, loaded as Inspect's runs load it (with its dtype, device, chat template and steering).

    Args:
        name: `local/NAME`, as given to `--model`.
        model_args: as given to `-M`.

    Raises:
        ConfigError: the name belongs to another provider.
        ModelError, FetchError: see `nla.models.loaded.load_model`.
    """
    api = get_model(name, **model_args).api
    if not isinstance(api, LocalAPI):
        raise ConfigError(f"{visible(name, limit=100)} is not a local/ model, so its weights cannot be read; expected local/NAME.")
    return api.model
