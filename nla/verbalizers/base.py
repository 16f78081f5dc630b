"""The contract of every verbalizer: `[n, d_model]` vectors in, n explanations out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ValidationError
from torch import Tensor

from nla.support.display import visible
from nla.support.errors import ConfigError


@dataclass(frozen=True)
class Explanation:
    """The text for one vector. A failed explanation has `failure` set and is unscored, whatever its text."""

    text: str
    failure: str = ""
    """Why it cannot be used (truncated, not finite …); empty if it can."""
    mse_nrm: float | None = None
    """Squared distance of the unit vector to the AR's reconstruction from the text (0 to 4); None if no AR was asked."""


@runtime_checkable
class Verbalizer(Protocol):
    """Turns residual-stream vectors of one layer into text. `name` appears in every log and table; `layer` is the block K it reads.

    Modules of `nla.verbalizers` make it with a function `build(model, layer, nla)`; see `nla.verbalizers.verbalizer_for`.
    """

    @property
    def name(self) -> str:
        """The name that a user types."""
        ...

    @property
    def layer(self) -> int:
        """The block (0-based) whose output it reads."""
        ...

    @property
    def pair(self) -> str | None:
        """The pair that is known for the model, by name and content; None if the user named a pair, or none is needed."""
        ...

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """Explain vectors.

        Args:
            vectors: raw (never normalised) float32 residual-stream vectors.
            keys: one per vector; random draws for a vector depend on its key alone.

        Returns:
            One explanation per vector, in order.
        """
        ...


def usable_rows(vectors: Float[Tensor, "n d_model"]) -> Bool[Tensor, " n"]:
    """Return which vectors can be explained: those that are finite and not zero."""
    usable: Tensor = vectors.isfinite().all(dim=-1) & (torch.nan_to_num(vectors).norm(dim=-1) > 0)
    return usable


Options = TypeVar("Options", bound=BaseModel)


def read_options(kind: type[Options], typed: dict[str, str]) -> Options:
    """Return the options that a user typed after a verbalizer's name (`av:best_of=4`), checked.

    Raises:
        ConfigError: an unknown option, or an invalid value.
    """
    try:
        return kind.model_validate(typed)
    except ValidationError as ex:
        problems = (visible(f"{'.'.join(map(str, e['loc']))}={e['input']}", limit=80) + f": {e['msg']}" for e in ex.errors())
        raise ConfigError(f"{'; '.join(problems)}. Options: {', '.join(kind.model_fields)}.") from None


UNUSABLE = Explanation("", failure="vector is zero or not finite")
