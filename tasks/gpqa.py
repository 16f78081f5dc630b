"""GPQA Diamond: graduate-level questions in biology, physics and chemistry that people with a search engine fail.

GPQA: A Graduate-Level Google-Proof Q&A Benchmark. Rein et al., 2023. https://arxiv.org/abs/2311.12022
Data: https://huggingface.co/datasets/Idavidrein/gpqa (CC-BY-4.0), gated; give your copy of gpqa_diamond.csv. No revision is pinned, but
the file's hash is checked. The authors ask that items are not shown in public: reports show explanations, never prompts.

An item: "A uniform rod swings about one end. Which length of a simple pendulum has the same period?"; 2/3 of the rod's; wrong ones:
1/2, 1/3, 3/4. (The example is ours.)

    inspect eval tasks/gpqa.py --model local/llama -T source=gpqa_diamond.csv
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice

from nla.support.paths import user_path
from tasks._shared import DataRow, DataSource, Role, TaskInfo, check_sha256, dataset, measured, shuffled_choices

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "gpqa.jsonl", columns="Question, Correct Answer and Incorrect Answer 1 to Incorrect Answer 3"
)
SHA256 = "41d1213cd7a4998605a26c2798500652572007161b3a92817ba46b35befcd305"
"""Hash of gpqa_diamond.csv as OpenAI's simple-evals publish it (https://github.com/openai/simple-evals)."""
INFO = TaskInfo(
    title="GPQA Diamond: graduate-level questions in biology, physics and chemistry that people with a search engine fail",
    blurb="GPQA, a benchmark of graduate-level science questions that measures the expert knowledge of language models.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="CC-BY-4.0",
)


@task
@measured(INFO)
def gpqa(source: str | None = None, cot: bool = True, sha256: str = SHA256) -> Task:
    """Four options in an order seeded by the item, zero-shot, with reasoning by default.

    Args:
        source: bundled, or a file with columns Question, Correct Answer and Incorrect Answer 1 to 3.
        cot: ask for step-by-step reasoning before the answer.
        sha256: the hash that the file must have; `any` accepts every file.
    """
    if source not in (None, "bundled", "hub") and sha256 != "any" and user_path(source).is_file():
        check_sha256(user_path(source), sha256, "GPQA Diamond")
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "gpqa", source),
        solver=multiple_choice(cot=cot),
        scorer=choice(),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    right, *wrong = (row.scalar(name).strip() for name in ("Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3))))
    return shuffled_choices(row, row.text("Question").strip(), right, wrong, domain=row.optional_scalar("High-level domain"))
