"""`nla data`: run a model over documents and keep, at chosen positions, the residual stream and what a teacher says of it.

One shard holds a fixed slice of the documents, so an interrupted run goes on at the first shard that is not there. The split into
training and held-out documents is by document id (`is_heldout`), never by row.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.kernels.padding import right_padded
from nla.models.loaded import LoadedModel, exclusive
from nla.support.errors import ConfigError, DataError
from nla.support.seeds import seeded_generator
from nla.training.data.documents import Corpus, Document, Passage, passages, read_documents
from nla.training.data.features import Moment, Rarity, explain
from nla.training.data.shards import Example, Extraction, read_extraction, write_shard

if TYPE_CHECKING:  # Inspect is imported only where an LLM teaches
    from nla.training.data.teacher import LLMTeacher

HELDOUT_SHARE = 0.05
FEATURES = "features"


class DataConfig(BaseModel):
    """What `nla data` reads and how densely. Lengths and positions are in tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpora: tuple[Corpus, ...]
    layer: int | None = None
    passage_tokens: int = Field(default=192, ge=32)
    chat_tokens: int = Field(default=448, ge=64)
    positions_per_passage: int = Field(default=5, ge=1)
    reply_tokens: int = Field(default=96, ge=8)
    reply_temperature: float = Field(default=0.8, ge=0)
    documents_per_shard: int = Field(default=256, ge=1)
    batch_tokens: int = Field(default=4096, ge=64)
    seed: int = 0
    teacher: str = FEATURES
    """`features`, which needs no LLM, or the name of an Inspect model that is asked for each position."""
    teacher_batch: bool = False
    """Ask an LLM teacher through its provider's batch interface."""

    def length_for(self, corpus: Corpus) -> int:
        """Tokens of a passage of this corpus, at most."""
        return self.passage_tokens if corpus.kind == "text" else self.chat_tokens


@dataclass(frozen=True)
class Reading:
    """What one passage's forward pass gave: vectors `[k, d_model]` and likeliest next tokens at its chosen positions."""

    passage: Passage
    positions: list[int]
    vectors: Float[Tensor, "k d_model"]
    following: list[list[tuple[int, float]]]


def is_heldout(doc_id: str) -> bool:
    """Whether a document is kept for evaluation, decided by a hash of its id."""
    return int(hashlib.sha256(doc_id.encode()).hexdigest()[:8], 16) / 16**8 < HELDOUT_SHARE


def extract(
    model: LoadedModel, config: DataConfig, out: Path, base: Path | None = None, report: Callable[[str, int, int], None] = lambda *_: None
) -> int:
    """Write all shards that are not there yet; returns how many vectors were added.

    Args:
        model: the model to read.
        config: documents, layer, density.
        out: folder of the shards.
        base: folder that relative corpus paths start from.
        report: told (what, shards done, shards in all).

    Raises:
        DataError: a corpus cannot be read, or an LLM teacher fails on most positions.
        ConfigError: no such layer or teacher, or the folder holds shards read with other settings.
    """
    layer = model.check_layer(config.layer)
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(corpus, part) for corpus in config.corpora for part in _parts(corpus, config, base)]
    corpora = ", ".join(Path(c.path).stem for c in config.corpora)
    extraction = Extraction(model.source.name, model.d_model, layer, corpora, config.teacher, settings(config))
    _refuse_other_settings(out, extraction)
    rarity = Rarity(document.whole_text for _, (_, docs) in jobs for document in docs)
    teacher = None if config.teacher == FEATURES else _llm_teacher(config)
    added = 0
    for done, (corpus, (name, documents)) in enumerate(jobs):
        path = out / f"{name}.parquet"
        if not path.exists():
            report(name, done, len(jobs))
            examples = list(_examples(model, layer, corpus, documents, config, rarity))
            if teacher is not None:
                examples = taught(examples, teacher)
            if examples:
                write_shard(path, examples, extraction)
                added += len(examples)
    report("done", len(jobs), len(jobs))
    return added


def _llm_teacher(config: DataConfig) -> "LLMTeacher":
    from nla.training.data.teacher import LLMTeacher

    return LLMTeacher(config.teacher, batch=config.teacher_batch)


def taught(examples: list[Example], teacher: Callable[[Sequence[str]], list[str]]) -> list[Example]:
    """The examples with an LLM's features as explanations; those it failed on are left out.

    Raises:
        DataError: it failed on more than half of them, so that what is left would be no fair sample.
    """
    told = teacher([one.detokenized_text_truncated for one in examples])
    kept = [replace(one, api_explanation=features) for one, features in zip(examples, told, strict=True) if features]
    if len(kept) < len(examples) / 2:
        raise DataError(
            f"the teacher gave features for {len(kept)} of {len(examples)} positions; this shard was not written. "
            f"Why it failed: {getattr(teacher, 'failures', 'not told')}. The same command goes on from here; answers it gave are cached."
        )
    return kept


def settings(config: DataConfig) -> str:
    """Hash of a config without the limits on documents, which only say how far a run goes, and the teacher, which is named."""
    left_out: Any = {"batch_tokens": True, "teacher": True, "teacher_batch": True, "corpora": {"__all__": {"limit"}}}
    fixed = config.model_dump(exclude=left_out)
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]


def _refuse_other_settings(out: Path, extraction: Extraction) -> None:
    for path in sorted(out.glob("*.parquet"))[:1]:
        if (found := read_extraction(path)) != extraction:
            raise ConfigError(f"{out} holds shards read with other settings ({found}); expected {extraction}. Give another folder.")


def _parts(corpus: Corpus, config: DataConfig, base: Path | None) -> Iterator[tuple[str, list[Document]]]:
    documents = read_documents(corpus, base)
    stem = Path(corpus.path).stem
    for start in range(0, len(documents), config.documents_per_shard):
        yield f"{stem}-{corpus.kind}-{start:06d}", documents[start : start + config.documents_per_shard]


def _examples(
    model: LoadedModel, layer: int, corpus: Corpus, documents: Sequence[Document], config: DataConfig, rarity: Rarity
) -> Iterator[Example]:
    found = [p for document in documents for p in passages(document, corpus, model.tokenizer, config.length_for(corpus))]
    found = [p for p in found if not p.needs_reply] + _with_replies(model, [p for p in found if p.needs_reply], config)
    for reading in read_passages(model, layer, [p for p in found if p.positions], config):
        for k in range(len(reading.positions)):
            yield example_at(model, layer, reading, k, rarity)


def _with_replies(model: LoadedModel, prompts: list[Passage], config: DataConfig) -> list[Passage]:
    """Prompts continued by the model's own sampled replies."""
    requests = [
        Request(
            p.ids, config.reply_tokens, SamplingParams(config.reply_temperature), ("reply", config.seed, p.doc_id), stop_ids=model.stop_ids
        )
        for p in prompts
    ]
    replies = Decoder(model, max_rows=64).run(requests)
    special = set(model.tokenizer.all_special_ids)
    out = []
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = [token for token in reply.ids if token not in special]
        out.append(replace(prompt, ids=prompt.ids + ids, positions=list(range(len(prompt.ids), len(prompt.ids) + len(ids)))))
    return out


def read_passages(model: LoadedModel, layer: int, found: Sequence[Passage], config: DataConfig) -> Iterator[Reading]:
    """Run passages in batches of alike lengths; each is read at seeded positions, keyed by its document."""
    order = sorted(range(len(found)), key=lambda i: len(found[i].ids))
    batch: list[Passage] = []
    for i in order:
        if batch and (len(batch) + 1) * len(found[i].ids) > config.batch_tokens:
            yield from _read_batch(model, layer, batch, config)
            batch = []
        batch.append(found[i])
    if batch:
        yield from _read_batch(model, layer, batch, config)


def _read_batch(model: LoadedModel, layer: int, batch: list[Passage], config: DataConfig) -> Iterator[Reading]:
    chosen = [_positions(passage, config) for passage in batch]
    ids = right_padded([passage.ids[: positions[-1] + 1] for passage, positions in zip(batch, chosen, strict=True)])
    where = torch.tensor([(row, position) for row, positions in enumerate(chosen) for position in positions])
    vectors, logits = stream_and_logits(model, ids, layer, where)
    top = logits.softmax(dim=-1).topk(4)
    start = 0
    for passage, positions in zip(batch, chosen, strict=True):
        part = slice(start, start + len(positions))
        pairs = [
            list(zip(tokens, shares, strict=True))
            for tokens, shares in zip(top.indices[part].tolist(), top.values[part].tolist(), strict=True)
        ]
        yield Reading(passage, positions, vectors[part], pairs)
        start = part.stop


def _positions(passage: Passage, config: DataConfig) -> list[int]:
    """Seeded positions, one from each of as many equal stretches, so that they are spread over the passage."""
    n = min(config.positions_per_passage, len(passage.positions))
    draws = seeded_generator("positions", config.seed, passage.doc_id, passage.window)
    return [int(draws.choice(stretch)) for stretch in np.array_split(np.asarray(passage.positions), n)]


@exclusive
@torch.no_grad()
def stream_and_logits(
    model: LoadedModel, ids: Int[Tensor, "batch pos"], layer: int, where: Int[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n vocab"]]:
    """The residual stream after block `layer`, and the next-token logits, at the (row, position) pairs `where` (float32, CPU)."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            kept[name] = (output[0] if isinstance(output, tuple) else output)[where[:, 0], where[:, 1]]

        return hook

    handles = [model.blocks[layer].register_forward_hook(keep("stream")), model.final_norm.register_forward_hook(keep("normed"))]
    try:
        model.network(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    logits: Tensor = model.unembedding(kept["normed"])
    return kept["stream"].float().cpu(), logits.float().cpu()


def example_at(model: LoadedModel, layer: int, reading: Reading, k: int, rarity: Rarity) -> Example:
    """The k-th position of a reading, with what stands before it and what the teacher says."""
    position = reading.positions[k]
    passage, tokenizer = reading.passage, model.tokenizer
    ids = passage.ids[: position + 1]
    moment = Moment(ids, passage.situation, reading.following[k], passage.asked, passage.reply_from)
    return Example(
        activation_vector=reading.vectors[k].numpy(),
        n_raw_tokens=position + 1,
        activation_layer=layer,
        doc_id=passage.doc_id,
        detokenized_text_truncated=str(tokenizer.decode(ids)),
        api_explanation=explain(moment, tokenizer, rarity),
        situation=passage.situation,
        token_id=ids[-1],
    )
