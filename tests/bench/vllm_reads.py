"""What reading costs vLLM: teacher-forced sequences with the residual stream of one block, beside plain prefill of the same sequences.

    V/bin/python -m tests.bench.vllm_reads [--rows 32] [--tokens 256] [--turns 5]

V is an environment that holds vLLM beside the harness (nla/engine/README.md). Both run in turns in one process; the built-in engine's
reads of the same sequences are measured beside them. Loading is not counted.
"""

import argparse
import statistics

import torch
from rich.console import Console

from nla.activations.capture import streams
from nla.engine.hooked import Question
from nla.engine.vllm import EngineSettings, VLLMEngine
from nla.models.embedded import embedded_dir
from nla.models.loaded import load_model
from tests.bench.av import seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 32), ("tokens", 256), ("turns", 5), ("layer", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    model = load_model("smollm2", dtype="float32", device="cpu")
    draws = torch.Generator().manual_seed(0)
    engine = VLLMEngine(embedded_dir(), "float32", on_cpu=True, settings=EngineSettings(max_model_len=given.tokens + 8))
    sampling = {"max_tokens": 1, "temperature": 0.0}
    times: dict[str, list[float]] = {"plain prefill": [], "read": [], "built-in read": []}
    for turn in range(given.turns + 1):
        rows = torch.randint(100, 40_000, (given.rows, given.tokens), generator=draws).tolist()
        took = {
            "plain prefill": seconds(lambda rows=rows: engine.answers([Question(row, sampling) for row in rows])),  # type: ignore[misc]
            "read": seconds(lambda rows=rows: engine.read(rows, given.layer)),  # type: ignore[misc]
            "built-in read": seconds(lambda rows=rows: list(streams(model, rows, given.layer))),  # type: ignore[misc]
        }
        if turn:  # the first one compiles kernels
            for name, value in took.items():
                times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    shown = ", ".join(f"{name} {value:.2f} s" for name, value in medians.items())
    Console().print(f"{given.rows} sequences of {given.tokens} tokens: {shown}; read is {medians['read'] / medians['plain prefill']:.2f}x")


if __name__ == "__main__":
    main()
