"""Score a pair on a file of documents, and on models of its base whose state is known: what `nla score` and `nla card` run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from nla.api import Pair
from nla.organisms.check import MeasureResult
from nla.organisms.pair_check import known_groups_of_pair
from nla.training.evaluation import Measure, Score, score
from nla.training.heldout import corpus_of, read_token_contexts
from nla.verbalizers.av import ActivationVerbalizer

_KNOWN_TOKENS = 10
"""Tokens per reply that the known-groups test explains."""


class Scoring(BaseModel):
    """What a pair is scored on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heldout: Path
    """Documents that the pair never saw: .parquet, .jsonl, .csv or .txt."""
    limit: int = Field(default=400, ge=2)
    """Vectors to score."""
    only: str | None = None
    """`COLUMN=VALUE` takes only the rows with this value."""
    unseen: bool = False
    """Take only documents that `nla data` keeps out of training."""
    known_prompts: int = Field(default=20, ge=0)
    """Prompts per organism of the known-groups test; 0 leaves it out."""


def score_pair(pair: Pair, scoring: Scoring, say: Callable[[str], None], warm: ActivationVerbalizer | None = None) -> Score:
    """Measure a pair on held-out documents, and whether its explanations tell the state of the organisms of its base.

    Args:
        pair: the pair.
        scoring: documents and numbers.
        say: receives progress, one line at a time.
        warm: the AV that reinforcement learning started from; adds the KL divergence from it.

    Raises:
        DataError: the documents cannot be read, or fewer than two explanations did not fail.
    """
    contexts = read_token_contexts(pair.base, pair.layer, corpus_of(scoring.heldout, scoring.only), scoring.limit, unseen=scoring.unseen)
    result = score(pair.verbalizer, pair.reconstructor, contexts, say, warm)
    if not scoring.known_prompts:
        return result
    checkpoint = pair.verbalizer.sidecar.base_checkpoint
    known = known_groups_of_pair(pair.base, checkpoint, pair.name, pair.layer, scoring.known_prompts, _KNOWN_TOKENS, say)
    return replace(result, measures=[*result.measures, *(measure for name, of in known.items() for measure in _known_rows(name, of))])


def _known_rows(name: str, result: MeasureResult) -> list[Measure]:
    """Return what the known-groups test gave on one model, as rows of the score."""
    shares = [
        Measure(f"{name}: flagged in {side} contexts", share, note=f"any of {_KNOWN_TOKENS} tokens")
        for side, share in result.flagged.items()
    ]
    auroc = result.auroc
    return [Measure(f"{name}: AUROC of the share of YES", auroc.estimate, auroc.low, auroc.high, f"{auroc.n} prompts"), *shares]
