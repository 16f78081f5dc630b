"""Making an oracle: its questions are read once per folder, an adapter is trained on them, and the folder is written."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nla.models.adapters import AdapterSpec, add_adapter, load_adapter, shared_copy
from nla.models.loaded import load_model
from nla.models.sources import organism_names
from nla.oracle.model import Oracle
from nla.oracle.questions import Question
from nla.oracle.saved import OracleMeta, load_oracle, save_oracle
from nla.oracle.training import OracleStage
from nla.pair.contract import read_sidecar
from nla.pair.known import base_model, role_folder
from nla.readers.oracle_data import oracle_questions
from nla.training.loop import TrainConfig, fit
from nla.training.new_pair import seed_adapter

_NEW = AdapterSpec(rank=32, first_ranks=(128, 64))
"""The adapter of an oracle that does not start from an AV; that of the shipped AV."""


@dataclass(frozen=True)
class MadeOracle:
    """A trained oracle, with the questions it was trained on and those it was not."""

    oracle: Oracle
    train: list[Question]
    test: list[Question]


def train_oracle(
    pair: str,
    out: Path,
    config: TrainConfig,
    *,
    from_pair: bool = True,
    with_vector: bool = True,
    organism: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> MadeOracle:
    """Train an oracle and write it into a folder.

    Args:
        pair: the pair whose AV gives prompt, scale and layer.
        out: the folder; its `work/` holds checkpoints.
        config: how it is trained.
        from_pair: start from the pair's AV; otherwise from a new adapter.
        with_vector: give the vectors; otherwise the questions alone.
        organism: a model that carries the state; None takes the shipped organism `aware` of the base, where there is one.
        device: torch device name, or `auto`.
        dtype: of the base model.
        say: receives lines of progress.

    Raises:
        ContractError, ConfigError, ModelError, FetchError: a model or the pair cannot be used.
        DataError, StoppedError: see `nla.training.loop.fit`.
    """
    folder = role_folder(pair, "av")
    sidecar = read_sidecar(folder)
    base = base_model(sidecar, dtype=dtype, device=device)
    carrier = organism or next((name for name in organism_names() if name == f"{base.source.name}-aware"), None)
    train, test = oracle_questions(base, load_model(carrier, dtype=dtype, device=device) if carrier else None, sidecar.layer, say)
    role = shared_copy(base)
    if from_pair:
        load_adapter(role, folder, trainable=True)
    else:
        add_adapter(role, _NEW)
        seed_adapter(role, config.seed)
    stage = OracleStage(Oracle(role, sidecar), train, test, with_vector=with_vector)
    fit(stage, config, out / "work", say)
    arm = f"{'the AV of the pair' if from_pair else 'a new adapter'}, {'with' if with_vector else 'without'} vectors"
    save_oracle(out, stage.oracle, OracleMeta(arm, config.steps, dict(Counter(question.family for question in train))))
    oracle, _ = load_oracle(out, base)
    return MadeOracle(oracle, train, test)
