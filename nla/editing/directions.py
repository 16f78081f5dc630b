"""The direction that an edited explanation stands for, and the directions that it has to be compared with.

All are vectors `[d_model]` of which only the direction is used: every one is added with the same share of the stream's norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import streams
from nla.api import Pair
from nla.models.chat_template import encode_content
from nla.pair.metrics import unit
from nla.support.display import visible
from nla.support.errors import ConfigError
from nla.support.seeds import seeded_generator
from nla.training.text_measures import reworded

N_RANDOM = 20
_SHORTEST = 1e-4
"""Norm of a difference of unit vectors below which the AR does not see the edit."""
_OTHER_WORDS = ("violin", "glacier", "tax", "bread", "goat", "volcano", "ribbon", "anchor", "mushroom", "bicycle")
_FRAMES = (
    "{}", "This is about {}", "The topic of the text is {}", "She talked to me about {}", "I have been reading on {}",
    "Everyone here knows something of {}", "The next chapter deals with {}", "What I have in mind is {}",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A direction that is added, with the length it had before it was brought to the stream's."""

    name: str
    vector: Float[Tensor, " d_model"]
    length: float
    """L2 norm of the difference of the two unit vectors; for random directions 1."""


def replaced(text: str, old: str, new: str) -> str:
    """Return a text with its one occurrence of `old` replaced.

    Raises:
        ConfigError: `old` does not occur, or occurs more than once.
    """
    count = text.count(old) if old else 0
    if count != 1:
        shown = visible(text, lines=True)
        raise ConfigError(
            f"'{visible(old)}' occurs {count} times in the explanation, expected once. Give a longer or another piece of it:\n{shown}"
        )
    return text.replace(old, new)


def arms(pair: Pair, explanation: str, old: str, new: str, others: Sequence[str], key: Sequence[object]) -> list[Arm]:
    """Return the edit and its controls.

    1. `edit`: AR(edited explanation) minus AR(explanation), both as unit vectors;
    2. `null edit`: the same for an edit that changes no meaning (lines in reverse order and in lower case);
    3. `unrelated edit`: `old` replaced by a word that has nothing to do with `new`;
    4. `edit at another token`: the edit of another token's explanation, where one holds `old` once;
    5. `difference of means`: streams of short texts that end in `new` minus those that end in `old`, without an autoencoder;
    6. `random 1` to `random 20`.

    Args:
        pair: the autoencoder.
        explanation: of the token that is edited.
        old: a piece of it.
        new: what replaces it.
        others: explanations of other tokens of the text.
        key: of the seeded draws.

    Raises:
        ConfigError: `old` does not occur once, `new` is the same, or the AR reads both explanations alike.
    """
    if old == new:
        raise ConfigError(f"'{visible(old)}' is replaced by itself; give --replace OLD=NEW with two different texts.")
    draws = seeded_generator("edit", *key)
    unlike = [word for word in _OTHER_WORDS if word not in explanation.lower() and word not in new.lower()]
    texts = {
        "edit": (explanation, replaced(explanation, old, new)),
        "null edit": (explanation, reworded(explanation)),
        "unrelated edit": (explanation, replaced(explanation, old, str(draws.choice(unlike)))),
    }
    elsewhere = [text for text in others if text.count(old) == 1 and text != explanation]
    if elsewhere:
        text = elsewhere[int(draws.integers(len(elsewhere)))]
        texts["edit at another token"] = (text, replaced(text, old, new))
    made = [_difference(name, *unit(pair.reconstruct(before_after))) for name, before_after in texts.items()]
    if made[0].length < _SHORTEST:
        raise ConfigError(f"the AR reads the explanation with '{visible(new)}' as it reads the one with '{visible(old)}'; edit more of it.")
    made.append(_difference("difference of means", _mean_stream(pair, old), _mean_stream(pair, new)))
    normal = torch.from_numpy(draws.standard_normal((N_RANDOM, pair.base.d_model))).float()
    return [*made, *(Arm(f"random {i + 1}", vector, 1.0) for i, vector in enumerate(unit(normal)))]


def _difference(name: str, before: Float[Tensor, " d_model"], after: Float[Tensor, " d_model"]) -> Arm:
    difference = (after - before).float()
    return Arm(name, difference, float(difference.norm()))


def _mean_stream(pair: Pair, words: str) -> Float[Tensor, " d_model"]:
    """Return the mean unit vector at the last token of short texts that end in the given words."""
    rows = [encode_content(pair.base.tokenizer, frame.format(words)) for frame in _FRAMES]
    return unit(torch.stack([stream[-1] for _, stream in streams(pair.base, rows, pair.layer)])).mean(dim=0)
