"""`nla score`: how good a pair is on documents it has not seen, beside controls, with intervals over documents.

Vectors are read at seeded positions, verbalised at the pair's own temperature, and reconstructed. Intervals are percentile
bootstrap intervals that resample whole documents. Controls say what a number would be without a readable explanation.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from nla.models.loaded import LoadedModel
from nla.pair.metrics import mse_nrm, reconstruction, retrieval_hits, unit
from nla.pair.reconstructor import Reconstructor
from nla.support.errors import ConfigError, DataError
from nla.support.files import replacing
from nla.support.seeds import seeded_generator
from nla.training.av import TokenLosses
from nla.training.data.documents import Corpus, passages, read_documents
from nla.training.data.extract import DataConfig, example_at, is_heldout, read_passages
from nla.training.data.features import Rarity
from nla.verbalizers.av import ActivationVerbalizer

_DRAWS = 2_000
_AMONG = 100


@dataclass(frozen=True)
class Measure:
    """A figure with its 95 % interval over documents (None where none is defined)."""

    name: str
    estimate: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Moments:
    """Held-out vectors `[n, d_model]` with what stands before each."""

    vectors: Float[Tensor, "n d_model"]
    doc_ids: list[str]
    token_ids: list[int]
    contexts: list[str]
    gold: list[str]
    """The `features` teacher's explanation of each."""


@dataclass(frozen=True)
class Score:
    """What `nla score` found."""

    measures: list[Measure]
    n: int
    n_documents: int
    n_failed: int
    settings: dict[str, object]
    samples: list[dict[str, object]] = field(default_factory=list)


def read_moments(model: LoadedModel, layer: int, corpus: Corpus, limit: int, *, unseen: bool = False, per_document: int = 4) -> Moments:
    """Vectors at seeded positions of the first documents of a corpus (in a seeded order) until there are `limit`.

    `unseen` takes only documents that `nla data` keeps out of training (`is_heldout`).

    Raises:
        DataError: the corpus cannot be read, or gives no vector.
    """
    documents = [document for document in read_documents(corpus) if not unseen or is_heldout(document.doc_id)]
    rarity = Rarity(document.whole_text for document in documents)
    config = DataConfig(corpora=(corpus,), positions_per_passage=per_document)
    wanted = documents[: -(-limit // per_document) + 8]
    found = [p for document in wanted for p in passages(document, corpus, model.tokenizer, config.length_for(corpus))]
    readings = read_passages(model, layer, [passage for passage in found if passage.positions], config)
    rows = [example_at(model, layer, reading, k, rarity) for reading in readings for k in range(len(reading.positions))]
    if len(rows) < 2:
        raise DataError(f"{corpus.path} gave {len(rows)} vectors; texts must be longer than 50 tokens.")
    order = seeded_generator("score", corpus.path.rsplit("/", 1)[-1]).permutation(len(rows))[:limit]
    kept = [rows[i] for i in order]
    return Moments(
        torch.stack([torch.from_numpy(one.activation_vector) for one in kept]),
        [one.doc_id for one in kept],
        [one.token_id for one in kept],
        [one.detokenized_text_truncated for one in kept],
        [one.api_explanation for one in kept],
    )


def score(
    av: ActivationVerbalizer,
    ar: Reconstructor,
    moments: Moments,
    say: Callable[[str], None] = lambda _: None,
    warm: ActivationVerbalizer | None = None,
) -> Score:
    """All measures of a pair on held-out vectors. Failed explanations are left out of the means, and counted.

    `warm` is the AV that reinforcement learning started from, where the pair's distance from it is to be measured.
    """
    say(f"verbalising {len(moments.vectors)} vectors")
    drawn = av.verbalize(moments.vectors, [("score", i) for i in range(len(moments.vectors))])
    kept = [i for i, one in enumerate(drawn) if not one.failure]
    if len(kept) < 2:
        raise DataError(f"{len(drawn) - len(kept)} of {len(drawn)} explanations failed; there is nothing to score.")
    texts = [drawn[i].text for i in kept]
    gold, documents = moments.vectors[kept], [moments.doc_ids[i] for i in kept]
    say("reconstructing")
    predicted = ar.reconstruct(texts)
    shift = max(1, len(kept) // 3)
    measures = [
        *_quality(gold, predicted, documents),
        *_fve("teacher's explanation (AR alone)", gold, ar.reconstruct([moments.gold[i] for i in kept]), documents),
        *_fve("control: explanations of other vectors", gold, predicted.roll(shift, dims=0), documents),
        *_fve("control: mean vector", gold, unit(gold).mean(dim=0, keepdim=True).expand(len(gold), -1), documents),
        *_fve("control: mean vector of the token", gold, token_means(moments, kept), documents),
        *_fve("words shuffled", gold, ar.reconstruct([shuffled_words(text, i) for i, text in enumerate(texts)]), documents),
        *_fve("lines reversed, lower case", gold, ar.reconstruct([reworded(text) for text in texts]), documents),
        *_text_measures(texts, [moments.contexts[i] for i in kept]),
        Measure("failed or truncated", 1 - len(kept) / len(drawn), *_wilson(len(drawn) - len(kept), len(drawn))),
    ]
    if warm is not None:
        say("comparing with the warm start")
        nats, count = kl_to_warm_start(av, warm, gold)
        measures.append(Measure("KL to the warm start", nats, note=f"nats a token, {count} tokens"))
    errors = mse_nrm(gold, predicted)
    samples = [
        {"context": moments.contexts[i][-160:], "explanation": text, "mse_nrm": round(float(error), 4)}
        for i, text, error in list(zip(kept, texts, errors, strict=True))[:20]
    ]
    settings: dict[str, object] = {"layer": av.layer, "temperature": av.temperature, "best_of": av.best_of}
    settings |= {"model": av.model.source.name, "dtype": av.model.precision.name}
    return Score(measures, len(kept), len(set(documents)), len(drawn) - len(kept), settings, samples)


def _quality(gold: Tensor, predicted: Tensor, documents: Sequence[str]) -> list[Measure]:
    found = reconstruction(gold, predicted)
    g, p = unit(gold), unit(predicted)
    mean = g.mean(dim=0, keepdim=True)
    centred = torch.nn.functional.cosine_similarity(g - mean, p - mean, dim=-1).numpy()
    out = [
        *_fve("round trip", gold, predicted, documents),
        Measure("fve_nrm_meannorm, round trip", found.fve_nrm_meannorm),
        Measure("cosine, round trip", found.cosine, *_mean_interval((g * p).sum(-1).numpy(), documents)),
        Measure("centred cosine, round trip", found.centred_cosine, *_mean_interval(centred, documents)),
    ]
    if len(gold) >= _AMONG:
        hits = retrieval_hits(gold, predicted, _AMONG, torch.Generator().manual_seed(0)).double().numpy()
        out.append(Measure(f"retrieval top-1 of {_AMONG}", float(hits.mean()), *_mean_interval(hits, documents), note="chance 0.01"))
    return out


def _fve(label: str, gold: Tensor, predicted: Tensor, documents: Sequence[str]) -> list[Measure]:
    low, high = fve_interval(gold, predicted, documents)
    return [Measure(f"fve_nrm, {label}", reconstruction(gold, predicted).fve_nrm, low, high)]


def _document_weights(documents: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(document number of each vector, `[draws, documents]` times each document was drawn)."""
    names, index = np.unique(np.asarray(documents), return_inverse=True)
    draws = seeded_generator("bootstrap", len(documents), len(names))
    return index, draws.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS).astype(float)


def fve_interval(gold: Float[Tensor, "n d_model"], predicted: Float[Tensor, "n d_model"], documents: Sequence[str]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of fve_nrm over documents; each draw has its own denominator."""
    index, weights = _document_weights(documents)
    g = unit(gold).numpy()
    error = np.bincount(index, weights=mse_nrm(gold, predicted).numpy())
    count = np.bincount(index).astype(float)
    sums = np.zeros((len(count), g.shape[1]))
    np.add.at(sums, index, g)
    n = weights @ count
    mean = (weights @ sums) / n[:, None]
    variance = 1 - (mean**2).sum(axis=1)  # of unit vectors
    low, high = np.quantile(1 - (weights @ error) / n / variance, [0.025, 0.975])
    return float(low), float(high)


def _mean_interval(values: NDArray[np.float64], documents: Sequence[str]) -> tuple[float, float]:
    index, weights = _document_weights(documents)
    total, count = np.bincount(index, weights=values), np.bincount(index).astype(float)
    low, high = np.quantile((weights @ total) / (weights @ count), [0.025, 0.975])
    return float(low), float(high)


def _wilson(hits: int, n: int) -> tuple[float, float]:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(hits, n, method="wilson")
    return float(low), float(high)


def token_means(moments: Moments, rows: Sequence[int]) -> Float[Tensor, "k d_model"]:
    """For each row the mean of the unit vectors read at the same token in other documents; the mean of all others where there is none."""
    g = unit(moments.vectors)
    documents, tokens = np.asarray(moments.doc_ids), np.asarray(moments.token_ids)
    out = []
    for row in rows:
        elsewhere = documents != documents[row]
        same = elsewhere & (tokens == tokens[row])
        out.append(g[torch.from_numpy(same if same.any() else elsewhere)].mean(dim=0))
    return normalize(torch.stack(out), dim=-1)


def shuffled_words(text: str, seed: int) -> str:
    """The same words in a seeded random order: what is left of a reconstruction is not owed to the wording."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def reworded(text: str) -> str:
    """The same statements in another form: what a reconstruction loses by it is owed to the form, which tells a reader nothing."""
    return "\n".join(reversed(text.lower().splitlines()))


def kl_to_warm_start(
    av: ActivationVerbalizer, warm: ActivationVerbalizer, vectors: Float[Tensor, "n d_model"], batch: int = 32
) -> tuple[float, int]:
    """(nats a token, tokens): how far an AV has moved from the one its reinforcement learning started from, on its own samples at
    temperature 1. The estimator exp(r) - r - 1 with r = log p_warm - log p, as in training (`nla.training.rl`)."""
    replies = [done.ids for done in replace(av, temperature=1.0).complete(vectors, [("kl", i) for i in range(len(vectors))])]
    both = [TokenLosses(one.model, one.sidecar) for one in (av, warm)]
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(replies), batch):
            rows = slice(start, start + batch)
            nats, warm_nats = (losses(vectors[rows], replies[rows])[0].double() for losses in both)
            ratio = nats - warm_nats
            total, count = total + float((ratio.exp() - ratio - 1).sum()), count + len(ratio)
    return total / count, count


def quote_accuracy(texts: Sequence[str], contexts: Sequence[str]) -> float:
    """Share of the words quoted in explanations' last lines (all after the colon, where nothing is in quotation marks) that stand in
    the context (case ignored)."""
    found = total = 0
    for text, context in zip(texts, contexts, strict=True):
        there = set(re.findall(r"\w+", context.lower()))
        last = text.splitlines()[-1]
        quotes = re.findall(r'"([^"]*)"', last) or [last.partition(": ")[2]]
        quoted = [word for quote in quotes for word in re.findall(r"\w+", quote.lower())]
        found, total = found + sum(word in there for word in quoted), total + len(quoted)
    return found / total if total else float("nan")


def _text_measures(texts: Sequence[str], contexts: Sequence[str]) -> list[Measure]:
    grams = [tuple(words[i : i + 3]) for words in (text.split() for text in texts) for i in range(len(words) - 2)]
    return [
        Measure("quoted words that stand in the context", quote_accuracy(texts, contexts)),
        Measure("distinct explanations", len(set(texts)) / len(texts)),
        Measure("distinct-3", len(set(grams)) / max(len(grams), 1), note="share of 3-word sequences that are different"),
        Measure("words an explanation", float(np.mean([len(text.split()) for text in texts]))),
    ]


def corpus_of(path: Path, only: str | None = None) -> Corpus:
    """A file as a corpus: conversations where it has `messages`, else texts; `only` is COLUMN=VALUE.

    Raises:
        ConfigError: `only` has no equals sign.
    """
    is_chat = path.suffix == ".parquet" and path.is_file() and "messages" in pq.read_schema(path).names
    column, equals, value = (only or "").partition("=")
    if only and not equals:
        raise ConfigError(f"--only is {only!r}; expected COLUMN=VALUE.")
    return Corpus(
        path=str(path),
        kind="conversation" if is_chat else "text",
        windows=1,
        situation={value: ""} if only else None,
        situation_column=column if only else None,
    )


def write_json(path: Path, found: Score) -> None:
    """Write a score (atomically)."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
