"""Speed of the AV engine against `transformers.generate` on the same weights, dtype and threads, and against a bare forward.

    python -m tests.bench.av [--vectors 100] [--tokens 60] [--threads 2]

All sample the same number of new tokens for each vector; nothing stops early. `generate` runs on the merged checkpoint, as its
users would; the engine on the adapter over shared weights. Ratios are measured in one run, since machines are noisy.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from nla.contract import ar_prompt_ids, av_prompt_ids, scaled
from nla.decoding import Decoder
from nla.export import export_pair
from nla.model import LoadedModel
from nla.reconstructor import load_reconstructor
from nla.verbalizers.av import ActivationVerbalizer, load_verbalizer

BATCH = 50
ONE_BY_ONE = 3
"""Vectors given to `generate` singly; the rate is per vector."""


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def prompts(av: ActivationVerbalizer, vectors: Tensor, network: PreTrainedModel) -> Tensor:
    """Prompt embeddings `[n, pos, d_model]` with the vectors in place, for `generate`."""
    ids = av_prompt_ids(av.model.tokenizer, av.sidecar)
    assert av.sidecar.marker is not None
    [at] = av.sidecar.marker.positions(ids)
    embeds = network.get_input_embeddings()(torch.tensor([ids])).repeat(len(vectors), 1, 1)
    embeds[:, at] = scaled(vectors, av.sidecar.injection_scale).to(embeds)
    return embeds


def generate(network: PreTrainedModel, embeds: Tensor, tokens: int) -> object:
    """transformers' own sampling."""
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    return network.generate(
        inputs_embeds=embeds, attention_mask=mask, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=True, pad_token_id=0
    )


def engine(av: ActivationVerbalizer, vectors: Tensor, tokens: int) -> object:
    """The AV engine, told not to stop early."""
    requests = av.requests(vectors, [(i,) for i in range(len(vectors))])
    for request in requests:
        request.max_tokens, request.stop_ids, request.should_stop = tokens, frozenset(), None
    return Decoder(av.model, max_rows=64).run(requests)


def bare_steps(network: PreTrainedModel, rows: int, positions: int, tokens: int) -> None:
    """As many forward passes of one token a row over a cache of about the same length: no sampling, no bookkeeping."""
    cache = network(torch.zeros(rows, positions, dtype=torch.long), use_cache=True, logits_to_keep=1).past_key_values
    for _ in range(tokens):
        network(torch.zeros(rows, 1, dtype=torch.long), past_key_values=cache, use_cache=True)


def ar_rates(texts: list[str], base: LoadedModel) -> tuple[float, float]:
    """(explanations a second that the AR scores, the same for its bare forward passes over the same padded batches)."""
    ar = load_reconstructor("smollm2", base, dtype=base.precision.name, device="cpu")
    prompts = sorted((ar_prompt_ids(base.tokenizer, ar.sidecar, text) for text in texts), key=len)
    batches = [prompts[start : start + 64] for start in range(0, len(prompts), 64)]
    padded = [torch.tensor([row + [0] * (len(batch[-1]) - len(row)) for row in batch]) for batch in batches]
    vectors = torch.randn(len(texts), base.d_model)
    ar.score(vectors[:8], texts[:8])  # warm-up
    scored = seconds(lambda: ar.score(vectors, texts))
    bare = seconds(lambda: [ar.model.network.get_decoder()(input_ids=ids, use_cache=False) for ids in padded])
    return len(texts) / scored, len(texts) / bare


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("vectors", 100), ("tokens", 60), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    av, base = load_verbalizer("smollm2", device="cpu")
    vectors = torch.randn(given.vectors, base.d_model, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder = export_pair("smollm2", Path(scratch) / "pair", dtype=base.precision.name)[0]
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=base.precision.dtype).eval()
        embeds = prompts(av, vectors, network)
        engine(replace(av), vectors[:8], 4)  # warm-up
        generate(network, embeds[:2], 4)
        ours = given.vectors / seconds(lambda: engine(av, vectors, given.tokens))
        batched = BATCH / seconds(lambda: generate(network, embeds[:BATCH], given.tokens))
        single = ONE_BY_ONE / seconds(lambda: [generate(network, embeds[i : i + 1], given.tokens) for i in range(ONE_BY_ONE)])
        texts = [one.text or "-" for one in av.verbalize(vectors, [(i,) for i in range(len(vectors))])]
        scored, bare_ar = ar_rates(texts, base)
        bare = 64 / seconds(lambda: bare_steps(network, 64, embeds.shape[1], given.tokens))
    table = Table(title=f"{given.vectors} vectors, {given.tokens} new tokens, {base.precision.name}, {given.threads} threads")
    for heading in ("what", "explanations/s", "engine is"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    table.add_row("AV engine (adapter, 64 rows)", f"{ours:.2f}", "")
    for name, rate in (("generate, one by one", single), (f"generate, batch of {BATCH}", batched), ("bare forward, 64 rows", bare)):
        table.add_row(name, f"{rate:.2f}", f"{ours / rate:.2f}x")
    table.add_row("AR scoring", f"{scored:.2f}", "")
    table.add_row("bare forward of the AR's blocks", f"{bare_ar:.2f}", f"AR is {scored / bare_ar:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
