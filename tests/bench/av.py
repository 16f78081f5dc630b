"""Speed of the AV engine against `transformers.generate` on the same weights, dtype and threads, and against a bare forward.

    python -m tests.bench.av [--vectors 200] [--tokens 60] [--prompt 110] [--turns 3] [--threads 2]

All sample the same number of new tokens for each vector; nothing stops early. `generate` runs on the merged checkpoint, as its
users would; the engine on the adapter over shared weights. `--prompt` is the least number of tokens of the AV's prompt: that of the
released pairs has about 110, ours 39 (`--prompt 0`). Everything is measured in turns in one run, since machines are noisy; rates are
medians over the turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from nla.engine.decoder import Decoder
from nla.models.loaded import LoadedModel
from nla.pair.contract import ar_prompt_ids, av_prompt_ids, scaled
from nla.pair.export import export_pair
from nla.pair.reconstructor import load_reconstructor
from nla.verbalizers.av import MAX_ROWS, ActivationVerbalizer, load_verbalizer

BATCH = 50
ONE_BY_ONE = 3
"""Vectors given to `generate` singly; the rate is per vector."""
ENGINE, SINGLE, BATCHED = f"AV engine (adapter, {MAX_ROWS} rows)", "generate, one by one", f"generate, batch of {BATCH}"
BARE, AR, BARE_AR = f"bare forward, {MAX_ROWS} rows", "AR scoring", "bare forward of the AR's blocks"


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def embedded_prompts(av: ActivationVerbalizer, vectors: Tensor, network: PreTrainedModel) -> Tensor:
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
    return Decoder(av.model, max_rows=MAX_ROWS).run(requests)


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


def with_prompt(av: ActivationVerbalizer, at_least: int) -> ActivationVerbalizer:
    """The AV with a prompt of at least so many tokens before its reply."""
    template = av.sidecar.template
    while len(av_prompt_ids(av.model.tokenizer, av.sidecar)) < at_least:
        template = "Explain what the vector stands for. " + template
        av = replace(av, sidecar=replace(av.sidecar, template=template))
    return av


def show(rates: dict[str, float], title: str) -> None:
    """A table of rates and of what they are of each other."""
    table = Table("what", title=title)
    for heading in ("explanations/s", "engine is"):
        table.add_column(heading, justify="right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.2f}", f"{rates[ENGINE] / rate:.2f}x" if name in (SINGLE, BATCHED, BARE) else "")
    Console().print(table)
    Console().print(f"AR scoring is {rates[AR] / rates[BARE_AR]:.2f}x its bare forward passes")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("vectors", 200), ("tokens", 60), ("prompt", 110), ("turns", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    own, base = load_verbalizer("smollm2", device="cpu")
    av = with_prompt(own, given.prompt)
    vectors = torch.randn(given.vectors, base.d_model, generator=torch.Generator().manual_seed(0))
    texts = [one.text or "-" for one in own.verbalize(vectors, [(i,) for i in range(len(vectors))])]
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder = export_pair("smollm2", Path(scratch) / "pair", dtype=base.precision.name)[0]
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=base.precision.dtype).eval()
        embeds = embedded_prompts(av, vectors, network)
        generate(network, embeds[:2], 4)  # warm-up
        rates: dict[str, list[float]] = {}
        for _ in track(range(given.turns), "turns"):
            measured = {
                ENGINE: given.vectors / seconds(lambda: engine(av, vectors, given.tokens)),
                SINGLE: ONE_BY_ONE / seconds(lambda: [generate(network, embeds[i : i + 1], given.tokens) for i in range(ONE_BY_ONE)]),
                BATCHED: BATCH / seconds(lambda: generate(network, embeds[:BATCH], given.tokens)),
                BARE: MAX_ROWS / seconds(lambda: bare_steps(network, MAX_ROWS, embeds.shape[1], given.tokens)),
            }
            measured[AR], measured[BARE_AR] = ar_rates(texts, base)
            for name, rate in measured.items():
                rates.setdefault(name, []).append(rate)
    what = (
        f"{given.vectors} vectors, prompt of {embeds.shape[1]}, {given.tokens} new tokens, {base.precision.name}, {given.threads} threads"
    )
    show({name: statistics.median(of) for name, of in rates.items()}, what)


if __name__ == "__main__":
    main()
