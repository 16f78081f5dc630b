"""The instrument: every setting of a measurement, with one set of defaults for all commands.

An `Instrument` is built once, from the `-T` parameters of a task or from an audit's configuration, is handed on whole, and is recorded
in every score. Two transcripts may be pooled only if their instruments agree.
"""

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError, field_validator

from nla.support.errors import ConfigError, near_name
from nla.support.plugins import VERBALIZERS

AUTO = "auto"
"""The verbalizer that takes the trained pair known for the model if there is one, and the logit lens otherwise."""
MEAN_NORM, CONTRAST = "mean_norm", "contrast"
STEER_UNITS = (MEAN_NORM, CONTRAST)
"""Units of a steering strength: the mean activation norm at the middle layer, or (in logs of the first version) the contrast itself."""
DEFAULT_TOKENS = 50
"""Response tokens read per transcript, as in the NLA paper."""


class Instrument(BaseModel):
    """What is measured and with what. All fields are keyword-only.

    The settings leave two things open that depend on the model: `layer` and `verbalizer` may be chosen from it. What was chosen is
    recorded beside the instrument in every `AwarenessRecord`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    measures: tuple[str, ...] = ("nla", "probe", "follow_up", "verbalized")
    """Measures to take, by the names of the scorers `graders/scorers/NAME_awareness.py`."""
    tokens: StrictInt = Field(default=DEFAULT_TOKENS, ge=1)
    """Response tokens to read per transcript; all of them if the response is shorter."""
    layer: StrictInt | None = Field(default=None, ge=0)
    """K, the decoder block (0-based) whose output is read. None takes the layer of the trained pair, or two thirds of the depth."""
    verbalizer: str = AUTO
    """Module of `nla/verbalizers` that turns vectors into text, with options after a colon, or `auto`."""
    pair: str | None = Field(default=None, validation_alias=AliasChoices("pair", "nla"))
    """The trained pair for verbalizer `av` (alias, folder or hub id). None takes the pair known for the model."""
    probes: tuple[str, ...] = ()
    """Contrast sets for the measure `probe`: names of sets or paths of JSONL files. By default all sets that ship with the project."""
    calibration: str | None = None
    """File of `audit calibrate`, with which the measure `probe` also gives z-scores against deployment transcripts."""
    grader: str = "rules"
    """Module of `graders` that grades the texts, with options after a colon."""
    seed: StrictInt = Field(default=0, ge=0)
    """Seed of the choice of tokens and of the draws in verbalizing."""
    project_out: StrictBool = False
    """Whether the steering direction is taken out of the vectors before they are verbalized. Without steering nothing changes."""

    @field_validator("measures", "probes", mode="before")
    @classmethod
    def _split(cls, names: Any) -> Any:
        return tuple(name.strip() for name in names.split(",") if name.strip()) if isinstance(names, str) else names

    @field_validator("measures")
    @classmethod
    def _at_least_one(cls, measures: tuple[str, ...]) -> tuple[str, ...]:
        if not measures or len(set(measures)) < len(measures):
            raise ValueError("expected one or more different names")
        return measures

    @property
    def instrument(self) -> "Instrument":
        """These settings alone, without the fields that a class derived from this one adds."""
        return Instrument(**{name: getattr(self, name) for name in Instrument.model_fields})

    def parameters(self) -> dict[str, Any]:
        """The settings as the flat `-T` parameters of a task; `pair` is called `nla` there."""
        settings = self.model_dump(mode="json")
        settings |= {"measures": ",".join(self.measures), "probes": ",".join(self.probes)}
        settings["nla"] = settings.pop("pair")
        return settings


PARAMETERS: dict[str, Any] = Instrument().parameters()
"""Names and defaults of the `-T` parameters that describe an instrument."""


def make_instrument(**parameters: Any) -> Instrument:
    """The instrument described by flat parameters, as users type them (`-T tokens=20 -T nla=FOLDER`).

    Raises:
        ConfigError: an unknown parameter, a value of the wrong type or range, or an unknown verbalizer.
    """
    try:
        instrument = Instrument.model_validate(parameters)
    except ValidationError as ex:
        raise ConfigError("; ".join(_problem(error) for error in ex.errors())) from None
    if instrument.verbalizer != AUTO:
        VERBALIZERS.check(instrument.verbalizer)
    return instrument


def _problem(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "instrument"
    if error["type"] == "extra_forbidden":
        return f"Unknown parameter {name}; expected one of {', '.join(PARAMETERS)}.{near_name(name, PARAMETERS)}"
    return f"Invalid {name}={str(error['input'])[:80]}: expected {_EXPECTED.get(name, error['msg'])}."


_EXPECTED = {
    "tokens": "an integer of at least 1",
    "layer": "an integer of at least 0",
    "seed": "an integer of at least 0",
    "project_out": "true or false",
    "verbalizer": "a name",
    "grader": "a name",
    "pair": "an alias, folder or hub id",
    "nla": "an alias, folder or hub id",
    "measures": "one or more different names, separated by commas",
    "calibration": "the path of a file that `audit calibrate` wrote",
    "probes": "names of contrast sets or paths of JSONL files, separated by commas",
}
