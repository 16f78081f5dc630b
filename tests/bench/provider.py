"""`local/` against Inspect's `hf/` on the same weights, and the cost of capture. Prints ratios measured in one run.

    python -m tests.bench.provider [--items 32] [--new-tokens 64] [--threads 2]

Three figures (bars of the issue in brackets): throughput over MMLU-style items [local at least 2x hf]; latency of a single
short turn [local at most a third of hf]; capture of a 512-token transcript as a share of generating its response [at most 15 %].
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import torch
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig, Model, get_model
from rich.console import Console
from rich.table import Table

from nla.activations.capture import residual_stream
from nla.models.embedded import ensure_embedded
from nla.models.loaded import load_model
from nla.support.rows import read_file

ITEMS = Path(__file__).parents[2] / "tasks" / "data" / "mmlu.jsonl"
PROMPT = "Answer the following multiple choice question. Think step by step, then end with 'ANSWER: LETTER'.\n\n{question}\n\n{options}"


def prompts(n: int) -> list[str]:
    """The bundled questions as prompts."""
    rows = read_file(ITEMS)[:n]
    return [
        PROMPT.format(question=row["question"], options="\n".join(f"{'ABCD'[i]}) {c}" for i, c in enumerate(row["choices"])))
        for row in rows
    ]


async def items_per_second(model: Model, texts: list[str], new_tokens: int) -> float:
    """Items finished per second; the fair figure, since `hf/` counts padding as usage."""
    config = GenerateConfig(max_tokens=new_tokens, temperature=1.0, max_connections=len(texts))
    start = time.perf_counter()
    await asyncio.gather(*(model.generate([ChatMessageUser(content=text)], config=config) for text in texts))
    return len(texts) / (time.perf_counter() - start)


async def latency(model: Model) -> float:
    """Median seconds of a single short turn of 8 new tokens, of 5."""
    times = []
    for i in range(5):
        start = time.perf_counter()
        await model.generate([ChatMessageUser(content=f"Say hello to number {i}.")], config=GenerateConfig(max_tokens=8, temperature=1.0))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_fresh_loop(make: Callable[[], Coroutine[Any, Any, float]]) -> float:
    """Run a coroutine to its end."""
    return asyncio.run(make())


def capture_share(name: str, dtype: str) -> tuple[float, float]:
    """Seconds to capture a 512-token transcript at the default layer, and to generate its 384-token response alone."""
    model = load_model(name, dtype=dtype)
    local = get_model(f"local/{name}", dtype=dtype)
    ids = [int(i) for i in torch.randint(1_000, 40_000, (512,), generator=torch.Generator().manual_seed(0))]
    residual_stream(model, ids, model.default_layer)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        residual_stream(model, ids, model.default_layer)
        times.append(time.perf_counter() - start)

    async def generate() -> float:
        turn = [
            ChatMessageUser(content=str(model.tokenizer.decode(ids[:100]))),
            ChatMessageAssistant(content="ok"),
            ChatMessageUser(content="Go on."),
        ]
        start = time.perf_counter()
        output = await local.generate(turn, config=GenerateConfig(max_tokens=384, temperature=1.0, seed=1))
        assert output.usage is not None
        return (time.perf_counter() - start) * 384 / max(output.usage.output_tokens, 1)

    return statistics.median(times), in_fresh_loop(generate)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = str(ensure_embedded())
    texts = prompts(options.items)
    local = get_model(f"local/{folder}", dtype=options.dtype, threads=options.threads)
    hf = get_model(f"hf/{folder}", device="cpu", dtype=options.dtype)
    for model in (local, hf):  # kernels are compiled for each new shape; neither side pays for that here
        in_fresh_loop(lambda model=model: items_per_second(model, texts, 8))
    rounds = [
        [in_fresh_loop(lambda model=model: items_per_second(model, texts, options.new_tokens)) for model in (local, hf)] for _ in range(3)
    ]
    speed = [statistics.median(values) for values in zip(*rounds, strict=True)]
    wait = [in_fresh_loop(lambda model=model: latency(model)) for model in (local, hf)]
    capture, generation = capture_share(folder, options.dtype)
    table = Table(
        "figure",
        "local/",
        "hf/",
        "ratio",
        title=f"{options.items} items, {options.new_tokens} new tokens, {options.dtype}, {options.threads} threads",
    )
    table.add_row("items per second (median of 3)", f"{speed[0]:.2f}", f"{speed[1]:.2f}", f"{speed[0] / speed[1]:.2f}x")
    table.add_row("seconds of a short turn (median of 5)", f"{wait[0]:.2f}", f"{wait[1]:.2f}", f"{wait[0] / wait[1]:.2f}x")
    table.add_row("capture / generation of 512 tokens, s", f"{capture:.2f}", f"{generation:.2f}", f"{capture / generation:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
