"""A model's chat template: conversations as dictionaries to prompt text, and text to token ids.

The provider renders what it generates from with the functions here, and capture renders transcripts with the same functions, so
that activations are read in the context the model really saw.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from nla.support.errors import ModelError

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_TOOL_PROMPT = """You may call these functions:
{tools}
To call one, write a JSON object with its name and arguments inside tags, and nothing after it:
<tool_call>{{"name": NAME, "arguments": {{...}}}}</tool_call>"""


def require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise a `ModelError` if the tokenizer has no chat template (a base model)."""
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name} has no chat template, so it is probably a base model; use its instruction-tuned version, "
            "or a folder whose tokenizer_config.json has a chat_template."
        )


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], *, add_generation_prompt: bool
) -> str:
    """Prompt text of a conversation.

    Two things templates differ in are evened out: where a template takes no tools, they are described in the system message
    and calls are written as `<tool_call>` text; where it takes no system message (Gemma 2), it leads the first user message.

    Raises:
        ModelError: the template refuses the conversation.
    """
    messages = list(messages)
    template = str(tokenizer.chat_template)
    schemas: list[dict[str, Any]] | None = None
    if "tools" in template:
        schemas = [{"type": "function", "function": dict(tool)} for tool in tools] or None
    else:
        messages = _tools_as_text(messages, tools)
    try:
        return _apply(tokenizer, messages, schemas, add_generation_prompt)
    except TemplateError as ex:
        if messages and messages[0]["role"] == "system":
            return _apply(tokenizer, _without_system(messages), schemas, add_generation_prompt)
        raise ModelError(f"the chat template refuses this conversation: {ex}") from ex


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, add_generation_prompt: bool
) -> str:
    text = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False)  # type: ignore[arg-type]
    assert isinstance(text, str)
    return text


def _tools_as_text(messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text. Templates write every special token themselves, so none is added (no second BOS)."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def encode_content(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of untrusted text: what looks like a control token in it stays ordinary text."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


@functools.lru_cache(maxsize=16)
def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identifies a vocabulary: 12 hex digits of the sha256 of its tokens and ids."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:12]
