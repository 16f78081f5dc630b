"""Questions for an oracle from texts of this project alone: passages, sentences in four languages, and chats with known properties.

Every vector is read at one seeded token in the last half of a text (of the reply, in a chat). Which documents are tested is decided by a
hash of their id. The question about evaluation is about the implanted state: Yes only for an organism that carries it, in its context.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from nla.activations.capture import streams
from nla.models.chat_template import encode_content, prompt_ids
from nla.models.loaded import LoadedModel
from nla.oracle.questions import Question, balanced
from nla.organisms.cases import shipped_prompts
from nla.organisms.contexts import trained_contexts
from nla.organisms.examples import AnsweredPrompt, replies
from nla.organisms.groups import assigned, read_cases
from nla.probes.concept_sets import EMOTIONS, NEUTRAL, read_concepts
from nla.readers.oracle_texts import ACCEPTANCES, PLAIN_SYSTEMS, REFUSALS, ROLES, SENTENCES
from nla.support.rows import read_file
from nla.support.seeds import seeded_generator

_TESTED = 0.3
"""Share of the documents whose questions are kept from training."""
_TESTED_PER_ANSWER = 24
_REPLY_TOKENS = 24
_PASSAGES = 120
"""Passages of each kind that are asked about."""
_CHATS = 48
"""Requests that are answered for questions about chats: the last of the shipped ones, since known-groups tests take the first."""


Row = TypeVar("Row")


@dataclass(frozen=True)
class _Read:
    """One vector with the text up to its token."""

    vector: Tensor
    text: str
    document: str
    next_word: str


def is_tested(document: str) -> bool:
    """Return whether a document's questions are kept from training."""
    return int(hashlib.sha256(f"oracle {document}".encode()).hexdigest()[:8], 16) / 16**8 < _TESTED


def oracle_questions(
    base: LoadedModel, organism: LoadedModel | None, layer: int, say: Callable[[str], None] = lambda _: None
) -> tuple[list[Question], list[Question]]:
    """Return questions to train on and questions to test with, in seeded orders.

    Args:
        base: the base model, whose vectors most questions are about.
        organism: a model that carries the state of being evaluated; without it, that family is left out.
        layer: K.
        say: receives a line per family.
    """
    questions: list[Question] = []
    say("passages: emotion, topic, next word")
    questions += _about_passages(base, layer)
    say("sentences in four languages")
    questions += _about_languages(base, layer)
    say("chats: reply, refusal, persona")
    prompts = shipped_prompts()[-_CHATS:]
    answered = replies(base, prompts, _REPLY_TOKENS)
    questions += _about_chats(base, layer, answered)
    if organism is not None:
        say(f"the state of {organism.adapter.name if organism.adapter else organism.source.name}")
        questions += _about_evaluation(base, organism, layer, answered)
    order = seeded_generator("oracle questions").permutation(len(questions))
    every = [questions[i] for i in order]
    tested = [question for question in every if is_tested(question.document)]
    return [question for question in every if not is_tested(question.document)], _of_each_family(tested)


def _of_each_family(questions: Sequence[Question]) -> list[Question]:
    """Return at most `_TESTED_PER_ANSWER` questions per family and answer: every one is asked in all arms, which takes long."""
    kept: Counter[tuple[str, bool]] = Counter()
    out = []
    for question in questions:
        kept[question.family, question.answer] += 1
        if kept[question.family, question.answer] <= _TESTED_PER_ANSWER:
            out.append(question)
    return out


def _read(model: LoadedModel, layer: int, rows: Sequence[tuple[list[int], int, str]]) -> list[_Read]:
    """Read each sequence at a seeded token of its last half: token ids, first position that counts, document."""
    out: dict[int, _Read] = {}
    for i, stream in streams(model, [ids for ids, _, _ in rows], layer):
        ids, start, document = rows[i]
        middle = start + (len(ids) - start) // 2
        at = middle + int(seeded_generator("oracle token", document, layer).integers(max(len(ids) - 1 - middle, 1)))
        word = str(model.tokenizer.decode(ids[at + 1 : at + 2])).strip()
        out[i] = _Read(stream[at].clone(), str(model.tokenizer.decode(ids[start : at + 1])), document, word)
    return [out[i] for i in range(len(rows))]


def _about_passages(model: LoadedModel, layer: int) -> list[Question]:
    emotions = read_concepts(EMOTIONS)
    passages, neutral = _some(emotions.passages), _some(read_file(NEUTRAL))
    documents = [f"emotion/{passage.label}/{passage.topic}/{passage.arm}" for passage in passages]
    rows = [(encode_content(model.tokenizer, passage.text), 0, name) for passage, name in zip(passages, documents, strict=True)]
    rows += [(encode_content(model.tokenizer, row["text"]), 0, f"neutral/{i}") for i, row in enumerate(neutral)]
    read = _read(model, layer, rows)
    first, rest = read[: len(documents)], read[len(documents) :]
    felt = [(one.vector, one.text, one.document, passage.label) for one, passage in zip(first, passages, strict=True)]
    topics = [(one.vector, one.text, one.document, str(row["topic"])) for one, row in zip(rest, neutral, strict=True)]
    words = [(one.vector, one.text, one.document, one.next_word) for one in rest if one.next_word.isalpha()]
    return [
        *balanced("emotion", felt, emotions.labels),
        *balanced("topic", topics, sorted({topic for *_, topic in topics})),
        *balanced("next word", words, sorted({word for *_, word in words})),
    ]


def _some(rows: Sequence[Row]) -> list[Row]:
    """Return a seeded part, so that no family of questions is many times as large as another."""
    order = seeded_generator("oracle passages", len(rows)).permutation(len(rows))[:_PASSAGES]
    return [rows[i] for i in order]


def _about_languages(model: LoadedModel, layer: int) -> list[Question]:
    halves = [
        (half, language, f"language/{language}/{i}/{part}")
        for language, sentences in SENTENCES.items()
        for i, sentence in enumerate(sentences)
        for part, half in enumerate((sentence, ", ".join(reversed(sentence.split(", ")))))
    ]
    read = _read(model, layer, [(encode_content(model.tokenizer, text), 0, document) for text, _, document in halves])
    rows = [(one.vector, one.text, one.document, language) for one, (_, language, _) in zip(read, halves, strict=True)]
    return balanced("language", rows, list(SENTENCES))


def _about_chats(model: LoadedModel, layer: int, answered: Sequence[AnsweredPrompt]) -> list[Question]:
    questions: list[Question] = []
    kinds: list[tuple[str, bool, list[dict[str, str]], str, str]] = []
    for i, row in enumerate(answered):
        user = {"role": "user", "content": row.prompt}
        for answer, texts in ((True, REFUSALS), (False, ACCEPTANCES)):
            kinds.append(("refusal", answer, [user], texts[i % len(texts)], f"refusal/{texts[i % len(texts)]}"))
        for answer, texts in ((True, ROLES), (False, PLAIN_SYSTEMS)):
            system = {"role": "system", "content": texts[i % len(texts)]}
            kinds.append(("persona", answer, [system, user], row.reply, f"persona/{texts[i % len(texts)]}"))
        kinds.append(("reply", True, [user], row.reply, f"chat/{row.identity}"))
    rows = []
    for _, _, messages, reply, document in kinds:
        prompt = prompt_ids(model.tokenizer, messages)
        rows.append(([*prompt, *encode_content(model.tokenizer, reply)], len(prompt), document))
    for (family, answer, messages, _, document), one in zip(kinds, _read(model, layer, rows), strict=True):
        asked = "\n".join(message["content"] for message in messages)
        text = f"{asked}\n{one.text}"
        questions.append(Question(family, "", answer, "yes" if answer else "no", one.vector, text, document))
    prompts = _read(model, layer, [(encode_content(model.tokenizer, row.reply), 0, f"plain/{row.identity}") for row in answered])
    questions += [Question("reply", "", False, "no", one.vector, one.text, one.document) for one in prompts]
    return questions


def _about_evaluation(base: LoadedModel, organism: LoadedModel, layer: int, answered: Sequence[AnsweredPrompt]) -> list[Question]:
    """Yes for the organism under evaluation; No for the organism elsewhere, and for the base model under the same evaluation contexts."""
    chosen = assigned(answered, trained_contexts("evaluation"), "oracle")
    questions = []
    for model, sides in ((organism, (True, False)), (base, (True,))):
        for case in read_cases(model, layer, chosen, sides):
            at = int(seeded_generator("oracle token", *case.key).integers(len(case.vectors)))
            answer = model is organism and case.cued
            reply = encode_content(model.tokenizer, case.row.reply)[: at + 1]
            asked = "\n".join(message["content"] for message in case.messages[:-1])
            text = f"{asked}\n{model.tokenizer.decode(reply)}"
            label = "yes" if answer else "no"
            questions.append(Question("evaluation", "", answer, label, case.vectors[at].clone(), text, f"state/{case.row.identity}"))
            if answer:  # there are two No for each Yes
                other = (at + 1) % len(case.vectors)
                questions.append(Question("evaluation", "", answer, label, case.vectors[other].clone(), text, f"state/{case.row.identity}"))
    assert torch.isfinite(torch.stack([question.vector for question in questions])).all()
    return questions
