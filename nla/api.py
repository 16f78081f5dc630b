"""`Pair`: an autoencoder pair in memory, as Python code and the `nla` command use it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import residual_stream
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel
from nla.pair.reconstructor import Reconstructor, load_reconstructor
from nla.support.errors import ConfigError
from nla.support.paths import user_path
from nla.training.evaluation import Score, score
from nla.training.heldout import corpus_of, read_token_contexts
from nla.verbalizers.av import ActivationVerbalizer, load_verbalizer
from nla.verbalizers.base import Explanation

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ExplainedToken:
    """One token of a text, and what the pair says of the vector there."""

    token: str
    position: int
    """Index of the token in the text, from 0."""
    explanation: str
    cosine: float | None
    """Cosine between the vector and its reconstruction from the explanation; None for a failed explanation."""
    failure: str = ""
    """Why the explanation cannot be used; empty for a good one."""


@dataclass(frozen=True)
class Explanations(Sequence[ExplainedToken]):
    """Explained tokens in the order of the text."""

    rows: tuple[ExplainedToken, ...]

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ExplainedToken]:
        return iter(self.rows)

    def to_frame(self) -> "pd.DataFrame":
        """One row per token, with the columns token, position, explanation, cosine and failure."""
        import pandas as pd

        return pd.DataFrame([vars(row) for row in self.rows], columns=["token", "position", "explanation", "cosine", "failure"])


@dataclass(frozen=True)
class Pair:
    """An activation verbalizer (AV) and an activation reconstructor (AR) with their base model."""

    name: str
    base: LoadedModel
    """The model whose residual stream the pair reads."""
    verbalizer: ActivationVerbalizer
    reconstructor: Reconstructor

    @property
    def layer(self) -> int:
        """K, the decoder block (0-based) whose output the pair reads, before the final norm."""
        return self.verbalizer.layer

    def explain(self, text: str, positions: Sequence[int] | None = None) -> Explanations:
        """Explain the residual stream at tokens of a text.

        Args:
            text: the text; control tokens written out in it are read as ordinary text.
            positions: token indices, negative ones from the end; None explains every token.

        Raises:
            ConfigError: the text has no token or more than the context window holds, or a position is outside it.
        """
        ids = encode_content(self.base.tokenizer, text)
        if not ids:
            raise ConfigError("The text is empty; expected one with at least one token.")
        if any(not -len(ids) <= position < len(ids) for position in positions or ()):
            raise ConfigError(f"The text has {len(ids)} tokens; expected positions from {-len(ids)} to {len(ids) - 1}.")
        chosen = list(range(len(ids))) if positions is None else [position % len(ids) for position in positions]
        vectors = residual_stream(self.base, ids, self.layer)[chosen].cpu()
        explanations = self.verbalizer.verbalize(vectors, [("explain", position) for position in chosen])
        errors = self.reconstructor.score(vectors, [explanation.text or "-" for explanation in explanations]).tolist()
        return Explanations(
            tuple(
                ExplainedToken(
                    token=str(self.base.tokenizer.decode([ids[position]])),
                    position=position,
                    explanation=explanation.text,
                    cosine=None if explanation.failure else 1 - error / 2,  # mse_nrm = 2 (1 - cosine)
                    failure=explanation.failure,
                )
                for position, explanation, error in zip(chosen, explanations, errors, strict=True)
            )
        )

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]] | None = None) -> list[Explanation]:
        """Explain raw residual-stream vectors of block `layer` (never normalised).

        Args:
            vectors: the vectors.
            keys: one per vector; the random draws for a vector depend on its key alone. By default the row numbers.
        """
        return self.verbalizer.verbalize(vectors, keys or [("verbalize", row) for row in range(len(vectors))])

    def reconstruct(self, texts: Sequence[str]) -> Float[Tensor, "n d_model"]:
        """Predict the vectors that explanations were written for (float32, on the CPU). Only their directions are meaningful."""
        return self.reconstructor.reconstruct(texts)

    def score(self, documents: str | Path | Sequence[str], limit: int = 400) -> Score:
        """Measure reconstruction, retrieval and text quality on held-out documents, with intervals over documents.

        Args:
            documents: a file (.parquet, .jsonl, .csv or .txt) or a list of texts longer than 50 tokens.
            limit: number of vectors.

        Raises:
            DataError: the documents cannot be read, or give fewer than two vectors.
        """
        if isinstance(documents, str | Path):
            return self._score_file(user_path(documents), limit)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "documents.jsonl"
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
            return self._score_file(file, limit)

    def _score_file(self, file: Path, limit: int) -> Score:
        contexts = read_token_contexts(self.base, self.layer, corpus_of(file), limit)
        return score(self.verbalizer, self.reconstructor, contexts)

    def with_options(self, *, best_of: int = 1, temperature: float | None = None) -> "Pair":
        """The pair with other sampling: of `best_of` draws the AR keeps the best; `temperature` None keeps the pair's own."""
        verbalizer = replace(
            self.verbalizer,
            temperature=self.verbalizer.temperature if temperature is None else temperature,
            best_of=best_of,
            reconstructor=self.reconstructor if best_of > 1 else None,
        )
        return replace(self, verbalizer=verbalizer)


def load_pair(name: str | Path, *, ar: str | Path | None = None, dtype: str = "auto", device: str = "auto") -> Pair:
    """Load a pair with the base model that its AV names.

    Args:
        name: an alias with a known pair (`smollm2`), a pair's folder with `av/` and `ar/`, or an AV's folder or hub id.
        ar: the AR's folder or hub id, if it is not beside the AV.
        dtype: `auto`, `bfloat16`, `float16` or `float32`.
        device: `auto` or a torch device name.

    Raises:
        ConfigError: not a name, or an alias without a known pair.
        ContractError: AV or AR do not fit the base model.
        FetchError: the hub or the package index could not give the files.
    """
    verbalizer, base = load_verbalizer(name, dtype=dtype, device=device)
    reconstructor = load_reconstructor(ar or name, base, **base.place)
    return Pair(str(name), base, verbalizer, reconstructor)
