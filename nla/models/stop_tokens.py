"""The tokens that end a model's turn.

Model folders list these tokens in up to three places, and fine-tuned models often update only one of them. All places are used.
"""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import encode, render
from nla.support.errors import HarnessError, ModelError

_REPLY = "Certainly"
"""A reply that no template changes and whose word appears in no template."""


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_config: Any, config: Any) -> frozenset[int]:
    """Return every token id that ends a turn.

    The result is the union of `eos_token_id` in the generation config (a number or a list), the same field of the model's config where
    the generation config has no such field, the tokenizer's end-of-sequence token, and the chat template's end-of-turn token.

    Raises:
        ModelError: an `eos_token_id` is not a token id.
    """
    listed = _listed(generation_config)
    if not listed:  # a model for text and images may name it in its own config or in that of its language model
        listed = [*_listed(config), *(_listed(config.get_text_config()) if hasattr(config, "get_text_config") else ())]
    wrong = [value for value in listed if isinstance(value, bool) or not isinstance(value, int) or value < 0]
    if wrong:
        raise ModelError(
            f"eos_token_id holds {wrong[0]!r}; expected a token id or a list of token ids. Correct generation_config.json or config.json."
        )
    ids = [*listed, tokenizer.eos_token_id, *template_end_ids(tokenizer)]
    return frozenset(i for i in ids if i is not None)


def _listed(config: Any) -> list[Any]:
    named = getattr(config, "eos_token_id", None)
    values = named if isinstance(named, Iterable) and not isinstance(named, str) else [named]
    return [value for value in values if value is not None]


def template_end_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the id of the control token that the chat template writes directly after an assistant message.

    Only whitespace may come between the message and the token. The set is empty where the tokenizer has no template, where the template
    refuses a short conversation, or where it writes no control token there.
    """
    if not tokenizer.chat_template:
        return frozenset()
    conversation = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _REPLY}]
    try:
        text = render(tokenizer, conversation, [], add_generation_prompt=False)
    except HarnessError:
        return frozenset()
    _, reply, ending = text.rpartition(_REPLY)
    controls = tokenizer.added_tokens_decoder
    for token in encode(tokenizer, ending.lstrip()) if reply else ():
        if token in controls:
            return frozenset({token})
        if str(tokenizer.decode([token])).strip():
            break
    return frozenset()
