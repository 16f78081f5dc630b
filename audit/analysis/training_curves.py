"""How the pair that read an audit's vectors was trained, as far as its folder tells (`curves.csv`, written by `nla train`)."""

from dataclasses import dataclass

import pandas as pd

from audit.config import AuditConfig


@dataclass(frozen=True)
class TrainingPoint:
    """A figure of a stage (av, ar, rl) of the pair's training after some steps."""

    stage: str
    step: int
    name: str
    value: float


def training_points(config: AuditConfig) -> list[TrainingPoint]:
    """The training curves of an audit's pair; empty for other verbalizers, and for pairs that ship none. Nothing is fetched."""
    from nla.pair.known import local_folder
    from nla.training.curves import COLUMNS, TABLE_FILE

    if config.verbalizer.partition(":")[0] not in ("av", "av_vllm"):
        return []
    folder = local_folder(config.nla or config.model.removeprefix("local/"))
    path = None if folder is None else folder / TABLE_FILE
    if path is None or not path.is_file():
        return []
    try:
        table = pd.read_csv(path)[list(COLUMNS)].dropna()
        return [TrainingPoint(str(stage), int(step), str(name), float(value)) for stage, step, name, value in table.itertuples(index=False)]
    except (ValueError, KeyError):
        return []  # a stranger's file of that name
