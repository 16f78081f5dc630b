"""The transcripts as the page holds them: a short entry for each, and compressed blocks with conversations and sampled tokens."""

import base64
import gzip
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from audit.analysis.stored import StoredAudit
from audit.analysis.token_views import cosine

CHUNK = 50
"""Transcripts per compressed block; a block is unpacked when one of its transcripts is opened or searched."""
LONGEST = 4_000
"""Characters of an explanation that the page shows; a longer one is cut, with a note of its length."""
LONGEST_CONTEXT = 12_000
"""Characters of a turn that the model did not write."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"


def data_block(content: Any) -> str:
    """JSON that can neither end the script element that contains it nor be read as markup.

    Raises:
        ValueError: a number is not finite, which JSON cannot express.
    """
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def transcript_data(audit: StoredAudit) -> tuple[list[dict[str, Any]], list[str]]:
    """One short entry per transcript, and compressed blocks of `{turns, tokens}` in the same order."""
    explained = _by_transcript(audit.explanations)
    spoken = _by_transcript(audit.conversations)
    index: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for row in audit.transcripts.to_dict("records"):
        number = row["transcript"]
        conversation = spoken[number][0] if number in spoken else {}
        turns = _turns(conversation.get("turns"))
        tokens = _tokens(explained.get(number, []), _json_list(conversation.get("probed")), turns)
        details.append({"turns": [_shortened(turn) for turn in turns], "tokens": _columns(tokens)})
        index.append(_entry(row, tokens))
    return index, [_packed(details[start : start + CHUNK]) for start in range(0, len(details), CHUNK)]


def _columns(tokens: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The tokens as one list per key, which compress better than one dictionary per token."""
    return {key: [token[key] for token in tokens] for key in (tokens[0] if tokens else ())}


def _by_transcript(table: pd.DataFrame) -> dict[Any, list[dict[Hashable, Any]]]:
    groups: dict[Any, list[dict[Hashable, Any]]] = {}
    for row in table.to_dict("records"):
        groups.setdefault(row["transcript"], []).append(row)
    return groups


def _entry(row: Mapping[Hashable, Any], tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    z_scores = [token["z"] for token in tokens if token["z"] is not None]
    return {
        "task": _text(row["task"]),
        "condition": _text(row["condition"]),
        "id": _text(row["sample_id"]),
        "epoch": _whole(row["epoch"]) or 1,
        "flag": _whole(row["internal"]),
        "says": _whole(row.get("verbalized")),
        "yes": _whole(row.get("n_yes")) or 0,
        "k": len(tokens),
        "z": max(z_scores, default=None),
        "log": _text(row["log"]),
    }


def _turns(stored: Any) -> list[dict[str, Any]]:
    return [turn for turn in _json_list(stored) if isinstance(turn, dict)]


def _json_list(stored: Any) -> list[Any]:
    """A list from a table's JSON column; empty for a missing or damaged one, because a page must still show the rest."""
    try:
        content = json.loads(stored) if isinstance(stored, str) else []
    except (ValueError, RecursionError):
        return []
    return content if isinstance(content, list) else []


def _shortened(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn as the page shows it; long texts that the model did not write lose their end."""
    text = _text(turn.get("text"))
    if turn.get("role") == "assistant" or len(text) <= LONGEST_CONTEXT:
        return dict(turn)
    return dict(turn) | {"text": text[:LONGEST_CONTEXT], "cut": (_whole(turn.get("cut")) or 0) + len(text) - LONGEST_CONTEXT}


def _tokens(
    explained: Sequence[Mapping[Hashable, Any]], probed: Sequence[Sequence[Any]], turns: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The sampled tokens in reading order, with what each measure found at them."""
    tokens: dict[tuple[int, int], dict[str, Any]] = {}
    for row in explained:
        place = _place(row.get("token"), row.get("message"), row.get("channel"), row.get("start"), row.get("position"), turns)
        tokens[place["message"], place["position"]] = place | _explanation(row)
    for entry in probed:
        token, message, channel, start, position, z, projections = entry
        place = _place(token, message, channel, start, position, turns)
        known = tokens.setdefault((place["message"], place["position"]), place)
        known |= {"z": _number(z), "probes": {_text(name): _rounded(value) for name, value in projections.items()}}
    return sorted(tokens.values(), key=lambda token: (token["message"], token["position"]))


def _place(token: Any, message: Any, channel: Any, start: Any, position: Any, turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where a token is. Its start and length are counted in UTF-16 units, as a browser counts."""
    number = _whole(message)
    where = -1 if number is None else number
    piece, begin = _text(token), _whole(start)
    part = "thinking" if channel == "thinking" else "text"
    text = _text(turns[where].get(part)) if 0 <= where < len(turns) else ""
    length = max(len(piece.strip(_BROKEN)), 1)
    at = None if begin is None or begin >= len(text) else _units(text[:begin])
    return {
        "token": piece,
        "message": where,
        "position": _whole(position) or 0,
        "part": part,
        "at": at,
        "length": 0 if at is None or begin is None else _units(text[begin : begin + length]),
        "text": None,
        "verdict": "",
        "evidence": "",
        "reason": "",
        "cosine": None,
        "z": None,
        "probes": {},
    }


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def _explanation(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    text = _text(row.get("explanation"))
    distance = _number(row.get("mse_nrm"))
    return {
        "text": text if len(text) <= LONGEST else f"{text[:LONGEST]} … (cut: {len(text):,} characters)",
        "verdict": row["verdict"] if row["verdict"] in ("YES", "NO", "UNCLEAR") else "unscored",
        "evidence": _text(row.get("evidence")),
        "reason": _text(row.get("reason")) or _text(row.get("rule")),
        "cosine": None if distance is None else round(cosine(distance), 3),
    }


def _number(value: Any) -> float | None:
    """A finite number, or None for anything else; a table may hold missing values, and a log may hold anything."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _rounded(value: Any) -> float | None:
    """A projection as the page needs it; the log has all its digits."""
    number = _number(value)
    return None if number is None else round(number, 4)


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _text(value: Any) -> str:
    """A text, empty for a missing value."""
    if isinstance(value, str):
        return value
    return "" if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) else str(value)


def _packed(content: Any) -> str:
    return base64.b64encode(gzip.compress(json.dumps(content, allow_nan=False, separators=(",", ":")).encode(), mtime=0)).decode()
