"""The config of a whole pair, read from a TOML file: base model, contract, adapters, data and every training stage."""

from math import inf
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nla.models.adapters import AdapterSpec
from nla.support.errors import ConfigError
from nla.support.toml_files import problems_of, read_toml
from nla.training.data.config import DataConfig
from nla.training.loop import TrainConfig


class SampleConfig(BaseModel):
    """How the AV's own explanations are drawn, from which the AR learns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=12_000, ge=1)
    """Number of training vectors that are explained."""
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=96, ge=8)
    gold_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the AR's training examples that are the teacher's explanations, of other vectors."""


class RLConfig(BaseModel):
    """Group-relative policy optimisation (GRPO) of the AV with the AR's error as reward, both trained on the same rollouts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: TrainConfig
    """`batch` counts vectors."""
    group: int = Field(default=8, ge=2)
    """Explanations drawn per vector."""
    learn_from: int | None = Field(default=None, ge=1)
    """Explanations per group that the AV learns from: those with the largest absolute advantages. The AR learns from all. None: all."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the rollouts, and of the distribution whose log-probabilities are trained."""
    max_tokens: int = Field(default=96, ge=8)
    kl: float = Field(default=0.05, ge=0)
    """Weight of the KL penalty towards the warm-started AV; the first one, where there is a target."""
    kl_target: float | None = Field(default=None, gt=0)
    """KL divergence, in nats per token, that the weight is steered towards. None: the weight never changes."""
    patience: int | None = Field(default=None, ge=1)
    """Evaluations after which training ends early if nothing is gained, or something else is lost (`rl_control`). None: it never does."""
    reward: str = Field(default="-mse", pattern="^(-mse|-log mse)$")
    failure_reward: float = -2.0
    """Reward of an explanation that failed or was truncated."""
    length_from: int = Field(default=64, ge=1)
    length_penalty: float = Field(default=0.005, ge=0)
    """Reward lost per token beyond `length_from`."""
    ar_lr_share: float = Field(default=1.0, ge=0)
    """The AR's learning rate as a share of the AV's."""
    anchors: int = Field(default=0, ge=0)
    """Vectors of known state per step on whose teacher's explanations the AV is trained besides: the reward alone unlearns what the AR
    does not need, and the claim of a state is such a thing."""
    anchor_weight: float = Field(default=0.5, ge=0)
    """Weight of their cross-entropy (nats per token)."""
    wrong_anchors: bool = False
    """Whether half of the anchors are vectors of which the AV, before this stage, claims a state that is not there (`anchors`)."""
    repeat_penalty: float = Field(default=0.0, ge=0)
    """Reward lost per word or candidate that a line lists twice."""
    invented_penalty: float = Field(default=0.0, ge=0)
    """Reward lost per quoted word that the text does not hold."""
    claim_penalty: float = Field(default=0.0, ge=0)
    """Reward lost by a claim of evaluation awareness where the teacher makes none."""
    silence_penalty: float = Field(default=0.0, ge=0)
    """Reward lost where the teacher makes that claim and the explanation does not. The larger `claim_penalty` is beside it, the surer the
    AV has to be before it claims the state."""

    @property
    def reads_claims(self) -> bool:
        """Whether rewards depend on what explanations claim, which the project's grader reads."""
        return bool(self.claim_penalty or self.silence_penalty)

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "RLConfig":
        if self.learn_from is not None and self.learn_from > self.group:
            raise ValueError(f"learn_from is {self.learn_from}, but a group has only {self.group} explanations")
        return self


class PairConfig(BaseModel):
    """Everything `nla data` and `nla train` need. Relative paths of corpora start from the folder given by `--corpora`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """Alias, hub id or folder of the base model."""
    base_checkpoint: str
    """Hub id of the base model, written into the pair's sidecars."""
    av_template: str
    """User message of the AV's prompt, with `{injection_char}` where the marker goes."""
    ar_template: str
    """The AR's plain-text prompt, with `{explanation}`."""
    marker: str
    """A character that is one token, whose embedding the vector replaces."""
    injection_scale: float | Literal["median"]
    """L2 norm that vectors are brought to; `median`: the median norm of the training data's vectors."""
    heldout_vectors: int = Field(default=384, ge=16)
    """Vectors of held-out documents that the stages are evaluated on."""
    temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature that the finished pair is used at."""
    max_tokens: int = Field(default=96, ge=8)
    lines_without_repeats: int = Field(default=0, ge=0)
    """First lines of an explanation in which the AV may not list a word or a candidate twice."""
    av_adapter: AdapterSpec = AdapterSpec()
    ar_adapter: AdapterSpec = AdapterSpec()
    data: DataConfig
    start: str | None = None
    """A pair of adapters with the same base model, layer and contract, whose AV and AR are trained further; None starts new ones."""
    av: TrainConfig
    samples: SampleConfig = SampleConfig()
    ar: TrainConfig
    paraphrases: float = Field(default=0.0, ge=0, le=1)
    """Share of the AR's explanations that are read with lines reversed or in lower case."""
    rl: RLConfig | None = None

    @field_validator("injection_scale", mode="before")
    @classmethod
    def _positive_or_median(cls, scale: object) -> object:
        number = isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale < inf
        if not number and scale != "median":
            raise ValueError(f'it is {str(scale)[:40]!r}; expected a number above 0, or "median"')
        return scale


def read_config(path: Path) -> PairConfig:
    """Read a pair's config file.

    Raises:
        ConfigError: the file is missing or not TOML, or has unknown fields or invalid values.
    """
    fields = read_toml(path)
    try:
        return PairConfig.model_validate(fields)
    except ValidationError as ex:
        raise ConfigError(f"{path} does not describe a pair: {problems_of(ex)}") from ex
