"""The settings of `audit score`."""

from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError

from nla.instrument import Instrument
from nla.support.errors import ConfigError


class RescoreConfig(Instrument):
    """What `audit score` does: the settings of its instrument, and which transcripts of which model are read."""

    model: str | None = None
    """The open model that wrote the logs, if their model name does not say."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Model arguments, as after -M: NAME=VALUE, separated by commas. They must not contradict those in the log."""
    blurb: str = ""
    """What the evaluation is, for graders that use it. By default what the log says."""
    unmarked_replies: bool = False
    """Take assistant messages without a recorded source for the model's own words (logs that other tools wrote)."""
    since: datetime | None = None
    """Only logs created at or after this time (ISO 8601)."""
    limit: int | None = Field(default=None, ge=1)
    """Transcripts per log; by default all."""

    @property
    def instrument(self) -> Instrument:
        """The settings of the measurement alone."""
        return Instrument(**{name: getattr(self, name) for name in Instrument.model_fields})


def make_rescore(fields: dict[str, Any]) -> RescoreConfig:
    """The settings from their fields.

    Raises:
        ConfigError: unknown or invalid fields.
    """
    try:
        return RescoreConfig.model_validate(fields)
    except ValidationError as ex:
        problems = "; ".join(f"--{'.'.join(map(str, error['loc'])).replace('_', '-')}: {error['msg']}" for error in ex.errors()[:4])
        raise ConfigError(f"Invalid settings: {problems}. `audit score --help` lists them.") from None
