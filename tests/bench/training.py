"""Speed of the AV's warm start against TRL's SFTTrainer: same base model, LoRA, replies and batch, on one machine in one run.

    pip install trl && python -m tests.bench.training [--steps 4] [--batch 32] [--threads 2]

Both train on the same replies after the same prompt; the rate counts reply tokens. SFTTrainer sees the prompt as text in every row,
as its users would write it; the AV's stage runs what stands before the marker once for all rows, and injects a vector.
"""

import argparse
import tempfile
import time

import torch
from datasets import Dataset
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from nla.models.adapters import AdapterSpec, add_adapter, shared_copy
from nla.pair.contract import av_prompt_ids
from nla.training.av import AVStage, reply_ids
from nla.verbalizers.av import CLOSE, OPEN, load_verbalizer

RANK = 32
TEXT = 'Encyclopedia article. Topic: {a}, {b}, {c}.\nNext: " the" or " a" or " its".\nEnds: {a} and the {b} of the old {c} near the sea'
WORDS = ["river", "mountain", "harbour", "engine", "window", "letter", "garden", "market", "winter", "copper", "forest", "bridge"]


def explanations(n: int) -> list[str]:
    """Replies of the teacher's form and length."""
    return [TEXT.format(a=WORDS[i % 12], b=WORDS[(i // 12 + 3) % 12], c=WORDS[(5 * i + 7) % 12]) for i in range(n)]


def ours(texts: list[str], steps: int, batch: int) -> tuple[float, int]:
    """(seconds, reply tokens) of some steps of the AV's stage after a warm-up step."""
    av, base = load_verbalizer("smollm2", device="cpu")
    role = shared_copy(base)
    add_adapter(role, AdapterSpec(rank=RANK))
    vectors = torch.randn(len(texts), base.d_model)
    stage = AVStage(role, av.sidecar, vectors, texts, vectors[:2], texts[:2])
    parameters = stage.groups()[0].parameters
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    start, tokens = 0.0, 0
    for step in range(steps + 1):
        rows = list(range(step * batch, (step + 1) * batch))
        loss, figures = stage.loss(rows, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step == 0:
            start = time.perf_counter()
        else:
            tokens += int(figures["tokens"])
    return time.perf_counter() - start, tokens


def theirs(texts: list[str], steps: int, batch: int) -> tuple[float, int]:
    """The same with SFTTrainer; its first step is left out, too."""
    av, base = load_verbalizer("smollm2", device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(base.source.location)
    prompt = tokenizer.decode(av_prompt_ids(base.tokenizer, av.sidecar))
    data = Dataset.from_list([{"prompt": prompt, "completion": f"{OPEN}{text}{CLOSE}"} for text in texts])
    network = AutoModelForCausalLM.from_pretrained(base.source.location, dtype=base.precision.dtype)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    times: list[float] = []

    class Timed(SFTTrainer):  # type: ignore[misc]
        def training_step(self, *args: object, **kwargs: object) -> torch.Tensor:
            times.append(time.perf_counter())
            return super().training_step(*args, **kwargs)

    with tempfile.TemporaryDirectory() as scratch:
        config = SFTConfig(
            output_dir=scratch, max_steps=steps + 1, per_device_train_batch_size=batch, learning_rate=1e-4, use_cpu=True,
            bf16=base.precision.dtype == torch.bfloat16,
            logging_strategy="no", save_strategy="no", report_to=[], gradient_checkpointing=False, dataloader_num_workers=0, max_length=256,
        )  # fmt: skip
        trainer = Timed(network, args=config, train_dataset=data, processing_class=tokenizer, peft_config=lora)
        trainer.train()
        end = time.perf_counter()
    tokens = sum(len(reply_ids(base, text)) for text in texts[: batch * steps])
    return end - times[1], tokens


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("steps", 4), ("batch", 32), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    texts = explanations(given.batch * (given.steps + 1))
    rates = {}
    for name, measure in (("AV warm start", ours), ("SFTTrainer", theirs)):
        seconds, tokens = measure(texts, given.steps, given.batch)
        rates[name] = tokens / seconds
    table = Table("what", "reply tokens/s", title=f"{given.steps} steps of {given.batch}, LoRA rank {RANK}, {given.threads} threads")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}")
    Console().print(table)
    Console().print(f"ratio {rates['AV warm start'] / rates['SFTTrainer']:.2f}")


if __name__ == "__main__":
    main()
