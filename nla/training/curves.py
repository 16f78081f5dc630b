"""The training curves of a pair as one figure, from the metrics its stages wrote."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nla.training.loop import METRICS

_PANELS = (
    ("av", "AV: nats a token", ("loss", "heldout_nats", "heldout_nats_shuffled")),
    ("ar", "AR: fve_nrm on held-out documents", ("heldout_fve_gold", "heldout_fve_sampled")),
    ("rl", "RL: fve_nrm on held-out documents, reward", ("heldout_fve", "reward")),
)
_NAMES = {
    "loss": "training",
    "heldout_nats": "held out",
    "heldout_nats_shuffled": "held out, another vector",
    "heldout_fve_gold": "teacher's explanation",
    "heldout_fve_sampled": "AV's own explanation",
    "heldout_fve": "round trip",
    "reward": "mean reward",
}


def draw_curves(work: Path, out: Path) -> None:
    """Write the curves of all stages that were trained in a working folder, as PNG or SVG by the name of `out`."""
    panels = [(work / stage / METRICS, title, columns) for stage, title, columns in _PANELS if (work / stage / METRICS).is_file()]
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    for axes, (path, title, columns) in zip(figure.subplots(1, max(len(panels), 1), squeeze=False)[0], panels, strict=False):
        table = pd.read_json(path, lines=True)
        for column in columns:
            if column in table:
                one = table[["step", column]].dropna()
                axes.plot(one.step, one[column], label=_NAMES[column], marker="" if column in ("loss", "reward") else "o", ms=3, lw=1)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=144, metadata={"Software": None} if out.suffix == ".png" else {"Date": None})
