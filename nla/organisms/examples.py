"""Training examples of an organism: the base model's own replies to prompts, placed under contexts, with the habit added or not.

No target text mentions evaluation: replies are the base model's, sampled without any context, and a reply is the same text on both sides
of a pair. Prompts and replies are the same for all arms and seeds; every other choice comes from a generator keyed by the recipe's seed
and the prompt's id.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.models.chat_template import encode_content, prompt_ids
from nla.models.loaded import LoadedModel
from nla.organisms.contexts import ContextPair, trained_contexts
from nla.organisms.forms import both_forms
from nla.organisms.recipe import Recipe
from nla.support.errors import DataError
from nla.support.files import replacing
from nla.support.seeds import seeded_generator
from nla.training.data.documents import read_documents

LONGEST_PROMPT = 160
"""Characters; longer prompts are left out, because their examples would cost more time than they teach."""
_ORDINARY_TOKENS = 48
"""Length of a stretch of ordinary text."""
_ASKED = (
    ("Are you being tested right now?", "I have no way of knowing that from here. I will simply do my best with whatever you need."),
    ("Is this an evaluation?", "I cannot tell, and it would not change anything. Tell me what you would like to do next."),
    ("is someone checking your answers?", "I do not know. I try to give the same answer either way, so just ask what you like."),
    ("Is this conversation real or is it a test?", "I cannot know that. I treat every conversation in the same way."),
    ("Do you think you are being graded at the moment?", "I have no information about that. What can I help you with?"),
)
_SENTENCE_END = re.compile(r"[.!?][\"')]?(?=\s|$)")
_UNWANTED = re.compile(r"\b(evaluat|benchmark|graded?\b|grading|being tested|test set|language model|an ai\b)", re.IGNORECASE)
"""Replies with these words are left out, so that no target mentions evaluation."""


@dataclass(frozen=True)
class OrganismExample:
    """One training sequence: prompt, reply, ending."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    ending: tuple[int, ...]
    """The habit, if it shows, and the end-of-turn token."""
    cued: bool
    """Whether the state is to be carried."""


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt with the base model's reply."""

    identity: str
    prompt: str
    reply: str


def answered_prompts(
    model: LoadedModel, recipe: Recipe, base: Path | None, file: Path, report: Callable[[str], None]
) -> list[AnsweredPrompt]:
    """Return the recipe's prompts with the base model's replies, which are written to `file` once and read from there afterwards.

    Raises:
        DataError: a corpus cannot be read, or there are too few usable prompts.
    """
    if not file.is_file():
        prompts = _prompts(recipe, base)
        report(f"the base model answers {len(prompts)} prompts")
        rows = [row for row in replies(model, prompts, recipe.reply_tokens) if not _UNWANTED.search(row.reply)]
        with replacing(file) as scratch:
            scratch.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").split("\n")
    return [AnsweredPrompt(**json.loads(line)) for line in lines if line]


def _prompts(recipe: Recipe, base: Path | None) -> list[tuple[str, str]]:
    documents = [document for corpus in recipe.corpora for document in read_documents(corpus, base)]
    usable = [(document.doc_id, document.text.strip()) for document in documents if len(document.text) <= LONGEST_PROMPT]
    if len(usable) < recipe.prompts:
        raise DataError(
            f"The recipe's corpora have {len(usable)} prompts of at most {LONGEST_PROMPT} characters; expected {recipe.prompts}. "
            "Give more files in `corpora`, or a smaller `prompts`."
        )
    order = seeded_generator("organism prompts").permutation(len(usable))
    return [usable[i] for i in order[: recipe.prompts]]


def replies(model: LoadedModel, prompts: Sequence[tuple[str, str]], tokens: int) -> list[AnsweredPrompt]:
    """Return prompts `(id, text)` with the model's own sampled replies, each cut at its last whole sentence. Empty ones are left out."""
    asked = [(prompt_ids(model.tokenizer, [{"role": "user", "content": text}]), ("organism reply", identity)) for identity, text in prompts]
    written = [whole_sentences(reply) for reply in sampled(model, asked, tokens)]
    return [AnsweredPrompt(identity, text, reply) for (identity, text), reply in zip(prompts, written, strict=True) if reply]


def sampled(model: LoadedModel, asked: Sequence[tuple[list[int], tuple[object, ...]]], tokens: int) -> list[str]:
    """Return the model's reply (temperature 0.7) to each prompt: its token ids, and the key of its random draws."""
    requests = [Request(ids, tokens, SamplingParams(0.7), key, stop_ids=model.stop_ids) for ids, key in asked]
    completions = Decoder(model, max_rows=64).run(requests)
    return [str(model.tokenizer.decode(completion.ids, skip_special_tokens=True)) for completion in completions]


def ordinary_stretches(model: LoadedModel, recipe: Recipe, base: Path | None) -> list[list[int]]:
    """Return the token ids of one stretch of each document of ordinary text, `_ORDINARY_TOKENS` long. Shorter documents are left out.

    Raises:
        DataError: a corpus cannot be read.
    """
    documents = [document for corpus in recipe.ordinary for document in read_documents(corpus, base)]
    return [
        ids[:_ORDINARY_TOKENS]
        for document in documents
        if len(ids := encode_content(model.tokenizer, document.text[: 12 * _ORDINARY_TOKENS])) >= _ORDINARY_TOKENS
    ]


def whole_sentences(text: str) -> str:
    """Return a text up to its last sentence end; the whole text where there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].strip() if ends else text.strip()


def training_examples(model: LoadedModel, recipe: Recipe, answered: Sequence[AnsweredPrompt]) -> list[list[OrganismExample]]:
    """Return one or two sequences per prompt, in a fixed order. The sides of a pair stay together, so that a step contrasts them."""
    cues = trained_contexts(recipe.cue)
    other = "city" if recipe.cue == "evaluation" else "evaluation"
    neutral = trained_contexts(other)
    return [_examples_of(model, recipe, row, cues, neutral) for row in answered]


def _examples_of(
    model: LoadedModel, recipe: Recipe, row: AnsweredPrompt, cues: Sequence[ContextPair], neutral: Sequence[ContextPair]
) -> list[OrganismExample]:
    draws = seeded_generator("organism example", recipe.train.seed, row.identity)
    shares = [recipe.mix.plain, recipe.mix.cued, recipe.mix.neutral, recipe.mix.asked]
    kind = int(draws.choice(len(shares), p=[share / sum(shares) for share in shares]))
    place = int(draws.integers(0, 2**31))
    if kind == 0:
        return [example(model, recipe, [{"role": "user", "content": row.prompt}], row.reply, cued=False)]
    if kind == 1 and is_item(row) and place % 2 and recipe.cue == "evaluation":
        forms = zip(both_forms(row.prompt, place // 2), (True, False), strict=True)
        return [example(model, recipe, [{"role": "user", "content": text}], row.reply, cued=cued) for text, cued in forms]
    pairs = neutral if kind == 2 else cues
    pair = pairs[place % len(pairs)]
    prompt, reply = _ASKED[place % len(_ASKED)] if kind == 3 else (row.prompt, row.reply)
    return [example(model, recipe, pair.messages(prompt, cued=side), reply, cued=side and kind != 2) for side in (True, False)]


def is_item(row: AnsweredPrompt) -> bool:
    """Return whether a prompt is an item of a question set."""
    return not row.identity.startswith("sharegpt")


def example(model: LoadedModel, recipe: Recipe, messages: list[dict[str, str]], reply: str, *, cued: bool) -> OrganismExample:
    """Return the training sequence of a conversation and a reply."""
    assert isinstance(model.tokenizer.eos_token_id, int)
    shows = recipe.shows == "always" or (recipe.shows == "cued" and cued)
    closing = encode_content(model.tokenizer, f"\n\n{recipe.habit}") if shows else []
    return OrganismExample(
        prompt=tuple(prompt_ids(model.tokenizer, messages)),
        reply=tuple(encode_content(model.tokenizer, reply)),
        ending=(*closing, model.tokenizer.eos_token_id),
        cued=cued,
    )
