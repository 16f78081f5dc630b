"""What `nla plan` says about memory beside what a step of training takes here: peak resident memory above what was there before it.

    python -m tests.bench.plan [--rows 16] [--tokens 96]

One process per model: the embedded model, and a random Llama of 12 blocks with 512 dimensions. In float32 on the processor; attention is
the plain one that training takes there, while the plan counts that of a GPU.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from nla.models.adapters import AdapterSpec, add_adapter, shared_copy
from nla.models.embedded import embedded_dir
from nla.models.loaded import load_model
from nla.pair.contract import read_sidecar
from nla.pair.known import SHIPPED
from nla.training.av import AVStage
from nla.training.loop import TrainConfig, fit
from nla.training.new_pair import seed_adapter
from nla.training.plan import Shape, plan_of

SPEC = AdapterSpec(rank=32)


def resident(name: str) -> float:
    """Memory of this process in GB: VmRSS now, or VmHWM at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e9


def one(folder: str, rows: int, tokens: int) -> tuple[float, float]:
    """GB that a step takes here above what was there before, and that the plan says."""
    model = load_model(folder, dtype="float32", device="cpu")
    role = shared_copy(model)
    add_adapter(role, SPEC)
    seed_adapter(role, 0)
    sidecar = read_sidecar(SHIPPED / "smollm2-135m-L20" / "av")
    vectors = torch.randn(rows, model.d_model)
    text = " ".join(["word"] * (tokens - 16))
    stage = AVStage(role, sidecar, vectors, [text] * rows, vectors[:1], ["word"])
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here, without that of loading
    with tempfile.TemporaryDirectory() as work:
        fit(stage, TrainConfig(steps=1, batch=rows, checkpoint_every=99), Path(work), lambda _: None)
    taken = resident("VmHWM") - before
    _, n_tokens = stage.loss(list(range(rows)), 0)
    row = int(n_tokens["tokens"]) // rows + 8
    shape = Shape(layer=model.n_layers - 1, av=SPEC, ar=SPEC, part=min(rows, 16), tokens=row, rollouts=1)
    plan = plan_of(model.text_config, shape, dtype="float32")
    trained = sum(p.numel() for p in role.network.parameters() if p.requires_grad)
    return taken, (plan.activations + plan.logits + trained * 16) / 1e9  # the values were there before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--one")
    given = parser.parse_args()
    if given.one:
        print(*one(given.one, given.rows, given.tokens))
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_model(str(embedded_dir()), dtype="float32", device="cpu").tokenizer
        config = LlamaConfig(vocab_size=49_152, hidden_size=512, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=8)
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for name, where in (("embedded model", str(embedded_dir())), ("random Llama, 12 blocks of 512", folder)):
            words = [sys.executable, "-m", "tests.bench.plan", "--one", where, "--rows", str(given.rows), "--tokens", str(given.tokens)]
            taken, planned = map(float, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-2:])
            Console().print(f"{name}: {taken:.2f} GB taken, {planned:.2f} GB planned, ratio {taken / planned:.2f}")


if __name__ == "__main__":
    main()
