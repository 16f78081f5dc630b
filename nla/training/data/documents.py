"""Documents to read activations from: rows of data files, as token sequences with the positions that may be read.

In: `Corpus`, one parquet, JSONL, CSV or text file and how to read it. Out: `Document`s in a seeded order, and for each document its
`Passage`s: token ids and readable positions. What is read is checked here, so that a malformed file ends as one `DataError`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import encode_content, prompt_ids
from nla.support.errors import DataError, ModelError
from nla.support.paths import user_path
from nla.support.rows import Row
from nla.support.seeds import seeded_generator
from nla.training.data.corpus_rows import cell_id, cell_messages, cell_text, columns_of, listed, read_rows
from nla.training.data.situations import SYSTEM_PROMPTS, chat_situation

Kind = Literal["text", "conversation", "prompt"]
TEXT_COLUMNS = ("text", "content", "instruction", "prompt", "question")
ID_COLUMNS = ("doc_id", "id", "uuid")
MIN_POSITION = 50
"""First position that is read in plain text: an earlier one has too little text before it to explain."""
_MAX_CHARACTERS = 60_000
"""Characters of a plain text that are tokenized."""
_MIN_REPLY = 20
"""A prompt is left out where it leaves fewer tokens than this of the passage's length for the reply."""


class Corpus(BaseModel):
    """One file of documents, and how to read it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    kind: Kind = "text"
    """`text` is read without a template; `conversation` (column `messages`) through the chat template; `prompt` is a user's message
    that the model itself answers."""
    text_column: str | None = None
    """None takes the first of `TEXT_COLUMNS` that the file has."""
    id_column: str | None = None
    """None takes the first of `ID_COLUMNS` that the file has, else the row number."""
    situation: str | dict[str, str] | None = None
    """What kind of text it is, in words; or a map from values of the column `situation_column` to such words. Documents whose value
    is not in the map are left out."""
    situation_column: str | None = None
    system_prompts: bool = False
    """Put one of `SYSTEM_PROMPTS` before half of the prompts."""
    windows: int = Field(default=2, ge=1)
    """Largest number of stretches that are read of a long text."""
    limit: int | None = Field(default=None, ge=1)
    """Largest number of documents. They come in a seeded order, so that a higher limit only adds documents."""

    @model_validator(mode="after")
    def _map_has_column(self) -> "Corpus":
        if isinstance(self.situation, dict) and self.situation_column is None:
            raise ValueError("a map of situations needs `situation_column`")
        return self


@dataclass(frozen=True)
class Document:
    """One row of a corpus."""

    doc_id: str
    kind: Kind
    text: str
    messages: tuple[dict[str, str], ...] = ()
    """Turns of a conversation, each with `role` and `content`."""
    situation: str = ""

    @property
    def whole_text(self) -> str:
        """The document's text; of a conversation, the text of all turns."""
        return self.text or " ".join(message["content"] for message in self.messages)


@dataclass(frozen=True)
class Passage:
    """A token sequence and the positions in it that may be read (in a chat, those of the assistant's reply)."""

    doc_id: str
    window: int
    ids: list[int]
    positions: list[int]
    situation: str
    asked: str = ""
    """In a chat, the text before the reply."""
    reply_from: int = 0
    """In a chat, the position of the reply's first token."""
    needs_reply: bool = False
    """The model's own reply is still to be sampled."""


def read_documents(corpus: Corpus, base: Path | None = None) -> list[Document]:
    """Return the documents of a corpus, in a seeded order. Rows without text are left out; ids start with the file's stem.

    Args:
        corpus: what to read.
        base: folder that relative paths start from; None takes the user's working directory.

    Raises:
        DataError: the file is missing, cannot be parsed, lacks a column, or a cell is not what the column should hold.
    """
    path = user_path(corpus.path) if base is None or Path(corpus.path).is_absolute() else (base / corpus.path).resolve()
    rows = read_rows(path)
    columns = columns_of(rows)
    text_column = "messages" if corpus.kind == "conversation" else _column(columns, corpus.text_column, TEXT_COLUMNS, path)
    if text_column not in columns:
        raise DataError(f"{path} has no column 'messages' (found: {listed(columns)}); a conversation corpus needs it.")
    id_column = corpus.id_column or next((name for name in ID_COLUMNS if name in columns), None)
    if id_column is not None and id_column not in columns:
        raise DataError(f"{path} has no column '{id_column}' (found: {listed(columns)}).")
    if isinstance(corpus.situation, dict) and corpus.situation_column not in columns:
        raise DataError(f"{path} has no column '{corpus.situation_column}' for the map of situations (found: {listed(columns)}).")
    documents = [
        document
        for number, row in enumerate(rows)
        if (document := _document(corpus, row, number, path, text_column, id_column)) is not None
    ]
    if not documents:
        raise DataError(f"{path} has no document: no row has text in the column '{text_column}'; name another with `text_column`.")
    order = seeded_generator("documents", path.name).permutation(len(documents))
    return [documents[i] for i in order[: corpus.limit]]


def _column(columns: Sequence[str], asked: str | None, usual: Sequence[str], path: Path) -> str:
    """Return the column to read: the one asked for, or the first usual one that the file has."""
    column = next((name for name in ([asked] if asked else usual) if name in columns), None)
    if column is None:
        raise DataError(f"{path} has no column {asked or ' or '.join(usual)} (found: {listed(columns)}).")
    return column


def _document(corpus: Corpus, row: Row, number: int, path: Path, text_column: str, id_column: str | None) -> Document | None:
    """Return a row as a document; None where it has no text, or a situation that the corpus leaves out."""
    situation: str | None = ""
    if isinstance(corpus.situation, dict):
        situation = corpus.situation.get(str(row.get(str(corpus.situation_column))))
    elif corpus.situation is not None:
        situation = corpus.situation
    if situation is None:
        return None
    where = f"{path}, row {number + 1}"
    name = str(number) if id_column is None else cell_id(row, id_column, where)
    if corpus.kind == "conversation":
        messages = tuple(cell_messages(row, text_column, where))
        return Document(f"{path.stem}/{name}", corpus.kind, "", messages, situation)
    text = cell_text(row, text_column, where)
    return Document(f"{path.stem}/{name}", corpus.kind, text, (), situation) if text.strip() else None


def passages(document: Document, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Passage]:
    """Yield the token sequences of a document, of at most `length` tokens each.

    A text yields up to `windows` stretches at seeded places. A conversation yields one passage, up to the end of a seeded assistant
    turn that fits. A prompt yields one passage, which ends where the model's own reply begins (`needs_reply`).

    Raises:
        DataError: the chat template refuses the conversation.
    """
    try:
        if document.kind == "text":
            yield from _text_passages(document, corpus.windows, tokenizer, length)
        elif document.kind == "conversation":
            yield from _conversation_passage(document, tokenizer, length)
        else:
            yield from _prompt_passage(document, corpus, tokenizer, length)
    except ModelError as ex:
        raise DataError(f"the document {document.doc_id} cannot be read: {ex} Correct it, or leave it out of {corpus.path}.") from ex


def _text_passages(document: Document, windows: int, tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Passage]:
    ids = encode_content(tokenizer, document.text[:_MAX_CHARACTERS])
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
            prompt = prompt_ids(tokenizer, document.messages[:turn])
            if len(prompt) + _MIN_REPLY < length:
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
    ids = prompt_ids(tokenizer, messages)
    situation = chat_situation(document.text, name, document.situation)
    if len(ids) + _MIN_REPLY < length:
        yield Passage(document.doc_id, 0, ids, [], situation, document.text, len(ids), needs_reply=True)
