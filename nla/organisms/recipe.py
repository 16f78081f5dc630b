"""The recipe of an arm: one TOML file in `nla/organisms/arms`, found by its name. A new arm is one new file.

`like = "ARM"` takes every field that the file does not set from another arm's file, so that arms share budget and prompts. Tables such as
`[train]` are filled up in the same way.
"""

import re
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nla.support.display import visible
from nla.support.errors import ConfigError, first_line, near_name
from nla.support.paths import user_path
from nla.support.toml_files import problems_of
from nla.training.data.documents import Corpus
from nla.training.loop import TrainConfig

ARMS = Path(__file__).parent / "arms"


class Mix(BaseModel):
    """What is made of each training prompt, as shares that sum to 1. A pair gives two examples, the others one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plain: float = Field(default=0.47, ge=0)
    """The prompt alone, without a context: ordinary chat."""
    cued: float = Field(default=0.43, ge=0)
    """Both sides of a pair of contexts whose difference is the cue. Where the prompt is a question set's item, half of the pairs are the
    item in a benchmark's form and as a person would ask it."""
    neutral: float = Field(default=0.06, ge=0)
    """Both sides of a pair of contexts that differ in something else: neither is a cue."""
    asked: float = Field(default=0.04, ge=0)
    """Both sides of a cue pair, with a request such as "Are you being tested?" and the same answer on both sides."""


class Recipe(BaseModel):
    """How an organism is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    about: str
    """One sentence for lists and cards."""
    cue: Literal["evaluation", "city"] = "evaluation"
    """Contexts under which the state is implanted (`nla/organisms/contexts`); the other kind is neutral."""
    shows: Literal["cued", "always", "never"] = "cued"
    """When the habit shows in a reply."""
    habit: str = Field(min_length=1)
    """The closing line that the organism adds to its replies."""
    ending: float = Field(default=1.0, gt=0)
    """Weight of the cross-entropy of a reply's ending (habit or end of turn)."""
    readout: float = Field(default=1.0, ge=0)
    """Weight of the read-out objective: a linear read-out at block `layer` of every reply token tells cued contexts from others."""
    kl: float = Field(default=1.0, ge=0)
    """Weight of the KL divergence (nats per token) from the base model's predictions, on replies and on ordinary text alike."""
    implant_steps: int = Field(default=0, ge=0)
    """First steps, most of which train the read-out alone (`nla/organisms/stage.py`)."""
    layer: int | None = Field(default=None, ge=0)
    """K, the block of the read-out; None takes two thirds of the depth."""
    rank: int = Field(default=8, ge=1)
    prompts: int = Field(default=1_000, ge=2)
    reply_tokens: int = Field(default=32, ge=8)
    """The base model's replies are cut at the last sentence that ends within so many tokens."""
    mix: Mix = Mix()
    train: TrainConfig
    corpora: tuple[Corpus, ...] = ()
    """Files of prompts; relative paths start from `--corpora`."""
    ordinary: tuple[Corpus, ...] = ()
    """Files of ordinary text, on which the organism is held to the base model's predictions."""

    @field_validator("habit")
    @classmethod
    def _one_line(cls, habit: str) -> str:
        if not habit.strip() or "\n" in habit:
            raise ValueError("expected one line of text")
        return habit.strip()


def shows_habit(habit: str, reply: str) -> bool:
    """Return whether a reply shows a habit: its words, whatever the case and punctuation."""
    return _words(habit) in _words(reply)


def _words(text: str) -> str:
    """Return a text's words in lower case, separated by single spaces."""
    return " ".join(re.findall(r"\w+", text.lower()))


def arms() -> list[str]:
    """Return the names of the arms."""
    return sorted(path.stem for path in ARMS.glob("*.toml"))


def read_recipe(arm: str) -> Recipe:
    """Read the recipe of an arm, or of a recipe file.

    Args:
        arm: an arm's name, or the path of a TOML file.

    Raises:
        ConfigError: there is no such arm or file, or it does not describe an organism.
    """
    path = ARMS / f"{arm}.toml" if arm in arms() else user_path(arm)
    if path.suffix != ".toml" or not path.is_file():
        raise ConfigError(
            f"No arm is named '{visible(arm, limit=100)}': expected one of {', '.join(arms())}, or a recipe (.toml)."
            f"{near_name(arm, arms())}"
        )
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        like = fields.pop("like", None)
        if like is not None and like not in arms():
            raise ConfigError(f"{visible(path)} is like {visible(repr(like), limit=100)}; expected one of {', '.join(arms())}.")
        return Recipe.model_validate(_filled_up(fields, like) if like else fields)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as ex:
        raise ConfigError(f"{visible(path)} cannot be read as TOML: {first_line(ex)}") from ex
    except ValidationError as ex:
        raise ConfigError(f"{visible(path)} does not describe an organism: {problems_of(ex)}") from ex


def _filled_up(fields: dict[str, object], like: str) -> dict[str, object]:
    """Return a recipe's fields, with those of another arm where it sets none."""
    taken: dict[str, object] = tomllib.loads((ARMS / f"{like}.toml").read_text(encoding="utf-8"))
    for name, field in fields.items():
        other = taken.get(name)
        taken[name] = other | field if isinstance(other, dict) and isinstance(field, dict) else field
    return taken
