"""One config for a whole pair: base model, contract, adapters and every stage of training. Read from a TOML file, kept with the run."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nla.models.adapters import AdapterSpec
from nla.support.errors import ConfigError
from nla.training.data.extract import DataConfig
from nla.training.loop import TrainConfig


class SampleConfig(BaseModel):
    """How the AV's own explanations are drawn, for the AR to learn from: of `n` training vectors, at `temperature`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=12_000, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=96, ge=8)
    gold_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the AR's examples that are the teacher's explanations, of other vectors."""


class RLConfig(BaseModel):
    """Group-relative policy optimisation (GRPO) of the AV against the AR, both trained on the same rollouts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: TrainConfig
    group: int = Field(default=8, ge=2)
    """Explanations drawn for a vector."""
    learn_from: int | None = Field(default=None, ge=1)
    """How many of a group the AV learns from: those with the greatest advantages either way (the AR learns from all). None: all."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the rollouts, and of the policy whose log-probabilities are raised and lowered."""
    max_tokens: int = Field(default=96, ge=8)
    kl: float = Field(default=0.05, ge=0)
    reward: str = Field(default="-mse", pattern="^(-mse|-log mse)$")
    failure_reward: float = -2.0
    length_from: int = Field(default=64, ge=1)
    length_penalty: float = Field(default=0.005, ge=0)
    """Reward lost for each token beyond `length_from`."""
    ar_lr_share: float = Field(default=1.0, ge=0)
    """The AR's learning rate, as a share of the AV's."""

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "RLConfig":
        if self.learn_from is not None and self.learn_from > self.group:
            raise ValueError(f"learn_from is {self.learn_from}, but a group has only {self.group} explanations")
        return self


class PairConfig(BaseModel):
    """Everything `nla train` needs. Relative paths of corpora start from `corpora_base` (a command-line option)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    base_checkpoint: str
    av_template: str
    ar_template: str
    marker: str
    injection_scale: float = Field(gt=0)
    heldout_vectors: int = Field(default=384, ge=16)
    temperature: float = Field(default=0.7, ge=0)
    """The temperature the pair is shipped with."""
    max_tokens: int = Field(default=96, ge=8)
    av_adapter: AdapterSpec = AdapterSpec()
    ar_adapter: AdapterSpec = AdapterSpec()
    data: DataConfig
    start: str | None = None
    """A pair of adapters of the same base, layer and contract whose AV the warm start continues; None starts afresh."""
    av: TrainConfig
    samples: SampleConfig = SampleConfig()
    ar: TrainConfig
    rl: RLConfig | None = None


def read_config(path: Path) -> PairConfig:
    """A pair's config file.

    Raises:
        ConfigError: missing, not TOML, or with unknown or ill-formed fields.
    """
    try:
        return PairConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as ex:
        raise ConfigError(f"{path} cannot be read: {ex.strerror}.") from ex
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as ex:
        raise ConfigError(f"{path} is not TOML: {ex}") from ex
    except ValidationError as ex:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in ex.errors()[:4])
        raise ConfigError(f"{path} does not describe a pair: {problems}") from ex
