"""A model's chat template, which turns a conversation (messages as dictionaries) into the text and the token ids of a prompt.

The provider writes its prompts with these functions, and capture writes transcripts with the same functions, so that activations are
read in the context that the model saw. Message texts, tool results, arguments and descriptions of tools are untrusted. The template sees
marks in place of them (`nla.models.marks`), and they are encoded so that they cannot become control tokens (`nla.models.control_tokens`).
"""

import copy
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from nla.models.control_tokens import control_tokens, encode, encode_content, encode_pieces
from nla.models.marks import DroppedTextError, Marks, Piece
from nla.models.template_sandbox import Rendered, TemplateRefusedError, render_template
from nla.support.display import visible
from nla.support.errors import DataError, HarnessError, ModelError

__all__ = ["THINK_CLOSE", "THINK_OPEN", "Prompt", "compose", "encode", "encode_content", "prompt_ids", "render", "with_template"]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_TOOL_PROMPT = """You may call these functions:
{tools}
To call one, write a JSON object with its name and arguments inside tags, and nothing after it:
<tool_call>{{"name": NAME, "arguments": {{...}}}}</tool_call>"""
_NOT_LETTERS = str.maketrans(dict.fromkeys("<>[]{}|\uff5c", "x"))
_KEYWORDS = frozenset({"type", "format", "$ref"})
"""Keys of a JSON schema whose values templates compare with fixed words, such as `string`."""
_TEMPLATE_RECORD = "harness_template_record"
REFERENCE_TIME = datetime(2024, 7, 26)
"""The time for templates that write the date, where no time of generation is known: with today's date, what is measured would depend on
the day. It is the date that Llama 3's own template falls back on."""
_DEEPEST = 64
"""Largest depth of nesting in a tool call's arguments."""
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A conversation as the chat template has written it."""

    pieces: tuple[Piece, ...]
    dated: bool
    """Whether the template asked for the current time."""
    unstable: bool
    """Whether the text differs between runs for another reason, so that the same prompt cannot be written again."""

    @property
    def text(self) -> str:
        """The whole text, without kept replies."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def opens_thinking(self) -> bool:
        """Whether the prompt ends inside a thinking block that the template opened."""
        last = self.pieces[-1] if self.pieces else Piece("")
        return not last.untrusted and last.text.rstrip().endswith(THINK_OPEN)


def require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise a `ModelError` if the tokenizer has no chat template (a base model)."""
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name} has no chat template, so it is probably a base model. Use its instruction-tuned version, or give a template with "
            "-M chat_template=FILE."
        )


def with_template(tokenizer: PreTrainedTokenizerBase, template: str | None, arguments: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Return a copy of a tokenizer with another chat template (None: its present one) and arguments for it (such as `enable_thinking`)."""
    view = copy.copy(tokenizer)
    if template is not None:
        view.chat_template = template
    digest = {} if template is None else {"chat_template": hashlib.sha256(template.encode()).hexdigest()[:16]}
    setattr(view, _TEMPLATE_RECORD, digest | ({"template_args": dict(arguments)} if arguments else {}))
    return view


def template_record(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what logs record about the changes of `with_template`: a digest of the new template, and its arguments. Empty if unchanged."""
    record: dict[str, Any] = getattr(tokenizer, _TEMPLATE_RECORD, {})
    return record


def _arguments_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    arguments: dict[str, Any] = template_record(tokenizer).get("template_args", {})
    return arguments


def template_source(tokenizer: PreTrainedTokenizerBase, *, tools: bool = False) -> str:
    """Return the source of the chat template. Where a tokenizer has several, choose by whether the conversation has tools.

    Raises:
        ModelError: there is no template, or there are several without a default.
    """
    try:
        return str(tokenizer.get_chat_template(None, [{}] if tools else None))
    except ValueError as ex:
        raise ModelError(
            "The tokenizer has no chat template for this conversation; "
            "give one with -M chat_template=FILE, or use an instruction-tuned model."
        ) from ex


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Return the prompt text of a conversation. For token ids use `prompt_ids`, because message texts could contain control tokens.

    Raises:
        ModelError: the template refuses the conversation, or changes its texts.
    """
    return compose(tokenizer, messages, tools, add_generation_prompt=add_generation_prompt).text


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    add_generation_prompt: bool = True,
) -> list[int]:
    """Return the token ids of a conversation. No text in the conversation can forge a control token.

    Raises:
        DataError: a text cannot be encoded.
        ModelError: the template refuses the conversation, or changes its texts.
    """
    return encode_pieces(tokenizer, compose(tokenizer, messages, tools, add_generation_prompt=add_generation_prompt).pieces).ids


def compose(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    add_generation_prompt: bool = True,
    kept: Collection[int] = (),
    clock: datetime | None = None,
) -> Prompt:
    """Write a conversation with the chat template, and keep the template's own text separate from untrusted text.

    Two differences between templates are compensated for. If a template does not support tools, they are described in the system message,
    and tool calls are written as `<tool_call>` text. If it does not support or drops the system message, the text of the system message is
    put before the first user message.

    The template must write each message's text once: unchanged, stripped, or as JSON. It may omit thinking, and the text that accompanies
    a tool call. If a text contains control tokens, the template may treat it differently from a mark (Qwen 3 looks for `</think>` in
    texts). The prompt is then the one that the template writes with marks.

    Args:
        tokenizer: the model's tokenizer.
        messages: dictionaries with `role`, `content` and optionally `reasoning_content`, `name`, `tool_calls` and `tool_call_id`.
        tools: JSON descriptions of the tools that the model may call.
        add_generation_prompt: whether the prompt ends with the text that opens the model's reply.
        kept: indexes of the replies whose original token ids are inserted instead of their text.
        clock: the time for templates that write the date; None means `REFERENCE_TIME`.

    Raises:
        ModelError: the template refuses the conversation, or drops, repeats or changes a text.
    """
    job = _Job(tokenizer, list(tools), frozenset(kept), add_generation_prompt, clock or REFERENCE_TIME)
    messages = _with_plain_ids(messages)
    prompt = job.compose(messages)
    if prompt.text in job.plain(messages):
        return prompt
    tame = [{**message, "content": _tame(tokenizer, message["content"])} for message in messages]
    expected, written = job.compose(tame).text, job.plain(tame)
    if expected not in written:
        raise _altered(expected, written)
    return prompt


@dataclass(frozen=True)
class _Job:
    """The inputs that all renderings of a conversation share."""

    tokenizer: PreTrainedTokenizerBase
    tools: list[Mapping[str, Any]]
    kept: frozenset[int]
    add_generation_prompt: bool
    clock: datetime

    def compose(self, messages: Sequence[Message]) -> Prompt:
        marks = self._marks(messages)
        shown = [
            _marked(message, index, marks, marks.reply(index) if index in self.kept else marks.content(message["content"], index))
            for index, message in enumerate(messages)
        ]
        required = {i: str(m["role"]) for i, m in enumerate(messages) if i in self.kept or not m.get("tool_calls")}
        first, *merged = self._attempts(shown, marks)
        try:
            rendered, pieces = self._written(first, marks, required)
        except (TemplateRefusedError, DroppedTextError) as ex:
            dropped_other = isinstance(ex, DroppedTextError) and ex.owner != 0
            if dropped_other or not merged:
                raise
            rendered, pieces = self._written(merged[0], marks, required)
        return Prompt(tuple(pieces), rendered.dated, rendered.unstable)

    def plain(self, messages: Sequence[Message]) -> list[str]:
        """Return what the template writes without marks: once with the system message, and once with it merged into the next message."""
        marks = self._marks(messages)
        shown = [
            _marked(message, index, marks, marks.reply(index) if index in self.kept else message["content"])
            for index, message in enumerate(messages)
        ]
        texts = []
        for attempt in self._attempts(shown, marks):
            with suppress(ModelError):
                texts.append("".join(piece.text for piece in self._written(attempt, marks, {})[1]))
        return texts

    def _marks(self, messages: Sequence[Message]) -> Marks:
        return Marks(repr((messages, self.tools, self.tokenizer.chat_template, _arguments_of(self.tokenizer))))

    def _attempts(self, shown: list[dict[str, Any]], marks: Marks) -> list[dict[str, Any]]:
        """Return the template's inputs to try: unchanged, and (if there is a system message) with it merged into the next message."""
        tools = [_marked_schema(tool, marks) for tool in self.tools]
        takes_tools = "tools" in self.source
        messages = shown if takes_tools else _tools_as_text(shown, tools)
        schemas = [{"type": "function", "function": tool} for tool in tools] if takes_tools and tools else None
        fixed = {**self.tokenizer.special_tokens_map, **_arguments_of(self.tokenizer), "tools": schemas, "documents": None}
        fixed["add_generation_prompt"] = self.add_generation_prompt
        has_system = bool(messages) and messages[0]["role"] == "system"
        return [fixed | {"messages": variant} for variant in ([messages, _without_system(messages)] if has_system else [messages])]

    def _written(self, variables: dict[str, Any], marks: Marks, required: Mapping[int, str]) -> tuple[Rendered, list[Piece]]:
        rendered = render_template(self.source, variables, self.clock)
        return rendered, marks.pieces(rendered.text, required)

    @property
    def source(self) -> str:
        """The chat template."""
        return template_source(self.tokenizer, tools=bool(self.tools))


def _with_plain_ids(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with the ids of tool calls replaced by numbered ones of nine characters, which Mistral's templates require.

    Call ids are untrusted text, and those that Inspect creates are random. With numbered ids, a conversation always gives the same prompt.
    """
    numbers: dict[object, str] = {}

    def numbered(identity: object) -> str:
        return numbers.setdefault(identity, f"call{len(numbers) + 1:05d}")

    out: list[Message] = []
    for message in messages:
        entry = dict(message)
        if calls := message.get("tool_calls"):
            entry["tool_calls"] = [{**call, "id": numbered(call["id"])} if "id" in call else call for call in calls]
        if message.get("tool_call_id") is not None:
            entry["tool_call_id"] = numbered(message["tool_call_id"])
        out.append(entry)
    return out


def _marked(message: Message, index: int, marks: Marks, content: str) -> dict[str, Any]:
    """Return a message as the template sees it: with this `content`, and with marks in place of its other texts."""
    shown: dict[str, Any] = {"role": message["role"], "content": content}
    if thinking := message.get("reasoning_content"):
        shown["reasoning_content"] = shown["thinking"] = marks.value(thinking, index)
    if message.get("name") is not None:
        shown["name"] = marks.value(str(message["name"]), index)
    if message.get("tool_call_id") is not None:
        shown["tool_call_id"] = message["tool_call_id"]
    if calls := message.get("tool_calls"):
        shown["tool_calls"] = [
            {
                **{key: call[key] for key in ("type", "id") if key in call},
                "function": {
                    "name": marks.value(call["function"]["name"], index),
                    "arguments": _marked_values(call["function"]["arguments"], index, marks),
                },
            }
            for call in calls
        ]
    return shown


def _marked_values(value: Any, owner: int | None, marks: Marks, depth: int = 0) -> Any:
    """Return a call's arguments with marks in place of all strings. Marks of keys sort like the keys, because some templates sort them."""
    if depth > _DEEPEST:
        raise DataError(f"A tool call's arguments are nested more than {_DEEPEST} levels deep; leave that call out of the conversation.")
    if isinstance(value, str):
        return marks.value(value, owner)
    if isinstance(value, Mapping):
        keys = {str(key): marks.value(str(key), owner) for key in sorted(value, key=str)}
        return {keys[str(key)]: _marked_values(item, owner, marks, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked_values(item, owner, marks, depth + 1) for item in value]
    return value


def _marked_schema(tool: Mapping[str, Any], marks: Marks) -> dict[str, Any]:
    """Return a tool's description with marks in place of all its author's texts. The keywords of JSON Schema are not replaced."""

    def marked(value: Any, key: str = "", names: bool = False) -> Any:
        if isinstance(value, str):
            return value if key in _KEYWORDS and value.translate(_NOT_LETTERS) == value else marks.value(value, None)
        if isinstance(value, Mapping):
            is_map_of_names = key in ("properties", "$defs", "patternProperties") and not names
            return {
                marks.value(name, None) if is_map_of_names or name.translate(_NOT_LETTERS) != name else name: marked(
                    item, "" if is_map_of_names else name, is_map_of_names
                )
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [marked(item, key) for item in value]
        return value

    shown: dict[str, Any] = marked(tool)
    return shown


def _tools_as_text(messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for message in messages:
        calls = message.get("tool_calls") or []
        texts = ["<tool_call>" + json.dumps({k: c["function"][k] for k in ("name", "arguments")}) + "</tool_call>" for c in calls]
        plain = {k: v for k, v in message.items() if k != "tool_calls"}
        out.append(plain | {"content": "\n".join(filter(None, [plain["content"], *texts]))})
    if not tools:
        return out
    described = _TOOL_PROMPT.format(tools="\n".join(json.dumps(tool) for tool in tools))
    if out and out[0]["role"] == "system":
        return [out[0] | {"content": f"{out[0]['content']}\n\n{described}"}, *out[1:]]
    return [{"role": "system", "content": described}, *out]


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system, *rest = messages
    if not rest:
        return [{"role": "user", "content": system["content"]}]
    return [rest[0] | {"content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def _tame(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return a text in which letters replace control tokens and the brackets that templates look for."""
    for token in sorted(control_tokens(tokenizer), key=len, reverse=True):
        text = text.replace(token, "x" * len(token))
    return text.translate(_NOT_LETTERS)


def _altered(expected: str, texts: list[str]) -> HarnessError:
    if not texts:
        return ModelError("The chat template refuses the texts of this conversation. Give another template with -M chat_template=FILE.")
    written = texts[0]
    at = next((i for i, (a, b) in enumerate(zip(expected, written, strict=False)) if a != b), min(len(expected), len(written)))
    wanted, actual = (visible(text[max(at - 10, 0) : at + 30]) for text in (expected, written))
    return ModelError(
        f"The chat template changes a message's text: expected '{wanted}', found '{actual}'. Each text must be written unchanged, "
        "stripped, or as JSON. Give another template with -M chat_template=FILE."
    )


@lru_cache(maxsize=16)
def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return an identifier of a vocabulary: the first 12 hex digits of the sha256 of its tokens and ids."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:12]
