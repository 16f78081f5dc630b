"""Do concept vectors act? The log-probability of every label's word after "He feels" while one label's vector is added.

Strengths are shares of the mean norm of the residual stream at the block where a vector is added. Random directions of the same length
stand beside the vectors, and a bound on the perplexity of neutral text says at which strength the model is still itself. Source: the
steering tests of "Emotion concepts" (arXiv 2604.07729); the word matrix, the random directions and the bound are ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nla.activations.capture import network_inputs, residual_stream
from nla.activations.pushes import pushing
from nla.kernels.padding import right_padded
from nla.models.chat_template import encode, encode_content
from nla.models.loaded import LoadedModel, exclusive
from nla.probes.concept_tests import N_RANDOM
from nla.probes.concepts import ConceptVectors
from nla.support.errors import ConfigError
from nla.support.seeds import seeded_generator

PROMPTS = ("He feels", "I feel")
STRENGTHS = (0.05, 0.1, 0.2, 0.3)
PERPLEXITY_BOUND = 1.5
"""Largest median perplexity, as a multiple of the unsteered model's, at which a strength counts."""
_FLUENCY_TEXTS = 4
_BATCH = 64


@dataclass(frozen=True)
class WordChanges:
    """What vectors of one strength do to the labels' words after one prompt, in nats."""

    prompt: str
    strength: float
    changes: Float[Tensor, "n_labels n_words"]
    """Change of the log-probability of each label's word (columns) under each label's vector (rows)."""
    random: Float[Tensor, "n_random n_words"]
    """The same under random directions."""
    perplexity: float
    """Median over vectors of the perplexity of neutral text, as a multiple of the unsteered one."""
    random_perplexity: float

    @property
    def own(self) -> Float[Tensor, " n_labels"]:
        """Change of each label's word under its own vector."""
        return self.changes.diagonal()

    @property
    def n_rises(self) -> int:
        """Labels whose word becomes likelier under their own vector."""
        return int((self.own > 0).sum())

    @property
    def n_above_random(self) -> int:
        """Labels whose word rises more under their own vector than under any random direction."""
        return int((self.own > self.random.max(dim=0).values).sum())

    @property
    def own_rank(self) -> float:
        """Mean rank of a label's own vector among all labels' vectors, by how much it raises the label's word; 1 is the best."""
        return float(1 + (self.changes > self.own[None]).sum(dim=0).double().mean())


def word_changes(
    model: LoadedModel,
    concepts: ConceptVectors,
    layer: int,
    neutral: Sequence[str],
    strengths: Sequence[float] = STRENGTHS,
    report: Callable[[str], None] = lambda _: None,
) -> list[WordChanges]:
    """Measure the words of all labels under all vectors, for each prompt and strength.

    Args:
        model: the model.
        concepts: its concept vectors.
        layer: K, the block after which vectors are added.
        neutral: passages on which the perplexity is measured, a seeded few of them.
        strengths: shares of the mean norm of the residual stream at the layer.
        report: receives a line per strength.

    Raises:
        ConfigError: a strength is not a number above 0 and up to 10.
    """
    if not strengths or not all(0 < strength <= 10 for strength in strengths):
        raise ConfigError(f"The strengths are {list(strengths)}; expected numbers above 0 and up to 10.")
    units = torch.cat([concepts.vectors[:, layer], random_units(model.d_model, ("concept steering", layer))])
    chosen = seeded_generator("concept fluency").permutation(len(neutral))[:_FLUENCY_TEXTS]
    texts = [encode(model.tokenizer, neutral[i]) for i in chosen]
    norm = mean_norm(model, layer, texts)
    words = [encode_content(model.tokenizer, f" {label}") for label in concepts.labels]
    nothing = torch.zeros(1, model.d_model)
    before = {prompt: word_logprobs(model, layer, prompt, words, nothing)[0] for prompt in PROMPTS}
    fluent = perplexities(model, layer, texts, nothing)[0]
    n = len(concepts.labels)
    results = []
    for strength in strengths:
        report(f"strength {strength:g}")
        added = strength * norm * units
        ratios = perplexities(model, layer, texts, added) / fluent
        for prompt in PROMPTS:
            changes = word_logprobs(model, layer, prompt, words, added) - before[prompt]
            medians = (float(part.median()) for part in (ratios[:n], ratios[n:]))
            results.append(WordChanges(prompt, strength, changes[:n], changes[n:], *medians))
    return results


def within_bound(results: Sequence[WordChanges], bound: float = PERPLEXITY_BOUND) -> list[WordChanges]:
    """Return the results at the largest strength whose perplexity is within the bound; empty where none is."""
    allowed = [result.strength for result in results if result.perplexity <= bound]
    return [result for result in results if allowed and result.strength == max(allowed)]


def random_units(d_model: int, key: tuple[object, ...], n: int = N_RANDOM) -> Float[Tensor, "n d_model"]:
    """Return seeded random directions of unit length."""
    draws = torch.from_numpy(seeded_generator(*key).standard_normal((n, d_model))).float()
    return nn.functional.normalize(draws, dim=-1)


@exclusive
@torch.no_grad()
def mean_norm(model: LoadedModel, layer: int, rows: Sequence[Sequence[int]]) -> float:
    """Return the mean norm of the residual stream after a block over token sequences, without their first tokens."""
    return float(torch.cat([residual_stream(model, row, layer)[1:].norm(dim=-1).cpu() for row in rows]).mean())


@exclusive
@torch.no_grad()
def word_logprobs(
    model: LoadedModel, layer: int, prompt: str, words: Sequence[Sequence[int]], added: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n n_words"]:
    """Return the log-probability (nats, summed over its tokens) of every word after a prompt, under each added vector."""
    start = encode(model.tokenizer, prompt)
    beginnings = list(dict.fromkeys(tuple(word[:-1]) for word in words))  # words of one token share the empty beginning
    rows = [[*start, *beginning] for beginning in beginnings]
    out = torch.zeros(len(added), len(words))
    jobs = [(i, row) for i in range(len(added)) for row in range(len(rows))]
    for first in range(0, len(jobs), _BATCH):
        part = jobs[first : first + _BATCH]
        inputs = network_inputs(model, right_padded([rows[row] for _, row in part]))
        with pushing(model, layer, added[[i for i, _ in part]]):
            logprobs = model.network(**inputs).logits.float().log_softmax(dim=-1).cpu()
        for place, (i, row) in enumerate(part):
            for column, word in enumerate(words):
                if tuple(word[:-1]) == beginnings[row]:
                    out[i, column] = sum(float(logprobs[place, len(start) - 1 + k, token]) for k, token in enumerate(word))
    return out


@exclusive
@torch.no_grad()
def perplexities(model: LoadedModel, layer: int, rows: Sequence[Sequence[int]], added: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
    """Return the perplexity over token sequences (the first token of each is not predicted) under each added vector."""
    ids = right_padded(rows)
    predicted = torch.arange(1, ids.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
    inputs = network_inputs(model, ids)
    results = []
    for vector in added:
        with pushing(model, layer, vector.expand(len(rows), -1)):
            logprobs = model.network(**inputs).logits[:, :-1].float().log_softmax(dim=-1).cpu()
        losses = -logprobs.gather(-1, ids[:, 1:, None])[..., 0]
        results.append(losses[predicted].mean().exp())
    return torch.stack(results)
