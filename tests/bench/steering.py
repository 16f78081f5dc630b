"""Speed of steered generation against unsteered: same prompts, tokens and batch, in turns, in one run.

python -m tests.bench.steering [--rows 16] [--tokens 64] [--turns 3] [--threads 2]
"""

import argparse
import statistics
import time

import torch
from rich.console import Console

from nla.activations.steering import steered
from nla.engine.decoder import Decoder, Request
from nla.models.chat_template import encode, render
from nla.models.loaded import LoadedModel, load_model


def seconds(model: LoadedModel, rows: int, tokens: int) -> float:
    """How long some rows take; every row writes all its tokens."""
    tokenizer = model.tokenizer
    texts = [f"Tell me about the number {i} and where one meets it in everyday life." for i in range(rows)]
    prompts = [encode(tokenizer, render(tokenizer, [{"role": "user", "content": text}], [], add_generation_prompt=True)) for text in texts]
    requests = [Request(prompt, tokens, seed=("bench", i)) for i, prompt in enumerate(prompts)]
    start = time.perf_counter()
    Decoder(model, max_rows=rows).run(requests)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 16), ("tokens", 64), ("turns", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    plain = load_model("smollm2", device="cpu")
    view = steered(plain, "awareness:+0.02")
    times: dict[str, list[float]] = {"plain": [], "steered": []}
    for turn in range(given.turns + 1):  # the first turn warms up
        for name, model in (("plain", plain), ("steered", view)):
            took = seconds(model, given.rows, given.tokens)
            if turn:
                times[name].append(took)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    told = f"plain {middle['plain']:.2f} s, steered {middle['steered']:.2f} s: {middle['plain'] / middle['steered']:.2f}x the speed"
    Console().print(f"{told} ({plain.precision.name}, {given.threads} threads, median of {given.turns})")


if __name__ == "__main__":
    main()
