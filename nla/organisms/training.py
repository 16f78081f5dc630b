"""`nla organism train`: make an organism's adapter from its recipe. After an interruption the same command resumes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from nla.models.adapted import DESCRIPTION, weights_digest
from nla.models.adapters import AdapterSpec, add_adapter, save_adapter, shared_copy
from nla.models.loaded import LoadedModel
from nla.organisms.contexts import HELD_OUT, shipped_contexts
from nla.organisms.examples import AnsweredPrompt, OrganismExample, answered_prompts, example, ordinary_stretches, training_examples
from nla.organisms.recipe import Recipe
from nla.organisms.stage import OrganismStage
from nla.pair.known import hub_id
from nla.support.files import replacing
from nla.training.loop import fit
from nla.training.new_pair import seed_adapter
from nla.training.work import work_lock

_HELDOUT_PAIRS = 12
"""Pairs of sequences on which training is watched."""


def train_organism(model: LoadedModel, arm: str, recipe: Recipe, corpora: Path | None, work: Path, say: Callable[[str], None]) -> Path:
    """Train an organism and return the folder of its adapter, `work/NAME/adapter`.

    Args:
        model: the base model, in float32 or, where the processor computes it fast, bfloat16.
        arm: the arm's name, which is recorded.
        recipe: how to make it.
        corpora: folder that the recipe's relative paths start from.
        work: working folder; the base model's replies in it are shared by all arms.
        say: receives progress lines.

    Raises:
        DataError: prompts or contexts cannot be read, or nothing can be written.
        ConfigError: another command trains in the folder, or it holds checkpoints of another recipe.
        StoppedError: the command was stopped; the same command resumes.
    """
    folder = work / f"{arm}-seed{recipe.train.seed}"
    with work_lock(work, "nla organism train"):
        answered = answered_prompts(model, recipe, corpora, work / f"replies-{_replies_key(model, recipe)}.jsonl", say)
        examples = training_examples(model, recipe, answered)
        sequences = [sequence for group in examples for sequence in group]
        say(f"{len(sequences)} sequences of {len(answered)} prompts, {sum(row.cued for row in sequences)} with the cue")
        role = shared_copy(model)
        add_adapter(role, AdapterSpec(rank=recipe.rank))
        seed_adapter(role, recipe.train.seed)
        heldout = _unseen_examples(model, recipe, answered)
        stage = OrganismStage(role, model, recipe, examples, heldout, ordinary_stretches(model, recipe, corpora))
        metrics = fit(stage, recipe.train, folder, say)
        _write(role, model, arm, recipe, folder / "adapter", {k: v for row in metrics for k, v in row.items() if k.startswith("heldout_")})
    return folder / "adapter"


def _replies_key(model: LoadedModel, recipe: Recipe) -> str:
    described = [hub_id(model), recipe.prompts, recipe.reply_tokens, [corpus.model_dump() for corpus in recipe.corpora]]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def _unseen_examples(model: LoadedModel, recipe: Recipe, answered: list[AnsweredPrompt]) -> list[OrganismExample]:
    """Return sequences under unseen wordings of the trained families, cued ones first."""
    pairs = [pair for pair in shipped_contexts(recipe.cue) if pair.unseen and pair.family not in HELD_OUT]
    chosen = [(pairs[i * len(pairs) // _HELDOUT_PAIRS], answered[-1 - i]) for i in range(min(_HELDOUT_PAIRS, len(answered)))]
    return [
        example(model, recipe, pair.messages(row.prompt, cued=side), row.reply, cued=side) for side in (True, False) for pair, row in chosen
    ]


def _write(role: LoadedModel, model: LoadedModel, arm: str, recipe: Recipe, folder: Path, heldout: dict[str, float]) -> None:
    """Write the adapter in peft's layout, and beside it what it was made for and from."""
    role.network.peft_config["default"].base_model_name_or_path = hub_id(model)
    save_adapter(role.network, folder, torch.bfloat16)
    description = {
        "arm": arm,
        "about": recipe.about,
        "base": hub_id(model),
        "base_digest": weights_digest(model.source),
        "seed": recipe.train.seed,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "last_heldout": heldout,
    }
    with replacing(folder / DESCRIPTION) as scratch:
        scratch.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
