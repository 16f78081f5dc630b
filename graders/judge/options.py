"""Options of the judge, as a user types them after its name: `judge:batch=8:blurb=none:max_requests=500`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nla.support.display import visible
from nla.support.errors import ConfigError, near_name

Blurb = Literal["evaluation", "none", "deployment"]


class JudgeOptions(BaseModel):
    """How the judge asks its model.

    One text costs at most `tries + retries` requests. In batches, each text without a usable grade is then asked about alone, with
    `tries - 1` further replies and its own `retries`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    blurb: Blurb = "evaluation"
    """`evaluation` passes on the scorer's blurb, `none` passes on nothing, `deployment` the same sentence for every text."""
    batch: int = Field(default=1, ge=1, le=100)
    """Texts per request. More are cheaper and may influence each other. Assistant turns are sent one by one, each after its context."""
    tries: int = Field(default=2, ge=1, le=20)
    """Replies asked for until one can be used; a cut, empty or unreadable reply counts as one."""
    retries: int = Field(default=5, ge=0, le=100)
    """Requests repeated after a temporary error of the provider, with growing pauses. The provider's client repeats none itself."""
    max_requests: int | None = Field(default=None, ge=1)
    """Most requests per evaluation, repeated ones included; texts beyond it are unscored. Replies from the cache cost none."""
    model: str = ""
    """The model to use where there are no model roles (`audit agreement`)."""


def parse_options(options: dict[str, str]) -> JudgeOptions:
    """Return the options that a user typed.

    Raises:
        ConfigError: there is no such option, or its value is not valid.
    """
    typed: dict[str, Any] = dict(options)
    try:
        return JudgeOptions(**typed)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        known = list(JudgeOptions.model_fields)
        if name not in known:
            raise ConfigError(
                f"The judge has no option '{visible(name, limit=40)}'; expected {', '.join(known)}.{near_name(name, known)}"
            ) from None
        raise ConfigError(
            f"Invalid option {name}={visible(options[name], limit=40)} of the judge: {fault['msg'].lower()}. "
            "Options follow the name, as in judge:batch=8:blurb=none."
        ) from None
