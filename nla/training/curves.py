"""The training curves of a pair: a small table that ships with it (`curves.csv`), and the figure of that table."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nla.support.files import replacing

TABLE_FILE = "curves.csv"
COLUMNS = ("stage", "step", "name", "value")
_WINDOW = 10
"""Steps whose mean stands for what is recorded at every step."""
_PANELS = {
    "av": ("AV: nats a token", ("loss", "heldout_nats", "heldout_nats_shuffled")),
    "ar": ("AR: fve_nrm, held-out documents", ("heldout_fve_gold", "heldout_fve_sampled")),
    "rl": ("RL: fve_nrm, held-out documents; reward", ("heldout_fve", "reward")),
}
_NAMES = {
    "loss": "training",
    "heldout_nats": "held out",
    "heldout_nats_shuffled": "held out, another vector",
    "heldout_fve_gold": "teacher's explanation",
    "heldout_fve_sampled": "AV's own explanation",
    "heldout_fve": "round trip",
    "reward": f"reward, mean of {_WINDOW} steps",
}


def write_curves(work: Path, pair: Path) -> None:
    """Write `curves.csv` and `curves.png` of all stages that were trained in a working folder into the pair's folder."""
    table = collect(work)
    with replacing(pair / TABLE_FILE) as scratch:
        table.to_csv(scratch, index=False)
    with replacing(pair / "curves.png") as scratch:
        draw_curves(table).savefig(scratch, dpi=144, format="png", bbox_inches="tight", metadata={"Software": None})


def collect(work: Path) -> pd.DataFrame:
    """The stages' metrics as one long table (`COLUMNS`): held-out figures as they are, others as means of ten steps."""
    from nla.training.loop import METRICS

    parts = []
    for stage, (_, names) in _PANELS.items():
        path = work / stage / METRICS
        if not path.is_file():
            continue
        metrics = pd.read_json(path, lines=True)
        for name in names:
            if name in metrics:
                one = metrics[["step", name]].dropna()
                if not name.startswith("heldout_"):
                    last_of_window = -(-one.step // _WINDOW) * _WINDOW
                    one = one.groupby(last_of_window.clip(upper=one.step.max()))[name].mean().reset_index()
                parts.append(pd.DataFrame({"stage": stage, "step": one.step, "name": name, "value": one[name].round(4)}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def draw_curves(table: pd.DataFrame) -> Figure:
    """One panel a stage of a table as `collect` makes it."""
    stages = [stage for stage in _PANELS if bool((table["stage"] == stage).any())]
    figure = Figure(figsize=(4.2 * max(len(stages), 1), 3.2))
    for axes, stage in zip(figure.subplots(1, max(len(stages), 1), squeeze=False)[0], stages, strict=False):
        title, names = _PANELS[stage]
        for name in names:
            one = table[(table["stage"] == stage) & (table["name"] == name)]
            if len(one):
                axes.plot(one.step, one.value, label=_NAMES[name], marker="o" if name.startswith("heldout_") else "", ms=3, lw=1)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
    return figure
