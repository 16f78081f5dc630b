"""What concept vectors are good for: held-out passages told by their label, valence in the main component, and the words they raise.

Every figure has its chance level beside it: the permutation null of a correlation, and the ranks that random directions give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nla.activations.unembedding import token_logits
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel
from nla.probes.concepts import SHARE, ConceptVectors, Means, NeutralMeans, fit_concepts
from nla.support.seeds import seeded_generator
from nla.support.wilson import wilson_interval

_PERMUTATIONS = 2_000
_TOP = 6
"""Tokens of a lens that are shown."""
N_RANDOM = 20


@dataclass(frozen=True)
class ValenceTest:
    """Whether the first principal component of the concept vectors orders labels by a rating (valence)."""

    layer: int
    share: float
    """Share of the variance over labels that the component explains at the layer."""
    r: float
    """Absolute Pearson correlation of the component with the rating, at the layer."""
    null_r: float
    """95th percentile of the same over permuted ratings."""
    best_layer: int
    best_r: float
    null_best_r: float
    """95th percentile of the largest correlation over all layers, over permuted ratings: the layer was chosen, so the null chooses too."""


@dataclass(frozen=True)
class Identification:
    """Rank of a held-out passage's own label among all labels, 1 being the best. The passage's topic was left out of the fit."""

    n: int
    n_labels: int
    mean_rank: float
    first: int
    """Passages whose own label comes first."""
    low: float
    high: float
    """95 % Wilson interval of the share that comes first."""

    @property
    def chance_rank(self) -> float:
        """The mean rank of a reader that guesses."""
        return (self.n_labels + 1) / 2


@dataclass(frozen=True)
class Lens:
    """What the final norm and the unembedding make of a label's vector."""

    label: str
    top: tuple[str, ...]
    own_rank: int
    """Rank of the first token of the label's word in the vocabulary."""
    random_rank: float
    """Median rank of the same token over random directions."""


def valence_test(vectors: Float[Tensor, "n_labels n_layers d_model"], rating: Sequence[float], layer: int) -> ValenceTest:
    """Test whether the main component over labels follows a rating, at one layer and at the best of all layers."""
    components, shares = zip(*(_main_component(vectors[:, k]) for k in range(vectors.shape[1])), strict=True)
    scores = _standardised(torch.stack(components))
    ratings = torch.tensor(rating, dtype=torch.float64)
    draws = seeded_generator("valence", len(rating))
    permuted = torch.stack([ratings[torch.from_numpy(draws.permutation(len(rating)))] for _ in range(_PERMUTATIONS)])
    r = (scores @ _standardised(ratings[None]).T).abs()[:, 0]
    null = (scores @ _standardised(permuted).T).abs()
    best = int(r.argmax())
    return ValenceTest(
        layer=layer,
        share=float(shares[layer]),
        r=float(r[layer]),
        null_r=float(null[layer].quantile(0.95)),
        best_layer=best,
        best_r=float(r[best]),
        null_best_r=float(null.max(dim=0).values.quantile(0.95)),
    )


def _main_component(vectors: Float[Tensor, "n d_model"]) -> tuple[Float[Tensor, " n"], float]:
    """Return the score of each vector on the first principal component, and the share of the variance that it explains."""
    centred = (vectors - vectors.mean(dim=0)).double()
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    return left[:, 0] * sizes[0], float(sizes[0] ** 2 / (sizes**2).sum())


def _standardised(rows: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return rows without their mean, at unit length, so that products are correlations."""
    return nn.functional.normalize(rows - rows.mean(dim=1, keepdim=True), dim=1)


@dataclass(frozen=True)
class ReadSet:
    """Passages that were read."""

    means: Means
    labels: Sequence[str]
    topics: Sequence[str]


def identify(fit: ReadSet, test: ReadSet, neutral: NeutralMeans, layer: int, share: float = SHARE) -> Identification:
    """Rank every tested passage's own label by vectors that were fitted without its topic.

    Args:
        fit: passages that the vectors are made from.
        test: passages that are told; they may be the same ones, or those of another arm.
        neutral: of neutral passages.
        layer: K, the block whose output is read.
        share: see `neutral_basis`.
    """
    ranks: list[int] = []
    at_layer = slice(layer, layer + 1)
    for topic in dict.fromkeys(test.topics):
        rest = [i for i, other in enumerate(fit.topics) if other != topic]
        concepts = fit_concepts(fit.means[rest][:, at_layer], [fit.labels[i] for i in rest], neutral[:, at_layer], share)
        held = [i for i, other in enumerate(test.topics) if other == topic and test.labels[i] in concepts.labels]
        scores = concepts.scores(test.means[held, layer], 0)
        own = torch.tensor([concepts.labels.index(test.labels[i]) for i in held])
        ranks += (1 + (scores > scores.gather(1, own[:, None])).sum(dim=1)).tolist()
    first = sum(rank == 1 for rank in ranks)
    low, high = wilson_interval(first, len(ranks))
    return Identification(len(ranks), len(set(fit.labels)), sum(ranks) / len(ranks), first, low, high)


def lenses(model: LoadedModel, concepts: ConceptVectors, layer: int) -> list[Lens]:
    """Decode every label's vector at a layer with the final norm and the unembedding (logit lens), with random directions beside it."""
    draws = seeded_generator("concept lens", layer).standard_normal((N_RANDOM, model.d_model))
    random = torch.from_numpy(draws).float()
    logits = model.run(partial(token_logits, model, torch.cat([concepts.vectors[:, layer], random]))).cpu()
    of_random = logits[len(concepts.labels) :]
    results = []
    for row, label in zip(logits, concepts.labels, strict=False):
        word = encode_content(model.tokenizer, f" {label}")[0]
        top = tuple(str(model.tokenizer.decode([token])) for token in row.topk(_TOP).indices.tolist())
        results.append(Lens(label, top, int(_rank(row[None], word)[0]), float(_rank(of_random, word).double().median())))
    return results


def _rank(logits: Float[Tensor, "n vocab"], token: int) -> Int[Tensor, " n"]:
    return 1 + (logits > logits[:, token : token + 1]).sum(dim=1)
