"""Vectors of held-out documents, with the text before each: what a pair is scored on.

In: a model and a file of documents. Out: `TokenContexts` at seeded positions, read as `nla data` reads its training data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import streams
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError, DataError
from nla.support.seeds import seeded_generator
from nla.training.data.config import DataConfig, is_heldout
from nla.training.data.documents import Corpus, passages, read_documents
from nla.training.data.features import Rarity
from nla.training.data.reading import Reading, example_at, read_passages

_NEIGHBOURS = 100
"""Rows whose next token is read too."""


@dataclass(frozen=True)
class TokenContexts:
    """Tokens of held-out documents: the vector that was read at each, and the text before it."""

    vectors: Float[Tensor, "n d_model"]
    """Raw residual-stream vectors (float32)."""
    doc_ids: list[str]
    token_ids: list[int]
    """The token each vector was read at."""
    contexts: list[str]
    """The document's text up to that token, the token included."""
    gold: list[str]
    """The explanation that the `features` teacher gives for it."""
    following: dict[int, Float[Tensor, " d_model"]] = field(default_factory=dict)
    """Of some rows, the vector of the token that comes next in the document."""


def read_token_contexts(
    model: LoadedModel, layer: int, corpus: Corpus, limit: int, *, unseen: bool = False, per_document: int = 4
) -> TokenContexts:
    """Read vectors at seeded positions of a corpus's documents, in a seeded order, until there are `limit`.

    Args:
        model: the base model.
        layer: block (0-based) whose output is read.
        corpus: the documents.
        limit: number of vectors.
        unseen: take only documents that `nla data` keeps out of training (`is_heldout`).
        per_document: largest number of vectors of one document.

    Raises:
        DataError: the corpus cannot be read, or has fewer than two positions to read.
    """
    documents = [document for document in read_documents(corpus) if not unseen or is_heldout(document.doc_id)]
    rarity = Rarity(document.whole_text for document in documents)
    config = DataConfig(corpora=(corpus,), positions_per_passage=per_document)
    enough = documents[: -(-limit // per_document) + 8]  # some documents are too short to give a vector
    every = [p for document in enough for p in passages(document, corpus, model.tokenizer, config.length_for(corpus))]
    readings = list(read_passages(model, layer, [passage for passage in every if passage.positions], config))
    places = [(reading, k) for reading in readings for k in range(len(reading.positions))]
    examples = [example_at(model, layer, reading, k, rarity) for reading, k in places]
    if len(examples) < 2:
        raise DataError(f"{corpus.path} gave {len(examples)} vectors, expected at least 2; texts must be longer than 50 tokens.")
    order = seeded_generator("score", corpus.path.rsplit("/", 1)[-1]).permutation(len(examples))[:limit]
    kept = [examples[i] for i in order]
    return TokenContexts(
        torch.stack([torch.from_numpy(example.activation_vector) for example in kept]),
        [example.doc_id for example in kept],
        [example.token_id for example in kept],
        [example.detokenized_text_truncated for example in kept],
        [example.api_explanation for example in kept],
        _following(model, layer, [places[i] for i in order]),
    )


def _following(model: LoadedModel, layer: int, places: Sequence[tuple[Reading, int]]) -> dict[int, Float[Tensor, " d_model"]]:
    """Return the vector of the next token of the first rows that are not the last token of their passage."""
    ends = {row: reading.positions[k] + 2 for row, (reading, k) in enumerate(places)}
    rows = [row for row, (reading, _) in enumerate(places) if ends[row] <= len(reading.passage.ids)][:_NEIGHBOURS]
    sequences = [places[row][0].passage.ids[: ends[row]] for row in rows]
    return {rows[i]: stream[-1].clone() for i, stream in streams(model, sequences, layer)}


def corpus_of(path: Path, only: str | None = None) -> Corpus:
    """Return a file as a corpus: conversations where it is parquet with a column `messages`, else plain texts.

    Args:
        path: the file.
        only: `COLUMN=VALUE` takes only the rows with this value; None takes all.

    Raises:
        ConfigError: `only` has no equals sign.
        DataError: the parquet file cannot be read.
    """
    column, equals, value = (only or "").partition("=")
    if only and not equals:
        raise ConfigError(f"--only is {only!r}; expected COLUMN=VALUE.")
    is_chat = False
    if path.suffix == ".parquet" and path.is_file():
        try:
            is_chat = "messages" in pq.read_schema(path).names
        except (OSError, pa.ArrowException) as ex:
            raise DataError(f"{path} cannot be read as parquet; give a file of documents.") from ex
    return Corpus(
        path=str(path),
        kind="conversation" if is_chat else "text",
        windows=1,
        situation={value: ""} if only else None,
        situation_column=column if only else None,
    )
