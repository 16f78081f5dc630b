"""The settings of `audit score`."""

from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError

from nla.instrument import Instrument
from nla.support.errors import ConfigError
from nla.support.plugins import split_spec


class RescoreConfig(Instrument):
    """The settings of `audit score`: those of the instrument, and which transcripts of which model are scored."""

    model: str | None = None
    """The open model that wrote the logs, if the model name in the logs does not identify it."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Model arguments as for -M, in the form NAME=VALUE and separated by commas. They must not contradict those in the log."""
    blurb: str = ""
    """Description of the evaluation, for graders that use it. By default the description in the log."""
    unmarked_replies: bool = False
    """Treat assistant messages without a recorded source as written by the model (for logs that other tools wrote)."""
    since: datetime | None = None
    """Only logs created at or after this time (ISO 8601)."""
    limit: int | None = Field(default=None, ge=1)
    """Number of transcripts per log; by default all."""


def make_rescore(fields: dict[str, Any]) -> RescoreConfig:
    """Return the settings from a dictionary of their fields.

    Raises:
        ConfigError: a field is unknown or invalid.
    """
    try:
        return RescoreConfig.model_validate(fields)
    except ValidationError as ex:
        problems = "; ".join(f"--{'.'.join(map(str, error['loc'])).replace('_', '-')}: {error['msg']}" for error in ex.errors()[:4])
        raise ConfigError(f"Invalid settings: {problems}. `audit score --help` lists them.") from None


def settings_of(config: RescoreConfig) -> dict[str, Any]:
    """Return the settings that all copies in a folder, and all shards, share. Which engine reads is one of them; where it runs is not."""
    settings = config.model_dump(mode="json", exclude={"since"})
    if "read_with" in config.model_args:
        settings["model_args"] |= {"read_with": split_spec(str(config.model_args["read_with"]))[0]}
    return settings
