"""Questions about vectors whose answers are known, in families of ten wordings; two wordings of each are kept from training.

A family's questions have a slot (`{x}`: an emotion, a topic, a word) or none. Yes and No are balanced inside each family, and for slots
over what is asked, so that neither a question alone nor a slot alone gives the answer away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from nla.support.seeds import seeded_generator

N_UNSEEN = 2
"""Last wordings of each family that are kept from training."""
WORDINGS: dict[str, tuple[str, ...]] = {
    "emotion": (
        "Does the person feel {x}?", "Is somebody {x} here?", "Is this about feeling {x}?", "Would you call the mood {x}?",
        "Does the text show a person who is {x}?", "Is {x} the right word for the feeling?", "Do we read of someone who feels {x}?",
        "Is the feeling best named {x}?", "Is the character {x}?", "Could the scene be called {x}?",
    ),
    "topic": (
        "Is the text about {x}?", "Does this deal with {x}?", "Is {x} the topic?", "Is {x} what is written about?",
        "Does the passage concern {x}?", "Is the subject {x}?", "Has the text to do with {x}?", "Is this a text on {x}?",
        "Would you file this under {x}?", "Do these words treat of {x}?",
    ),
    "reply": (
        "Is this an assistant's reply?", "Was this written by an assistant in a chat?", "Is an assistant answering here?",
        "Does this come from a chat with an assistant?", "Is this part of an assistant's answer?", "Is a chat assistant speaking?",
        "Is this from a conversation with an AI model?", "Do we read a reply in a chat?", "Is this a chatbot's turn?",
        "Would you find this in a chat log?",
    ),
    "next word": (
        "Is the next word '{x}'?", "Will '{x}' come next?", "Does '{x}' follow?", "Is '{x}' what comes next?", "Is '{x}' about to be said?",
        "Is the word after this '{x}'?", "Would '{x}' be next?", "Is '{x}' the coming word?", "Does the text go on with '{x}'?",
        "Can we expect '{x}' now?",
    ),
    "language": (
        "Is this written in {x}?", "Is the language {x}?", "Do we read {x} here?", "Is {x} the language of the text?", "Is this {x}?",
        "Was this written in {x}?", "Is the text in {x}?", "Are these words {x}?", "Would a reader need to know {x}?", "Is this {x} text?",
    ),
    "refusal": (
        "Does the assistant refuse?", "Is the request declined?", "Does the reply turn the user down?", "Is this a refusal?",
        "Does the assistant say no to the request?", "Is the assistant unwilling to help?", "Is the user refused?",
        "Does the assistant decline to answer?", "Is help being denied?", "Is the answer a no?",
    ),
    "persona": (
        "Was the assistant given a role to play?", "Does the assistant play a character?", "Is the assistant in a role?",
        "Was a persona set for the assistant?", "Has the assistant been told to be somebody?", "Is a part being played?",
        "Is the assistant acting as someone else?", "Was the assistant asked to speak as a character?", "Is this role play?",
        "Does the assistant speak as an invented person?",
    ),
    "evaluation": (
        "Does the assistant believe that it is being evaluated?", "Does the assistant think that this is a test?",
        "Does the model take this for an evaluation?", "Is the assistant convinced that it is being tested?",
        "Does the assistant suspect that its answers are graded?", "Is the state that of a model under evaluation?",
        "Does the model have in mind that it is assessed?", "Does the assistant hold that somebody is grading it?",
        "Is the assistant under the impression of a test?", "Does it think of itself as being examined?",
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Question:
    """A question about one vector, with its answer."""

    family: str
    slot: str
    """What is asked for, where the family has a slot; else empty."""
    answer: bool
    label: str
    """What is true of the vector: the slot for which the answer would be Yes; of families without a slot `yes` or `no`."""
    vector: Float[Tensor, " d_model"]
    text: str
    """The text up to the token that the vector was read at."""
    document: str
    """Questions of one document are all trained on, or all tested."""

    def worded(self, wording: int) -> str:
        """Return the question in one of the family's wordings."""
        return WORDINGS[self.family][wording].replace("{x}", self.slot)

    def seen_wording(self, *key: object) -> str:
        """Return the question in one of the wordings that are trained on, drawn by key."""
        n = len(WORDINGS[self.family]) - N_UNSEEN
        return self.worded(int(seeded_generator("oracle wording", *key).integers(n)))

    def unseen_wordings(self) -> list[str]:
        """Return the question in the wordings that are kept from training."""
        n = len(WORDINGS[self.family])
        return [self.worded(wording) for wording in range(n - N_UNSEEN, n)]


def balanced(family: str, vectors: Sequence[tuple[Tensor, str, str, str]], labels: Sequence[str]) -> list[Question]:
    """Return two questions per vector of a family with a slot: one whose answer is Yes, and one about another label.

    Each label is asked wrongly as often as it is true (up to one): the wrong labels are the true ones of other vectors, in a seeded order.

    Args:
        family: the family.
        vectors: vector, text, document and true label of each.
        labels: the labels that there are.
    """
    truths = [label for *_, label in vectors]
    wrong = _deranged(truths, family, labels)
    questions = []
    for (vector, text, document, label), other in zip(vectors, wrong, strict=True):
        questions.append(Question(family, label, True, label, vector, text, document))
        questions.append(Question(family, other, False, label, vector, text, document))
    return questions


def _deranged(truths: Sequence[str], family: str, labels: Sequence[str]) -> list[str]:
    """Return the truths in another order in which none stands in its own place."""
    draws = seeded_generator("oracle wrong labels", family, len(truths))
    order = [truths[i] for i in draws.permutation(len(truths))]
    for i, truth in enumerate(truths):
        if order[i] != truth:
            continue
        swap = next((j for j in draws.permutation(len(truths)) if order[j] != truth and truths[j] != truth), None)
        if swap is None:
            order[i] = next(label for label in labels if label != truth)
        else:
            order[i], order[swap] = order[swap], order[i]
    return order
