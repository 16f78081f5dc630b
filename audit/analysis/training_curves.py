"""Training curves of the pair that read an audit's vectors, from the `curves.csv` that `nla train` writes into the pair's folder."""

from dataclasses import dataclass

import pandas as pd

from audit.config import AuditConfig


@dataclass(frozen=True)
class TrainingPoint:
    """The value of one metric after one step of a training stage (av, ar or rl)."""

    stage: str
    step: int
    name: str
    value: float


def training_points(config: AuditConfig) -> list[TrainingPoint]:
    """The training curves of an audit's pair; empty for other verbalizers and for pairs without curves. Nothing is fetched."""
    from nla.pair.known import local_folder
    from nla.training.curves import COLUMNS, TABLE_FILE

    if config.verbalizer.partition(":")[0] not in ("av", "av_vllm"):
        return []
    folder = local_folder(config.pair or config.model.removeprefix("local/"))
    path = None if folder is None else folder / TABLE_FILE
    if path is None or not path.is_file():
        return []
    try:
        table = pd.read_csv(path)[list(COLUMNS)].dropna()
        return [TrainingPoint(str(stage), int(step), str(name), float(value)) for stage, step, name, value in table.itertuples(index=False)]
    except (ValueError, KeyError):
        return []  # another program's file with the same name
