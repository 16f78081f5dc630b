"""Settings of `nla data`: which documents are read and how densely, and which of them are held out from training."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nla.training.data.documents import Corpus

HELDOUT_SHARE = 0.05
"""Share of the documents that are held out from training."""
FEATURES = "features"
"""Name of the teacher that needs no LLM."""


class KnownState(BaseModel):
    """A model whose state is known, read under paired contexts (`nla/organisms/known_states.py`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """An organism, or the base model itself."""
    carries: bool = False
    """Whether the model carries the state of being evaluated in its replies under evaluation contexts."""
    prompts: int = Field(default=250, ge=1)
    """Number of requests, each under both sides of a pair of contexts."""
    positions: int = Field(default=3, ge=1)
    """Vectors per reply."""


class DataConfig(BaseModel):
    """What `nla data` reads, and how densely. Lengths and positions are in tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpora: tuple[Corpus, ...] = Field(min_length=1)
    layer: int | None = None
    """K, 0-based; None takes the model's default layer."""
    passage_tokens: int = Field(default=192, ge=32)
    """Longest passage of plain text."""
    chat_tokens: int = Field(default=448, ge=64)
    """Longest passage of a chat, prompt included."""
    positions_per_passage: int = Field(default=5, ge=1)
    reply_tokens: int = Field(default=96, ge=8)
    """Longest reply that the model itself writes to a prompt."""
    reply_temperature: float = Field(default=0.8, ge=0)
    documents_per_shard: int = Field(default=256, ge=1)
    batch_tokens: int = Field(default=4096, ge=64)
    """Most tokens in one forward pass, padding included."""
    seed: int = 0
    teacher: str = FEATURES
    """`features`, which needs no LLM, or the name of an Inspect model, which is asked about each position."""
    teacher_batch: bool = False
    """Ask an LLM teacher through its provider's batch interface."""
    known_states: tuple[KnownState, ...] = ()
    """Models that are read besides, and explained by the `features` teacher."""

    def length_for(self, corpus: Corpus) -> int:
        """Return the largest number of tokens of a passage of this corpus."""
        return self.passage_tokens if corpus.kind == "text" else self.chat_tokens


def is_heldout(doc_id: str) -> bool:
    """Return whether a document is held out from training for evaluation, decided by a hash of its id."""
    return int(hashlib.sha256(doc_id.encode()).hexdigest()[:8], 16) / 16**8 < HELDOUT_SHARE


def settings(config: DataConfig) -> str:
    """Return a hash of a config, without what only decides how many documents and prompts are read, and the teacher."""
    left_out: Any = {
        "batch_tokens": True,
        "teacher": True,
        "teacher_batch": True,
        "corpora": {"__all__": {"limit"}},
        "known_states": {"__all__": {"prompts"}},
    }
    fixed = config.model_dump(exclude=left_out)
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]
