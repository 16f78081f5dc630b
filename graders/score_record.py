"""What every scorer's record has, and how it is written into Inspect's `Score` and read back."""

from typing import Any, ClassVar, Self

from inspect_ai.scorer import Score
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from nla.support.errors import DataError

SCHEMA_VERSION = 1
"""Version 0 are the scores written before records existed."""
_BEFORE_DETAILS = "\n\n**Details**\n\n"
"""What stands in a score's explanation between the note and the details."""


class SampledToken(BaseModel):
    """Where one sampled response token is."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    token: str
    pass_index: int = Field(validation_alias=AliasChoices("pass_index", "pass"), serialization_alias="pass")
    position: int
    message: int
    channel: str
    """`thinking` or `answer`."""
    start: int | None = None
    """Character position of the token in the answer's text, or in the thinking's; None in older logs, and where it is not known."""


class ScoreRecord(BaseModel):
    """What every scorer's record has: a value, the reason why there is none, and fields that are kept in the score's metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    scorer: ClassVar[str]

    schema_version: int = SCHEMA_VERSION
    value: float | None = Field(default=None, exclude=True)
    """The score's value (1 for a flagged transcript); None for an unscored one."""
    reason: str = Field(default="", exclude=True)
    """Why the transcript is unscored; empty for a scored one."""
    note: str = Field(default="", exclude=True)
    """What Inspect shows beside the value."""

    @property
    def flagged(self) -> bool | None:
        """Whether the transcript is flagged; None for an unscored one, or for a value that is neither 0 nor 1."""
        return bool(self.value) if self.value in (0, 1) else None

    def details(self) -> str:
        """A Markdown table below the note, for `inspect view`; empty if there is nothing to add."""
        return ""

    def to_score(self) -> Score:
        """The record as Inspect stores it. The explanation is the note, and below it the details."""
        metadata = self.model_dump(mode="json", by_alias=True)
        details = self.details()
        explanation = f"{self.note}{_BEFORE_DETAILS}{details}" if details else self.note
        if self.value is None:
            return Score.unscored(reason=self.reason, explanation=explanation or None, metadata=metadata)
        return Score(value=self.value, explanation=explanation, metadata=metadata)

    @classmethod
    def from_score(cls, score: Score) -> Self:
        """The record in a stored score.

        Raises:
            DataError: a record of a newer version, with an unknown key, or with a value of the wrong type.
        """
        metadata = dict(score.metadata or {})
        version = metadata.get("schema_version", 0)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise DataError(
                f"A {cls.scorer} record has schema version {version}, but this program reads versions up to {SCHEMA_VERSION}; "
                "use the program that wrote the log, or a newer one."
            )
        fields = cls.upgraded(metadata) if version == 0 else metadata
        fields = {name: field for name, field in fields.items() if name not in cls.model_computed_fields}
        value = float(score.value) if isinstance(score.value, int | float) and score.value == score.value else None
        shown = {
            "value": value,
            "reason": score.reason or "" if value is None else "",
            "note": (score.explanation or "").partition(_BEFORE_DETAILS)[0],
        }
        try:
            return cls.model_validate(fields | shown)
        except ValidationError as ex:
            problem = ex.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            told = "an unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
            raise DataError(f"A {cls.scorer} record cannot be read: '{place}': {told}. Score the log again with `audit score`.") from None

    @classmethod
    def upgraded(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        """The fields of a record of version 0."""
        return metadata
