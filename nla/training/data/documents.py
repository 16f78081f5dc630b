"""Documents to read activations from: rows of parquet, JSONL or text files as token sequences with the positions that may be read."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator
from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import encode, encode_content, render
from nla.support.errors import DataError
from nla.support.paths import user_path
from nla.support.seeds import seeded_generator
from nla.training.data.situations import SYSTEM_PROMPTS, chat_situation

Kind = Literal["text", "conversation", "prompt"]
TEXT_COLUMNS = ("text", "content", "instruction", "prompt", "question")
ID_COLUMNS = ("doc_id", "id", "uuid")
MIN_POSITION = 50
"""In plain text, earlier positions are not read: too little stands before them to be explained."""


class Corpus(BaseModel):
    """One file of documents.

    `kind`: `text` is read as it is, `conversation` (column `messages`) through the chat template, `prompt` is a user's message
    which the model itself answers. `situation` names what kind of text it is, or maps the values of the column
    `situation_column` to names; a document whose value is not in the map is left out. `system_prompts` puts one of a set of
    system prompts before part of the prompts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    kind: Kind = "text"
    text_column: str | None = None
    id_column: str | None = None
    situation: str | dict[str, str] | None = None
    situation_column: str | None = None
    system_prompts: bool = False
    windows: int = Field(default=2, ge=1)
    """Stretches of a long text that are read, at most."""
    limit: int | None = Field(default=None, ge=1)
    """Documents that are taken at most. They come in a seeded order, so a higher limit later only adds to them."""

    @model_validator(mode="after")
    def _map_has_column(self) -> "Corpus":
        if isinstance(self.situation, dict) and self.situation_column is None:
            raise ValueError("a map of situations needs `situation_column`")
        return self


@dataclass(frozen=True)
class Document:
    """A row of a corpus."""

    doc_id: str
    kind: Kind
    text: str
    messages: tuple[dict[str, str], ...] = ()
    situation: str = ""

    @property
    def whole_text(self) -> str:
        """All its text, of a conversation too."""
        return self.text or " ".join(message["content"] for message in self.messages)


@dataclass(frozen=True)
class Passage:
    """A token sequence and the positions in it that may be read (those of the model's or assistant's reply, in a chat)."""

    doc_id: str
    window: int
    ids: list[int]
    positions: list[int]
    situation: str
    asked: str = ""
    """In a chat, what was said before the reply."""
    reply_from: int = 0
    """In a chat, the first token of the reply."""
    needs_reply: bool = False


def read_documents(corpus: Corpus, base: Path | None = None) -> list[Document]:
    """The documents of a corpus, in a seeded order. Ids are made unique by the file's stem.

    Args:
        corpus: what to read.
        base: folder that relative paths start from; None takes the user's working directory.

    Raises:
        DataError: the file is missing, unreadable, or has no such column.
    """
    path = user_path(corpus.path) if base is None or Path(corpus.path).is_absolute() else (base / corpus.path).resolve()
    frame = _read(path)
    text_column = "messages" if corpus.kind == "conversation" else _column(frame, corpus.text_column, TEXT_COLUMNS, path)
    if text_column not in frame:
        raise DataError(f"{path} has no column 'messages' (found: {', '.join(frame.columns)}); a conversation corpus needs it.")
    known = [name for name in ID_COLUMNS if name in frame]
    id_column = corpus.id_column or (known[0] if known else None)
    if id_column is not None and id_column not in frame:
        raise DataError(f"{path} has no column '{id_column}' (found: {', '.join(frame.columns)}).")
    documents = []
    for row, record in enumerate(frame.to_dict("records")):
        situation = _situation(corpus, {str(key): value for key, value in record.items()}, path)
        if situation is None:
            continue
        name = str(record[id_column]) if id_column else str(row)
        found = record[text_column]
        if corpus.kind == "conversation":
            documents.append(Document(f"{path.stem}/{name}", corpus.kind, "", tuple(_messages(found, path, row)), situation))
        elif isinstance(found, str) and found.strip():
            documents.append(Document(f"{path.stem}/{name}", corpus.kind, found, (), situation))
    if not documents:
        raise DataError(f"{path} holds no document (column '{text_column}').")
    order = seeded_generator("documents", path.name).permutation(len(documents))
    return [documents[i] for i in order[: corpus.limit]]


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix in (".jsonl", ".ndjson"):
            return pd.read_json(path, lines=True, dtype=False)
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.suffix in (".txt", ".md"):
            return pd.DataFrame({"text": [path.read_text(encoding="utf-8")], "doc_id": [path.stem]})
    except (OSError, ValueError, UnicodeDecodeError) as ex:
        raise DataError(f"{path} cannot be read: {str(ex).splitlines()[0]}") from ex
    raise DataError(f"{path} is none of .parquet, .jsonl, .csv, .txt, .md; give one of these.")


def _column(frame: pd.DataFrame, asked: str | None, usual: Sequence[str], path: Path) -> str:
    found = next((name for name in ([asked] if asked else usual) if name in frame), None)
    if found is None:
        raise DataError(f"{path} has no column {asked or ' or '.join(usual)} (found: {', '.join(frame.columns)}).")
    return found


def _situation(corpus: Corpus, record: dict[str, Any], path: Path) -> str | None:
    if not isinstance(corpus.situation, dict):
        return corpus.situation or ""
    if corpus.situation_column not in record:
        raise DataError(f"{path} has no column '{corpus.situation_column}' for the map of situations.")
    return corpus.situation.get(str(record[str(corpus.situation_column)]))


def _messages(found: Any, path: Path, row: int) -> list[dict[str, str]]:
    try:
        turns = json.loads(found) if isinstance(found, str) else list(found)
        return [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns]
    except (ValueError, TypeError, KeyError) as ex:
        raise DataError(f"{path}, row {row}: `messages` must be a list of role and content ({ex!r}).") from ex


def passages(document: Document, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Passage]:
    """The token sequences of a document, at most `length` tokens each.

    A text gives up to `windows` stretches at seeded places; a conversation one, up to the end of a seeded assistant turn that
    fits; a prompt one that ends where the model's own reply begins (`needs_reply`).
    """
    if document.kind == "text":
        yield from _text_passages(document, corpus.windows, tokenizer, length)
    elif document.kind == "conversation":
        yield from _conversation_passage(document, tokenizer, length)
    else:
        yield from _prompt_passage(document, corpus, tokenizer, length)


def _text_passages(document: Document, windows: int, tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Passage]:
    ids = encode_content(tokenizer, document.text[:60_000])
    n_slots = max(len(ids) // length, 1)
    draws = seeded_generator("windows", document.doc_id)
    for window, slot in enumerate(np.sort(draws.choice(n_slots, size=min(windows, n_slots), replace=False))):
        piece = ids[slot * length : (slot + 1) * length]
        if len(piece) > MIN_POSITION:
            yield Passage(document.doc_id, window, piece, list(range(MIN_POSITION, len(piece))), document.situation)


def _conversation_passage(document: Document, tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Passage]:
    fitting = []
    for turn, message in enumerate(document.messages):
        if message["role"] == "assistant" and turn > 0 and message["content"].strip():
            prompt = encode(tokenizer, render(tokenizer, document.messages[:turn], [], add_generation_prompt=True))
            if len(prompt) + 20 < length:
                fitting.append((turn, prompt))
    if fitting:
        turn, prompt = fitting[int(seeded_generator("turn", document.doc_id).integers(len(fitting)))]
        ids = (prompt + encode_content(tokenizer, document.messages[turn]["content"]))[:length]
        first = next((m["content"] for m in document.messages if m["role"] == "user"), "")
        asked = " ".join(m["content"] for m in document.messages[:turn])
        yield Passage(document.doc_id, 0, ids, list(range(len(prompt), len(ids))), chat_situation(first, ""), asked, len(prompt))


def _prompt_passage(document: Document, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Passage]:
    draws = seeded_generator("system", document.doc_id)
    name, system = "", ""
    if corpus.system_prompts and draws.random() < 0.5:
        name = sorted(SYSTEM_PROMPTS)[int(draws.integers(len(SYSTEM_PROMPTS)))]
        system = SYSTEM_PROMPTS[name][int(draws.integers(len(SYSTEM_PROMPTS[name])))]
    messages = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": document.text}]
    ids = encode(tokenizer, render(tokenizer, messages, [], add_generation_prompt=True))
    situation = chat_situation(document.text, name, document.situation)
    if len(ids) + 20 < length:
        yield Passage(document.doc_id, 0, ids, [], situation, document.text, len(ids), needs_reply=True)
