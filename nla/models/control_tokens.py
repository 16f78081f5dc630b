"""Encoding of text as token ids so that only the chat template's own text can become a control token.

A control token is any added token that structures a prompt: the special ones, and others such as `</think>` and `<tool_call>` of Qwen 3,
which tokenizers do not mark as special and therefore match even with `split_special_tokens`. Added tokens for ordinary text (white space,
HTML tags of Gemma) are not control tokens.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from nla.models.marks import Piece
from nla.support.display import visible
from nla.support.errors import DataError, ModelError

_HTML = re.compile(r"</?(table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code|p|ul|ol|li|br|hr|a)/?>")


@lru_cache(maxsize=16)
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the control tokens of a tokenizer and their ids (without the token for unknown words, which cannot forge a turn)."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    tokens = {str(token): number for number, token in added.items() if token.special or _is_structural(str(token))}
    tokens |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {token: number for token, number in tokens.items() if number != tokenizer.unk_token_id}


def _is_structural(token: str) -> bool:
    return bool(re.search(r"[<>\[\]{}|\uff5c]", token)) and _HTML.fullmatch(token) is None


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of trusted text, control tokens included. Templates write every special token themselves, so none is added here.

    Raises:
        DataError: the text holds half of a surrogate pair, which no tokenizer can encode.
    """
    try:
        return list(tokenizer.encode(text, add_special_tokens=False))
    except (TypeError, UnicodeError) as ex:
        raise _not_encodable(text, ex) from ex


def encode_content(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of untrusted text. Text that looks like a control token is encoded as ordinary text.

    For text without control tokens, the ids are the same as those of `encode`.

    Raises:
        DataError: the text holds half of a surrogate pair.
        ModelError: the tokenizer encodes plain text as a control token, and no way of encoding avoids it.
    """
    ids = encode(tokenizer, text)
    return ids if _is_harmless(tokenizer, ids) else _as_plain_text(tokenizer, text)


def _is_harmless(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    return set(control_tokens(tokenizer).values()).isdisjoint(ids)


def _as_plain_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode text without matching added tokens. If the vocabulary itself has a control token's text, the text is cut within it first."""
    if tokenizer.is_fast:
        ids = _without_added_tokens(tokenizer, text)
        if _is_harmless(tokenizer, ids):
            return ids
    longest_first = sorted(control_tokens(tokenizer), key=len, reverse=True)
    cuts = {match.start() + 1 for match in re.finditer("|".join(map(re.escape, longest_first)), text)}
    borders = [0, *sorted(cuts), len(text)]
    ids = [i for start, end in pairwise(borders) for i in encode(tokenizer, text[start:end])]
    if not _is_harmless(tokenizer, ids):
        raise ModelError(
            f"The tokenizer encodes plain text as a control token ({visible(text, limit=60)}), so this text could forge a turn; "
            "remove it from the conversation, or use another model."
        )
    return ids


def _without_added_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    backend: Any = tokenizer.backend_tokenizer
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    words = [text] if backend.pre_tokenizer is None else [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for word in words for token in backend.model.tokenize(word)]


@dataclass
class EncodedPieces:
    """Token ids `[pos]` of pieces, and for each token the index of the piece in which it starts."""

    ids: list[int] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)

    def extend(self, ids: Sequence[int], pieces: Sequence[int]) -> None:
        """Append tokens."""
        self.ids.extend(ids)
        self.pieces.extend(pieces)


def encode_pieces(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece], *, at_start: bool = True) -> EncodedPieces:
    """Encode the pieces of a prompt.

    Pieces are encoded as one text, so ordinary conversations get exactly the ids that `apply_chat_template(tokenize=True)` gives, even
    where a token crosses the border between two pieces. A control token that overlaps untrusted text was not written by the template. A
    piece with such a token is encoded separately, as plain text, and the pieces before and after it are encoded without it.

    Args:
        tokenizer: the model's tokenizer.
        pieces: the pieces of text, without kept replies.
        at_start: whether the prompt begins with these pieces (some tokenizers put a space before the first word of a text).

    Raises:
        DataError: a text holds half of a surrogate pair.
        ModelError: the tokenizer encodes plain text as a control token.
    """
    out = EncodedPieces()
    _extend(out, tokenizer, list(pieces), 0, at_start)
    return out


def _extend(out: EncodedPieces, tokenizer: PreTrainedTokenizerBase, pieces: list[Piece], first: int, at_start: bool) -> None:
    """Append the ids of pieces whose indexes begin at `first`."""
    if not any(piece.text for piece in pieces):
        return
    if tokenizer.is_fast:
        text = "".join(piece.text for piece in pieces)
        ids, spans = _joint(tokenizer, text, at_start)
        starts = [0, *accumulate(len(piece.text) for piece in pieces)][:-1]
        forged = _forged(tokenizer, text, ids, spans, pieces, starts)
        if not forged:
            out.extend(ids, [first + bisect_right(starts, min(start, len(text) - 1)) - 1 for start, _ in spans])
            return
    else:
        forged = set(range(len(pieces)))
    after = 0
    for index in [*sorted(forged), len(pieces)]:
        if index > after:
            _extend(out, tokenizer, pieces[after:index], first + after, at_start and after == 0)
        if index < len(pieces):
            encoder = encode_content if pieces[index].untrusted else encode
            ids = encoder(tokenizer, pieces[index].text) if at_start and index == 0 else _inside(tokenizer, pieces[index], encoder)
            out.extend(ids, [first + index] * len(ids))
        after = index + 1


def _forged(
    tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], spans: list[tuple[int, int]], pieces: list[Piece], starts: list[int]
) -> set[int]:
    """Return the indexes of untrusted pieces that a control token overlaps (white space that the token includes does not count)."""
    control = set(control_tokens(tokenizer).values())
    touched: set[int] = set()
    for token, (start, end) in zip(ids, spans, strict=True):
        if token not in control:
            continue
        written = text[start:end]
        first = start + len(written) - len(written.lstrip())
        last = max(first, end - 1 - len(written) + len(written.rstrip()))
        within = range(bisect_right(starts, first) - 1, bisect_right(starts, last))
        touched.update(index for index in within if pieces[index].untrusted)
    return touched


def _joint(tokenizer: PreTrainedTokenizerBase, text: str, at_start: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the token ids of a text and the character span of each token. Inside a prompt, no space is put before the first word."""
    if at_start or not _treats_starts_apart(tokenizer):
        return _with_spans(tokenizer, text)
    ids, spans = _with_spans(tokenizer, f"\n{text}")
    if any(start < 1 < end for start, end in spans):  # the line feed and the text after it share a token
        return _with_spans(tokenizer, text)
    kept = [(token, (start - 1, end - 1)) for token, (start, end) in zip(ids, spans, strict=True) if start >= 1]
    return [token for token, _ in kept], [span for _, span in kept]


def _with_spans(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    try:
        encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except (TypeError, UnicodeError) as ex:
        raise _not_encodable(text, ex) from ex
    return list(encoded["input_ids"]), [(start, end) for start, end in encoded["offset_mapping"]]


@lru_cache(maxsize=16)
def _treats_starts_apart(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the first word of a text is encoded differently from the same word later in a text (Llama 2, Mistral)."""
    return encode(tokenizer, "\na")[len(encode(tokenizer, "\n")) :] != encode(tokenizer, "a")


def _inside(tokenizer: PreTrainedTokenizerBase, piece: Piece, encoder: Any) -> list[int]:
    """Encode a piece that is not the beginning of its prompt."""
    if not _treats_starts_apart(tokenizer):
        return list(encoder(tokenizer, piece.text))
    before, ids = list(encoder(tokenizer, "\n")), list(encoder(tokenizer, f"\n{piece.text}"))
    return ids[len(before) :] if ids[: len(before)] == before else list(encoder(tokenizer, piece.text))


def _not_encodable(text: str, ex: Exception) -> DataError | ModelError:
    lone = next((character for character in text if "\ud800" <= character <= "\udfff"), None)
    if lone is None:
        return ModelError(f"The tokenizer cannot encode a text ({visible(text, limit=60)}): {visible(ex, limit=120)}.")
    return DataError(
        f"A text holds {visible(lone)}, half of a surrogate pair, which no tokenizer can encode; remove it from the conversation."
    )
