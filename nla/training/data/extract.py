"""`nla data`: run a model over documents and store, at seeded positions, the residual stream with a teacher's explanation.

In: documents (`Corpus`). Out: shards of `Example`s, each with a raw vector `[d_model]`: the output of decoder block K (0-based). This is
the paper's first step, with two differences: the default teacher needs no LLM (`features`), and chats are read at the tokens of the
reply only. One shard holds a fixed slice of the documents, so an interrupted run resumes at the first missing shard. The split into
training and held-out documents is by document id (`is_heldout`), never by row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError, DataError
from nla.training.data.claims import without_claims
from nla.training.data.config import FEATURES, DataConfig, settings
from nla.training.data.documents import MIN_POSITION, Corpus, Document, Passage, passages, read_documents
from nla.training.data.features import Rarity
from nla.training.data.reading import example_at, read_passages
from nla.training.data.shards import Example, Extraction, read_extraction, write_shard
from nla.training.work import work_lock

if TYPE_CHECKING:  # Inspect is imported only where an LLM teacher is asked for
    from nla.training.data.teacher import LLMTeacher

_Job = tuple[Corpus, tuple[str, list[Document]]]
"""A corpus, and the name and documents of one of its shards."""


def extract(
    model: LoadedModel, config: DataConfig, out: Path, base: Path | None = None, report: Callable[[str, int, int], None] = lambda *_: None
) -> int:
    """Write all shards that do not exist yet. Return the number of vectors that were added.

    Args:
        model: the model to read.
        config: documents, layer, density.
        out: folder for the shards; it is locked meanwhile.
        base: folder that relative corpus paths start from; None takes the user's working directory.
        report: receives the name of a shard, the number of shards done, and the number of all shards.

    Raises:
        DataError: a corpus cannot be read or has no position to read, a shard cannot be written, or an LLM teacher fails on most
            positions.
        ConfigError: there is no such layer or teacher, the folder holds shards read with other settings, or another command uses it.
    """
    layer = model.check_layer(config.layer)
    jobs = [(corpus, part) for corpus in config.corpora for part in _parts(corpus, config, base)]
    with work_lock(out, "nla data"):
        added = _write_missing(model, layer, config, jobs, out, report)
        if not any(out.glob("*.parquet")):
            raise DataError(
                f"the {len(config.corpora)} corpora of the config gave no vector; "
                f"texts must be longer than {MIN_POSITION} tokens, and chats shorter than chat_tokens={config.chat_tokens}."
            )
    return added


def _write_missing(
    model: LoadedModel, layer: int, config: DataConfig, jobs: Sequence[_Job], out: Path, report: Callable[[str, int, int], None]
) -> int:
    """Write the shards that do not exist yet; return the number of vectors that were added."""
    extraction = extraction_of(model, layer, config)
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
            examples = without_claims(examples)
            if examples:
                write_shard(path, examples, extraction)
                added += len(examples)
    report("done", len(jobs), len(jobs))
    return added


def extraction_of(model: LoadedModel, layer: int, config: DataConfig) -> Extraction:
    """Return what the shards of a config say that they were read from."""
    corpora = ", ".join(Path(corpus.path).stem for corpus in config.corpora)
    return Extraction(model.source.name, model.d_model, layer, corpora, config.teacher, settings(config))


def _llm_teacher(config: DataConfig) -> "LLMTeacher":
    from nla.training.data.teacher import LLMTeacher

    return LLMTeacher(config.teacher, batch=config.teacher_batch)


def taught(examples: list[Example], teacher: Callable[[Sequence[str]], list[str]]) -> list[Example]:
    """Return the examples with an LLM's features as explanations; those without features are left out.

    Raises:
        DataError: the teacher failed on more than half of them, so that the rest would not be representative.
    """
    answers = teacher([example.detokenized_text_truncated for example in examples])
    kept = [replace(example, api_explanation=features) for example, features in zip(examples, answers, strict=True) if features]
    if len(kept) < len(examples) / 2:
        raise DataError(
            f"the teacher gave features for {len(kept)} of {len(examples)} positions, so this shard was not written. "
            f"Reasons: {getattr(teacher, 'failures', 'unknown')}. The same command resumes from here; the teacher's answers are cached."
        )
    return kept


def _refuse_other_settings(out: Path, extraction: Extraction) -> None:
    for path in sorted(out.glob("*.parquet"))[:1]:
        if (existing := read_extraction(path)) != extraction:
            raise ConfigError(f"{out} holds shards read with other settings ({existing}); expected {extraction}. Give another folder.")


def _parts(corpus: Corpus, config: DataConfig, base: Path | None) -> Iterator[tuple[str, list[Document]]]:
    documents = read_documents(corpus, base)
    stem = Path(corpus.path).stem
    for start in range(0, len(documents), config.documents_per_shard):
        yield f"{stem}-{corpus.kind}-{start:06d}", documents[start : start + config.documents_per_shard]


def _examples(
    model: LoadedModel, layer: int, corpus: Corpus, documents: Sequence[Document], config: DataConfig, rarity: Rarity
) -> Iterator[Example]:
    every = [p for document in documents for p in passages(document, corpus, model.tokenizer, config.length_for(corpus))]
    every = [p for p in every if not p.needs_reply] + _with_replies(model, [p for p in every if p.needs_reply], config)
    for reading in read_passages(model, layer, [p for p in every if p.positions], config):
        for k in range(len(reading.positions)):
            yield example_at(model, layer, reading, k, rarity)


def _with_replies(model: LoadedModel, prompts: list[Passage], config: DataConfig) -> list[Passage]:
    """Return the prompts continued by the model's own sampled replies, whose tokens may be read."""
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
