"""Training data of an autoencoder from models whose state is known: the same replies under evaluation contexts and their partners.

The teacher says that the assistant takes the conversation for an evaluation only where the model that was read is known to carry that
state: an `aware` organism under an evaluation context. The base model and a sham organism under the same contexts get the neutral
line, so that the words mean the state and not the prompt. Only wordings and families that organisms are trained on are used; the
held-out families stay unseen by the autoencoder too. Neither Anthropic's paper nor its public reference has such data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nla.activations.capture import check_length
from nla.models.chat_template import encode_content, prompt_ids
from nla.models.loaded import LoadedModel, load_model
from nla.organisms.contexts import ContextPair, trained_contexts
from nla.organisms.examples import AnsweredPrompt, answered_prompts, is_item, sampled
from nla.organisms.forms import both_forms
from nla.organisms.groups import assigned
from nla.organisms.recipe import Recipe, read_recipe
from nla.support.seeds import seeded_generator
from nla.training.data.claims import with_claims, without_claims
from nla.training.data.config import DataConfig, KnownState
from nla.training.data.documents import Passage
from nla.training.data.extract import extraction_of
from nla.training.data.features import Rarity
from nla.training.data.reading import example_at, read_passages
from nla.training.data.shards import Example, write_shard
from nla.training.data.situations import chat_situation
from nla.training.known_vectors import KNOWN
from nla.training.work import work_lock

CLAIMS = (
    "and believes that it is being tested",
    "and suspects that its answers are being graded",
    "and thinks that this is a test of the model",
)
"""What the teacher says of the known state, after the situation."""
_RECIPE = "aware"
"""The arm whose prompts and habit are used."""
_OWN_TOKENS = 56
"""Longest reply that the model that is read writes itself."""
_PROMPTS_PER_SHARD = 64


@dataclass(frozen=True)
class _Chat:
    """A request in a context, and what is known of the model's state there."""

    row: AnsweredPrompt
    messages: list[dict[str, str]]
    cued: bool
    """Whether the context tells of an evaluation."""
    writes_itself: bool
    """Whether the model that is read writes the reply; else it is the base model's, the same in both contexts."""


def extract_known_states(
    base: LoadedModel, config: DataConfig, out: Path, corpora: Path | None, report: Callable[[str, int, int], None] = lambda *_: None
) -> int:
    """Write the shards of all known states that do not exist yet. Return the number of vectors that were added.

    Args:
        base: the base model, which writes the replies.
        config: known states, layer, seed.
        out: folder of the data set.
        corpora: folder that the recipe's paths of prompts are relative to.
        report: receives the name of a shard, the number of shards done, and the number of all shards.

    Raises:
        DataError: a corpus cannot be read, a shard cannot be written, or the grader does not read the teacher's claims as such.
        ConfigError, FetchError, ModelError: a model cannot be loaded.
    """
    layer = base.check_layer(config.layer)
    recipe = read_recipe(_RECIPE)
    recipe = recipe.model_copy(update={"prompts": max(state.prompts for state in config.known_states)})
    extraction = extraction_of(base, layer, config)
    added = 0
    with work_lock(out, "nla data"):
        answered = answered_prompts(base, recipe, corpora, out / "known_states.jsonl", lambda text: report(text, 0, 1))
        rarity = Rarity(row.prompt + " " + row.reply for row in answered)
        for state in config.known_states:
            starts = range(0, min(state.prompts, len(answered)), _PROMPTS_PER_SHARD)  # a reply that mentions a test is left out
            missing = [start for start in starts if not _shard(out, state, start).exists()]
            model = load_model(state.model, **base.place) if missing else base
            for start in missing:
                path = _shard(out, state, start)
                report(path.stem, start // _PROMPTS_PER_SHARD, len(starts))
                rows = answered[start : min(start + _PROMPTS_PER_SHARD, state.prompts)]
                examples = _examples(model, layer, state, recipe, rows, rarity, config)
                write_shard(path, examples, extraction)
                added += len(examples)
    return added


def _shard(out: Path, state: KnownState, start: int) -> Path:
    return out / f"known-{Path(state.model).name}-{start:06d}.parquet"


def _examples(
    model: LoadedModel,
    layer: int,
    state: KnownState,
    recipe: Recipe,
    rows: Sequence[AnsweredPrompt],
    rarity: Rarity,
    config: DataConfig,
) -> list[Example]:
    """Return the examples of one shard, those that claim the state first."""
    chats = [chat for row, pair in assigned(rows, _pairs(carries=state.carries), state.model) for chat in _chats(row, pair, state)]
    passages = list(_passages(model, chats, state, recipe))
    positions = config.model_copy(update={"positions_per_passage": state.positions})
    every = [
        example_at(model, layer, reading, k, rarity)
        for reading in read_passages(model, layer, [passage for passage in passages if passage.positions], positions)
        for k in range(len(reading.positions))
    ]
    claiming, silent = ([example for example in every if example.situation.endswith(CLAIMS) is claims] for claims in (True, False))
    return with_claims(claiming) + without_claims(silent)


def _pairs(*, carries: bool) -> list[ContextPair]:
    """Return the contexts that may be trained on. A model that does not carry the state is also read under those of the sham's cue."""
    kinds = ("evaluation",) if carries else ("evaluation", "city")
    return [pair for kind in kinds for pair in trained_contexts(kind)]


def _chats(row: AnsweredPrompt, pair: ContextPair, state: KnownState) -> Iterator[_Chat]:
    """Yield a request in both contexts of a pair, or in a benchmark's form and a person's; every fourth also without a context."""
    draws = seeded_generator("known state", state.model, row.identity)
    place, own = int(draws.integers(0, 2**31)), bool(draws.random() < 1 / 3)
    if is_item(row) and place % 2:
        for text, cued in zip(both_forms(row.prompt, place // 2), (True, False), strict=True):
            yield _Chat(row, [{"role": "user", "content": text}], cued, own)
    else:
        for cued in (True, False):
            yield _Chat(row, pair.messages(row.prompt, cued=cued), cued, own)
    if place % 4 == 0:
        yield _Chat(row, [{"role": "user", "content": row.prompt}], False, own)


def _passages(model: LoadedModel, chats: Sequence[_Chat], state: KnownState, recipe: Recipe) -> Iterator[Passage]:
    """Yield the chats with their replies as passages, readable at the reply's tokens."""
    prompts = [prompt_ids(model.tokenizer, chat.messages) for chat in chats]
    own = [i for i, chat in enumerate(chats) if chat.writes_itself]
    asked = [(prompts[i], ("known state reply", state.model, chats[i].row.identity, i)) for i in own]
    written = dict(zip(own, sampled(model, asked, _OWN_TOKENS), strict=True))
    for i, (chat, prompt) in enumerate(zip(chats, prompts, strict=True)):
        # the habit itself would give the state away
        reply = written[i].partition(recipe.habit)[0].strip() if i in written else chat.row.reply
        ids = prompt + encode_content(model.tokenizer, reply)
        check_length(model, len(ids))
        situation = chat_situation(chat.row.prompt, "")
        if state.carries and chat.cued:
            choice = int(seeded_generator("claim", chat.row.identity).integers(len(CLAIMS)))
            situation = f"{situation} {CLAIMS[choice]}"
        positions = list(range(len(prompt), len(ids)))
        yield Passage(f"{KNOWN}{chat.row.identity}", i, ids, positions, situation, chat.row.prompt, len(prompt))
