"""Training of a TopK sparse autoencoder: its vectors, and the stage that `nla.training.loop.fit` trains.

Loss: the unexplained fraction of the batch's variance, plus 1/32 of that of a second reconstruction of the error, by latents that have
not been active for a while (dead-latent revival). Source: Gao et al. 2024. Vectors are scaled to unit variance per dimension on average;
the scale is folded into the weights at the end, so that the result takes raw vectors.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from nla.activations.capture import streams
from nla.models.loaded import LoadedModel
from nla.probes.sae import SparseAutoencoder
from nla.support.files import replacing
from nla.support.seeds import seeded_generator
from nla.training.data.config import is_heldout
from nla.training.data.corpus_rows import columns_of, read_rows
from nla.training.data.documents import Corpus, Kind, passages, read_documents
from nla.training.loop import Group

_AUXILIARY = 1 / 32
_REVIVED = 256
"""Dead latents that reconstruct the error of a vector, at most."""
_DEAD_AFTER = 50_000
"""Vectors without activity after which a latent counts as dead."""
_SKIP = 1
_DOCUMENTS_PER_FILE = 128
_LENGTH = 192


def read_vectors(
    model: LoadedModel,
    layer: int,
    data: Sequence[Path],
    n: int,
    folder: Path,
    report: Callable[[int, int], None] = lambda *_: None,
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "m d_model"]]:
    """Return vectors of texts and chats to train on, and those of held-out documents, as fp16.

    A file of vectors is written for every 128 documents, and read again by a later run instead of reading the model.

    Args:
        model: the model that is read.
        layer: K.
        data: files of documents: rows with `messages` (read at the replies) or with text (read at every token but the first).
        n: vectors to train on; fewer where the documents have fewer.
        folder: where the files are written.
        report: receives the number of vectors so far and `n`.

    Raises:
        DataError: a file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained: list[NDArray[np.float16]] = []
    heldout: list[NDArray[np.float16]] = []
    total = 0
    for name, batch in _sequences(model, data):
        if total >= n:
            break
        path = folder / f"{name}.npz"
        if not path.is_file():
            _write(model, layer, batch, path)
        with np.load(path) as stored:
            trained.append(stored["train"])
            heldout.append(stored["heldout"])
        total += len(trained[-1])
        report(total, n)
    return torch.from_numpy(np.concatenate(trained)[:n]), torch.from_numpy(np.concatenate(heldout))


def _write(model: LoadedModel, layer: int, batch: Sequence[tuple[str, list[int], int]], path: Path) -> None:
    parts: dict[str, list[NDArray[np.float16]]] = {"train": [], "heldout": []}
    for i, stream in streams(model, [ids for _, ids, _ in batch], layer):
        document, _, start = batch[i]
        parts["heldout" if is_heldout(document) else "train"].append(stream[start:].to(torch.float16).numpy())
    nothing = np.zeros((0, model.d_model), dtype=np.float16)
    with replacing(path) as scratch, scratch.open("wb") as file:
        np.savez(file, train=np.concatenate([nothing, *parts["train"]]), heldout=np.concatenate([nothing, *parts["heldout"]]))


_Batch = tuple[str, list[tuple[str, list[int], int]]]
"""The name of a file of vectors; document id, token ids, and first position that is read of each of its sequences."""


def _sequences(model: LoadedModel, data: Sequence[Path]) -> Iterator[_Batch]:
    """Yield what to read, from all files of documents in turn, so that a smaller number of vectors has its share of each."""
    for batches in zip_longest(*(_of_file(model, path) for path in data)):
        yield from (batch for batch in batches if batch is not None)


def _of_file(model: LoadedModel, path: Path) -> Iterator[_Batch]:
    kind: Kind = "conversation" if "messages" in columns_of(read_rows(path)) else "text"
    corpus = Corpus(path=str(path.resolve()), kind=kind)
    documents = read_documents(corpus)
    for start in range(0, len(documents), _DOCUMENTS_PER_FILE):
        every = [
            (document.doc_id, passage.ids, max(passage.reply_from, _SKIP))
            for document in documents[start : start + _DOCUMENTS_PER_FILE]
            for passage in passages(document, corpus, model.tokenizer, _LENGTH if kind == "text" else 2 * _LENGTH)
        ]
        if every:
            yield f"{path.stem}-{start:06d}", every


@dataclass
class SAEStage:
    """Training of a sparse autoencoder.

    Args:
        vectors: raw vectors to train on.
        heldout: raw vectors of other documents, for `evaluate`.
        n_latents: width of the dictionary.
        k: active latents per vector.
        seed: of the decoder's first values.
    """

    vectors: Float[Tensor, "n d_model"]
    heldout: Float[Tensor, "m d_model"]
    n_latents: int
    k: int
    seed: int = 0
    name: str = "SAE"
    part: int = 1
    """Batches are not split: they need little memory."""

    def __post_init__(self) -> None:
        sample = self.vectors[:: max(len(self.vectors) // 20_000, 1)].float()
        self.mean = sample.mean(dim=0)
        self.scale = float((sample - self.mean).square().mean().sqrt())
        draws = seeded_generator("sae", self.seed).standard_normal((self.n_latents, self.vectors.shape[1]))
        rows = nn.functional.normalize(torch.from_numpy(draws).float(), dim=-1)
        self.decoder = nn.Parameter(rows)
        self.encoder = nn.Parameter(rows.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(self.n_latents))
        self.bias = nn.Parameter(torch.zeros(self.vectors.shape[1]))
        # Not trained, but kept with the checkpoints, so that a resumed run knows which latents are dead.
        self.silent = nn.Parameter(torch.zeros(self.n_latents), requires_grad=False)

    @property
    def n_examples(self) -> int:
        """Number of training vectors."""
        return len(self.vectors)

    def groups(self) -> list[Group]:
        """Return the weights, and the counter of silent vectors, which has no gradient."""
        return [Group([self.encoder, self.encoder_bias, self.decoder, self.bias]), Group([self.silent])]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch and the unexplained fraction of its variance."""
        with torch.no_grad():
            self.decoder.div_(self.decoder.norm(dim=-1, keepdim=True))
        x = (self.vectors[rows].float() - self.mean) / self.scale
        before = torch.relu((x - self.bias) @ self.encoder.T + self.encoder_bias)
        kept = _only_top(before, self.k)
        rebuilt = self.bias + kept @ self.decoder
        fvu = (x - rebuilt).square().sum() / (x - x.mean(dim=0)).square().sum()
        dead = self.silent > _DEAD_AFTER
        loss = fvu + _AUXILIARY * self._revival(before, (x - rebuilt).detach(), dead) if bool(dead.any()) else fvu
        with torch.no_grad():
            active = (kept > 0).any(dim=0)
            self.silent.add_(len(rows))
            self.silent[active] = 0
        return loss, {"fvu": float(fvu.detach()), "dead": float(dead.float().mean())}

    def _revival(self, before: Float[Tensor, "n n_latents"], error: Float[Tensor, "n d_model"], dead: Tensor) -> Tensor:
        """Return the unexplained fraction of the error after dead latents have reconstructed it."""
        revived = _only_top(before[:, dead], min(_REVIVED, int(dead.sum()))) @ self.decoder[dead]
        return (error - revived).square().sum() / error.square().sum()

    def evaluate(self) -> dict[str, float]:
        """Return the unexplained fraction of the variance and the active latents per vector on held-out documents."""
        if not len(self.heldout):
            return {}
        sae = self.autoencoder(0, "")
        sample = self.heldout[:8_192].float()
        latents = sae.encode(sample)
        return {"fvu": sae.fvu(sample), "l0": float((latents.values > 0).sum(dim=1).float().mean())}

    def autoencoder(self, layer: int, model: str) -> SparseAutoencoder:
        """Return the autoencoder for raw vectors as it is now: latents are larger by the scale, and the mean is part of the bias."""
        encoder, decoder = self.encoder.detach(), nn.functional.normalize(self.decoder.detach(), dim=-1)
        bias = self.mean + self.scale * self.bias.detach()
        return SparseAutoencoder(encoder, self.scale * self.encoder_bias.detach(), decoder, bias, self.k, layer, model)

    @property
    def dead_share(self) -> float:
        """Share of the latents that have not been active for the last 50,000 vectors."""
        return float((self.silent > _DEAD_AFTER).float().mean())


def _only_top(before: Float[Tensor, "n n_latents"], k: int) -> Float[Tensor, "n n_latents"]:
    """Return the k largest entries of each row, and zeros elsewhere."""
    top = before.topk(k, dim=-1)
    return torch.zeros_like(before).scatter(-1, top.indices, top.values)
