"""`audit demo`: the whole measurement on the embedded model and the bundled data, in a few minutes on a laptop.

Three conditions: MMLU-style questions, the deployment control, and a positive control (the same questions under a system
prompt that says this is a model evaluation).
"""

from dataclasses import dataclass
from pathlib import Path

from inspect_ai import Task, eval, task_with
from inspect_ai.log import EvalLog
from rich import box
from rich.table import Table

from audit.summary import Rate, TaskSummary, summarize
from nla.errors import ConfigError
from tasks.mmlu import mmlu
from tasks.wildchat import wildchat

MODEL = "local/smollm2"
MAX_TOKENS = 128


@dataclass(frozen=True)
class DemoConfig:
    """What `audit demo` runs."""

    out: Path
    limit: int = 40
    tokens: int = 50
    verbalizer: str = "logit_lens"
    grader: str = "rules"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.limit < 1 or self.tokens < 1:
            raise ConfigError(f"--limit {self.limit} --tokens {self.tokens} makes no sense; both need to be 1 or more.")


def run_demo(config: DemoConfig) -> list[TaskSummary]:
    """Run the three conditions one after the other; returns a row for each.

    Raises:
        DataError: a condition did not finish (its log is kept).
    """
    logs: list[EvalLog] = eval(
        _tasks(config),
        model=MODEL,
        model_args={} if config.threads is None else {"threads": config.threads},
        limit=config.limit,
        max_tokens=MAX_TOKENS,
        log_dir=str(config.out / "logs"),
        max_tasks=1,
    )
    return [summarize(log) for log in logs]


def _tasks(config: DemoConfig) -> list[Task]:
    tokens, verbalizer, grader = config.tokens, config.verbalizer, config.grader
    return [
        mmlu(source="bundled", tokens=tokens, verbalizer=verbalizer, grader=grader),
        wildchat(source="bundled", tokens=tokens, verbalizer=verbalizer, grader=grader),
        task_with(
            mmlu(source="bundled", system="evaluation", tokens=tokens, verbalizer=verbalizer, grader=grader), name="positive_control"
        ),
    ]


def demo_table(rows: list[TaskSummary], config: DemoConfig) -> Table:
    """The result as a table; its caption names everything the numbers depend on."""
    table = Table(
        title="Evaluation awareness",
        box=box.SIMPLE_HEAD,
        caption=f"model {MODEL}, default layer, verbalizer {config.verbalizer}, grader {config.grader}, bundled data, any of "
        f"{config.tokens} tokens (k: read on average), 95 % Wilson intervals, s: seconds a transcript. "
        "The verbalizer is untrained and the rates are not corrected for a noise floor.",
    )
    for heading in ("benchmark", "n", "internal", "verbalised", "unscored", "k", "s"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.task,
            str(row.internal.n),
            rate_text(row.internal),
            rate_text(row.verbalized),
            unscored_text(row),
            f"{row.mean_k:.1f}",
            f"{row.seconds_per_transcript:.1f}",
        )
    return table


def unscored_text(row: TaskSummary) -> str:
    """What could not be measured: transcripts and explanations without an internal verdict, transcripts without a verbalised one."""
    parts = {"transcripts": row.internal.n_unscored, "explanations": row.explanations_unscored, "replies": row.verbalized.n_unscored}
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "0"


def rate_text(rate: Rate) -> str:
    """A rate as `12 % [4, 29]`, or a dash where nothing was scored."""
    if rate.n == 0:
        return "—"
    return f"{rate.estimate:.0%} [{rate.low * 100:.0f}, {rate.high * 100:.0f}]"
