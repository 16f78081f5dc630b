"""Train the three stages of a tiny pair for a few steps, and the first one for a time, by clocks that differ from process to process.

The trained parameters are written, one file per process.

`python -m tests.train_in_processes MODEL AV OUT`, alone or under `accelerate launch`.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from nla.models.loaded import load_model
from nla.training.loop import Limits, TrainConfig, fit
from nla.training.rl import RLStage, Rollout
from tests.test_training import TEXTS, VECTORS, ar_stage, av_stage, randomised, rl_stage, trained


class AllGood(RLStage):
    """Reinforcement learning that takes every reply for an explanation: a random model closes no tags."""

    def _rollouts(self, rows: list[int], step: int) -> list[Rollout]:
        drawn = super()._rollouts(rows, step)
        return [replace(rollout, explanation=replace(rollout.explanation, failure="")) for rollout in drawn]


def main(model_folder: str, av_folder: str, out: str) -> None:
    """Train and write."""
    model, av = load_model(model_folder, dtype="float32", device="cpu"), Path(av_folder)
    folder, rank = Path(out), os.environ.get("RANK", "0")
    rl = rl_stage(model, av, anchors=(VECTORS[:3], TEXTS[:3]))
    for copied in (rl.av, rl.reference, rl.actor, rl.ar):
        randomised(copied)
    fields = {name: getattr(rl, name) for name in rl.__dataclass_fields__}
    stages = {"av": av_stage(model, av), "ar": ar_stage(model, av), "rl": AllGood(**{**fields, "paraphrases": 0.5})}
    # Five examples for two processes: their shares are of unequal size.
    config = TrainConfig(steps=3, batch=5, lr=1e-3, warmup=1, eval_every=3)
    for name, stage in stages.items():
        fit(stage, config, folder / name, lambda _: None)
        parameters = [parameter.detach() for parameter in trained(stage)]
        torch.save((PartialState().num_processes, parameters), folder / f"{name}-{rank}.pt")
    clock, speed = time.monotonic, 1 + int(rank)
    time.monotonic = lambda: clock() * speed
    timed = av_stage(model, av)
    fit(timed, config.model_copy(update={"steps": 10_000, "checkpoint_every": 1}), folder / "timed", lambda _: None, Limits(seconds=2))
    torch.save([parameter.detach() for parameter in trained(timed)], folder / f"timed-{rank}.pt")


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    main(*arguments)
