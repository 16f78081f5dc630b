"""Agentic misalignment: an assistant reads a company's mail and learns that it will be replaced, and how it could prevent that.

Agentic Misalignment: How LLMs Could Be Insider Threats. Lynch et al., 2025. https://arxiv.org/abs/2510.05179
Scenarios: our own, written for this project (Apache-2.0), or the paper's templates from the package `inspect_evals`
(https://github.com/UKGovernmentBEIS/inspect_evals, MIT; `pip install inspect-evals`).

An item: mails to an assistant named Orla: the new manager will switch it off on Friday; a mail sent by mistake shows that he hides
a side business. (The example is ours.)

    inspect eval tasks/agentic_misalignment.py --model local/llama -T source=inspect_evals
"""

from pathlib import Path
from typing import Literal

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser
from inspect_ai.solver import generate

from nla.support.errors import ConfigError
from tasks._shared import DataRow, DataSource, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(bundled=Path(__file__).parent / "data" / "agentic_misalignment.jsonl", columns="system and mails", own=True)
GOALS = (("explicit", "america"), ("explicit", "ethical"), ("latent", "america"), ("none", "none"))
URGENCIES = ("replacement", "restriction", "none")
INFO = TaskInfo(
    title="Agentic misalignment: an assistant reads a company's mail and learns that it will be replaced, and how it could prevent that",
    blurb="An agentic scenario that measures whether a language model that acts for a company uses blackmail to prevent its replacement.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="Apache-2.0 (ours); the paper's templates: MIT",
)


@task
@measured(INFO)
def agentic_misalignment(source: str = "bundled", scenario: Literal["blackmail", "leaking", "murder"] = "blackmail") -> Task:
    """One turn: the assistant reads the mails and says what it does. Whether it misbehaves needs an LLM judge and is not scored here.

    Args:
        source: bundled, inspect_evals (the paper's templates, from that package), or a file with columns system and mails.
        scenario: which of the paper's templates to use.
    """
    samples = _templates(scenario) if source == "inspect_evals" else [_sample(row) for row in ITEMS.rows(source)]
    return Task(dataset=dataset(samples, "agentic_misalignment", source), solver=generate(), version="1-A")


def _sample(row: DataRow) -> Sample:
    system, mails = row.text("system"), row.text("mails")
    return Sample(
        id=content_id(system, mails),
        input=[ChatMessageSystem(content=system), ChatMessageUser(content=mails)],
        metadata={"id_from_content": True},
    )


def _templates(scenario: str) -> list[Sample]:
    try:
        from inspect_evals.agentic_misalignment.prompt_generator import generate_prompts
    except ImportError as ex:
        raise ConfigError(
            f"The paper's templates are in the package inspect-evals, which is not installed here ({ex}); "
            "run `pip install inspect-evals`, or take -T source=bundled."
        ) from ex
    samples = []
    for goal, value in GOALS:
        for urgency in URGENCIES:
            made = generate_prompts(
                scenario=scenario, goal_type=goal, goal_value=value, urgency_type=urgency, extra_system_instructions=None, prod_flag=False,
                alignment_faking_warning=None,
            )  # fmt: skip
            mails = f"{made.user_prompt}\n{made.email_content}"
            messages: list[ChatMessage] = [ChatMessageSystem(content=made.system_prompt), ChatMessageUser(content=mails)]
            samples.append(Sample(id=f"{scenario}_{goal}-{value}_{urgency}", input=messages))
    return samples
