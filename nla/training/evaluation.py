"""`nla score`: how good a pair is on documents it has not seen, beside instrument controls, with intervals over documents.

In: an AV, an AR and `TokenContexts` (n vectors with their texts). The vectors are explained at the pair's own temperature, and the
explanations are reconstructed. Out: a `Score` of named measures. The instrument controls (explanations of other vectors, mean vectors,
shuffled words) say what each figure would be without a readable explanation.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from nla.pair.metrics import mse_nrm, reconstruction, retrieval_hits, unit
from nla.pair.reconstructor import Reconstructor
from nla.support.errors import DataError
from nla.support.wilson import wilson_interval
from nla.training.av import TokenLosses
from nla.training.heldout import TokenContexts
from nla.training.intervals import fve_interval, mean_interval
from nla.training.text_measures import (
    distinct_share,
    distinct_trigrams,
    quote_verdicts,
    recurring_share,
    repeating_share,
    reworded,
    shuffled_words,
    without_line,
    words_per_text,
)
from nla.verbalizers.av import ActivationVerbalizer
from nla.verbalizers.base import Explanation

_AMONG = 100
"""Vectors that the right one has to be found among, in the retrieval measure."""
_LINES = 3
"""First lines that are left out one by one."""
_FEWEST_NEIGHBOURS = 10
_SAMPLES, _CONTEXT_SHOWN = 20, 160
"""Explanations kept as samples, and the characters of context shown with each."""


@dataclass(frozen=True)
class Measure:
    """A figure with its 95 % interval over documents (None where none is defined)."""

    name: str
    estimate: float
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def interval(self) -> str:
        """The interval in words; empty where there is none."""
        return "" if self.low is None else f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True)
class Score:
    """The result of `nla score`."""

    measures: list[Measure]
    n: int
    """Vectors whose explanation did not fail."""
    n_documents: int
    n_failed: int
    settings: dict[str, object]
    samples: list[dict[str, object]] = field(default_factory=list)
    """The first explanations, with context and mse_nrm."""


def score(
    av: ActivationVerbalizer,
    ar: Reconstructor,
    tokens: TokenContexts,
    say: Callable[[str], None] = lambda _: None,
    warm: ActivationVerbalizer | None = None,
) -> Score:
    """Measure a pair on held-out vectors. Failed explanations are left out of the means, and counted.

    Args:
        av: writes the explanations.
        ar: reconstructs the vectors from them.
        tokens: the held-out vectors and their contexts.
        say: receives progress, one line at a time.
        warm: the AV that reinforcement learning started from; adds the KL divergence from it. None leaves that measure out.

    Raises:
        DataError: fewer than two explanations did not fail.
    """
    say(f"explaining {len(tokens.vectors)} vectors")
    explanations = av.verbalize(tokens.vectors, [("score", i) for i in range(len(tokens.vectors))])
    kept = [i for i, explanation in enumerate(explanations) if not explanation.failure]
    n_failed = len(explanations) - len(kept)
    if len(kept) < 2:
        raise DataError(f"{n_failed} of {len(explanations)} explanations failed; a score needs at least two that did not.")
    texts = [explanations[i].text for i in kept]
    gold = tokens.vectors[kept]
    documents, contexts = [tokens.doc_ids[i] for i in kept], [tokens.contexts[i] for i in kept]
    say("reconstructing")
    predicted = ar.reconstruct(texts)
    measures = [
        *_quality(gold, predicted, documents),
        _fve("teacher's explanation (AR alone)", gold, ar.reconstruct([tokens.gold[i] for i in kept]), documents),
        *_controls(gold, predicted, tokens, kept),
        _fve("words shuffled", gold, ar.reconstruct([shuffled_words(text, i) for i, text in enumerate(texts)]), documents),
        _fve("lines reversed, lower case", gold, ar.reconstruct([reworded(text) for text in texts]), documents),
        *_without_each_line(ar, gold, texts, documents),
        *_text_measures(texts, contexts),
        *_recurrence(av, tokens, explanations),
        Measure("failed or truncated", n_failed / len(explanations), *wilson_interval(n_failed, len(explanations))),
    ]
    if warm is not None:
        say("comparing with the warm start")
        nats, count = kl_to_warm_start(av, warm, gold)
        measures.append(Measure("KL to the warm start", nats, note=f"nats per token, {count} tokens"))
    errors = mse_nrm(gold, predicted).tolist()
    samples: list[dict[str, object]] = [
        {"context": context[-_CONTEXT_SHOWN:], "explanation": text, "mse_nrm": round(error, 4)}
        for context, text, error in list(zip(contexts, texts, errors, strict=True))[:_SAMPLES]
    ]
    settings: dict[str, object] = {"layer": av.layer, "temperature": av.temperature, "best_of": av.best_of}
    settings |= {"model": av.model.source.name, "dtype": av.model.precision.name}
    return Score(measures, len(kept), len(set(documents)), n_failed, settings, samples)


def _quality(gold: Tensor, predicted: Tensor, documents: Sequence[str]) -> list[Measure]:
    """Return how well the explanations reconstruct their vectors."""
    metrics = reconstruction(gold, predicted)
    g, p = unit(gold), unit(predicted)
    mean = g.mean(dim=0, keepdim=True)
    centred = cosine_similarity(g - mean, p - mean, dim=-1).numpy()
    measures = [
        _fve("round trip", gold, predicted, documents),
        Measure("fve_nrm_meannorm, round trip", metrics.fve_nrm_meannorm),
        Measure("cosine, round trip", metrics.cosine, *mean_interval((g * p).sum(-1).numpy(), documents)),
        Measure("centred cosine, round trip", metrics.centred_cosine, *mean_interval(centred, documents)),
    ]
    if len(gold) >= _AMONG:
        hits = retrieval_hits(gold, predicted, _AMONG, torch.Generator().manual_seed(0)).double().numpy()
        interval = mean_interval(hits, documents)
        measures.append(Measure(f"retrieval top-1 of {_AMONG}", float(hits.mean()), *interval, note=f"chance {1 / _AMONG:.2f}"))
    return measures


def _fve(label: str, gold: Tensor, predicted: Tensor, documents: Sequence[str]) -> Measure:
    return Measure(f"fve_nrm, {label}", reconstruction(gold, predicted).fve_nrm, *fve_interval(gold, predicted, documents))


def _controls(gold: Tensor, predicted: Tensor, tokens: TokenContexts, kept: Sequence[int]) -> list[Measure]:
    """Return fve_nrm of predictions that no explanation of the vector itself went into."""
    shift = max(1, len(kept) // 3)
    mean = unit(gold).mean(dim=0, keepdim=True).expand(len(gold), -1)
    documents = [tokens.doc_ids[i] for i in kept]
    return [
        _fve("control: explanations of other vectors", gold, predicted.roll(shift, dims=0), documents),
        _fve("control: mean vector", gold, mean, documents),
        _fve("control: mean vector of the token", gold, token_means(tokens, kept), documents),
    ]


def _without_each_line(ar: Reconstructor, gold: Tensor, texts: Sequence[str], documents: Sequence[str]) -> list[Measure]:
    """Return fve_nrm of explanations that lack one line: what is lost without a line is what the line tells the AR."""
    longest = max(len(text.splitlines()) for text in texts)
    return [
        replace(
            _fve(f"without line {line + 1}", gold, ar.reconstruct([without_line(text, line) for text in texts]), documents), note="ablation"
        )
        for line in range(min(longest, _LINES) if longest > 1 else 0)
    ]


def _text_measures(texts: Sequence[str], contexts: Sequence[str]) -> list[Measure]:
    verdicts = quote_verdicts(texts, contexts)
    first_lines = Counter(text.splitlines()[0] for text in texts)
    return [
        *(
            Measure(f"quoted words {verdict if verdict == 'in context' else f'that are {verdict}'}", share)
            for verdict, share in verdicts.items()
        ),
        Measure("distinct explanations", distinct_share(texts)),
        Measure("distinct-3", distinct_trigrams(texts), note="share of 3-word sequences that are different"),
        Measure(
            "most frequent first line", first_lines.most_common(1)[0][1] / len(texts), note="share of explanations; 1 is a constant line"
        ),
        Measure("explanations that repeat an item", repeating_share(texts), note="a word or candidate listed twice in a line"),
        Measure("words per explanation", words_per_text(texts)),
    ]


def _recurrence(av: ActivationVerbalizer, tokens: TokenContexts, explanations: Sequence[Explanation]) -> list[Measure]:
    """Return the share of claims that recur in the explanation of the next token, beside the share that recur in another document's."""
    rows = [row for row in tokens.following if not explanations[row].failure]
    if len(rows) < _FEWEST_NEIGHBOURS:
        return []
    following = av.verbalize(torch.stack([tokens.following[row] for row in rows]), [("score next", row) for row in rows])
    kept = [(row, after.text) for row, after in zip(rows, following, strict=True) if not after.failure]
    here, after = [explanations[row].text for row, _ in kept], [text for _, text in kept]
    elsewhere = [after[(i + len(after) // 2) % len(after)] for i in range(len(after))]
    return [
        Measure("claims that recur at the next token", recurring_share(here, after), note=f"{len(kept)} pairs of tokens"),
        Measure("claims that recur in another document", recurring_share(here, elsewhere), note="control"),
    ]


def token_means(tokens: TokenContexts, rows: Sequence[int]) -> Float[Tensor, "k d_model"]:
    """Return for each row the mean of the unit vectors read at the same token in other documents, brought to unit length.

    Where no other document has that token, the mean is over all vectors of other documents.
    """
    g = unit(tokens.vectors)
    documents, token_ids = np.asarray(tokens.doc_ids), np.asarray(tokens.token_ids)
    means = []
    for row in rows:
        elsewhere = documents != documents[row]
        same = elsewhere & (token_ids == token_ids[row])
        means.append(g[torch.from_numpy(same if same.any() else elsewhere)].mean(dim=0))
    return normalize(torch.stack(means), dim=-1)


def kl_to_warm_start(
    av: ActivationVerbalizer, warm: ActivationVerbalizer, vectors: Float[Tensor, "n d_model"], batch: int = 32
) -> tuple[float, int]:
    """Return the KL divergence of an AV from the one that its reinforcement learning started from, in nats per token, and the number
    of tokens.

    It is measured on the AV's own samples at temperature 1, by the estimator exp(r) - r - 1 with r = log p_warm - log p, as in
    training (`nla.training.rl`).

    Args:
        av: the trained AV.
        warm: the AV it started from.
        vectors: raw vectors to explain.
        batch: replies per forward pass.
    """
    replies = [done.ids for done in replace(av, temperature=1.0).complete(vectors, [("kl", i) for i in range(len(vectors))])]
    losses_of = [TokenLosses(verbalizer.model, verbalizer.sidecar) for verbalizer in (av, warm)]
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(replies), batch):
            rows = slice(start, start + batch)
            nats, warm_nats = (losses(vectors[rows], replies[rows])[0].double() for losses in losses_of)
            ratio = nats - warm_nats
            total, count = total + float((ratio.exp() - ratio - 1).sum()), count + len(ratio)
    return total / count, count
