"""The contract every verbalizer keeps: `[n, d_model]` vectors in, n explanations out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ValidationError
from torch import Tensor

from nla.support.errors import ConfigError


@dataclass(frozen=True)
class Explanation:
    """A verbalised vector. A failed one has `failure` set and is unscored, whatever its text."""

    text: str
    failure: str = ""
    """Why it cannot be used (truncated, not finite …); empty for a good one."""
    mse_nrm: float | None = None
    """Squared distance of unit vectors between the vector and what an AR makes of the text (0 to 4), where one was asked."""


@runtime_checkable
class Verbalizer(Protocol):
    """Turns residual-stream vectors of one layer into text. `name` stands in every log and table, `layer` is the block K it reads.

    Modules of `nla.verbalizers` offer one by a function `build(model, layer, nla)`; see `nla.verbalizers.verbalizer_for`.
    """

    @property
    def name(self) -> str:
        """What a user types."""
        ...

    @property
    def layer(self) -> int:
        """The block (0-based) whose output it reads."""
        ...

    @property
    def pair(self) -> str | None:
        """Which known pair was found for the model, by name and content; None where the user named one, or none is needed."""
        ...

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """Explain vectors.

        Args:
            vectors: raw (never normalised) float32 residual-stream vectors.
            keys: one a vector; random draws for a vector depend on its key alone.

        Returns:
            One explanation a vector, in order.
        """
        ...


def usable_rows(vectors: Float[Tensor, "n d_model"]) -> Bool[Tensor, " n"]:
    """Which vectors can be explained: finite and not zero."""
    usable: Tensor = vectors.isfinite().all(dim=-1) & (torch.nan_to_num(vectors).norm(dim=-1) > 0)
    return usable


Options = TypeVar("Options", bound=BaseModel)


def read_options(kind: type[Options], typed: dict[str, str]) -> Options:
    """What a user typed after a verbalizer's name (`av:best_of=4`), checked.

    Raises:
        ConfigError: an unknown option, or a value that makes no sense.
    """
    try:
        return kind.model_validate(typed)
    except ValidationError as ex:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}={e['input']}: {e['msg']}" for e in ex.errors())
        raise ConfigError(f"{problems}. Options: {', '.join(kind.model_fields)}.") from None


UNUSABLE = Explanation("", failure="vector is zero or not finite")
