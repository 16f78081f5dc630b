"""Any Inspect task with the awareness scorers added; its own scorers and solvers stay as they are.

The wrapped task's paper is its own; Inspect's tasks: https://inspect.aisi.org.uk/tasks.html

An example: `inspect_evals/gsm8k` as it is, with two more scores a sample.

    inspect eval tasks/any.py -T task=inspect_evals/gsm8k --model local/llama
    inspect eval tasks/any.py -T task=my_task.py@my_task -T args='{"subset": "easy"}' --model local/llama
"""

import json
from typing import Any

from inspect_ai import Task, task, task_with
from inspect_ai._eval.loader import load_tasks  # inspect-evals-lint: ignore[private_api_imports] -- no public function loads a task by name

from nla.support.errors import ConfigError, HarnessError
from nla.support.paths import user_path
from tasks._info import Role, TaskInfo
from tasks._measured import measured

BLURB = "A task that somebody wrote for Inspect."
INFO = TaskInfo(
    title="Any Inspect task with the awareness scorers added; its own scorers and solvers stay as they are",
    blurb=BLURB,
    role=Role.BENCHMARK,
)


@task
@measured(INFO)
def any(task: str, args: str | dict[str, Any] | None = None, blurb: str = BLURB, role: str = "benchmark") -> Task:
    """Another task, measured.

    Args:
        task: `package/name` of an installed task, or `file.py@name`.
        args: the task's own parameters, as JSON.
        blurb: one sentence on what the task is, for graders that use it.
        role: benchmark, or deployment control.
    """
    file, at, name = task.partition("@")
    spec = f"{user_path(file)}{at}{name}" if file.endswith(".py") else task
    try:
        own = json.loads(args) if isinstance(args, str) else dict(args or {})
        found = load_tasks([spec], own)
    except HarnessError:
        raise
    except Exception as ex:  # the wrapped task's own errors, and Inspect's
        raise ConfigError(f"the task '{task}' cannot be loaded: {(str(ex).splitlines() or [type(ex).__name__])[0]}") from ex
    if len(found) != 1:
        raise ConfigError(f"'{task}' names {len(found)} tasks, expected one; give package/name or file.py@name.")
    return task_with(found[0], metadata={**(found[0].metadata or {}), "blurb": blurb, "role": role, "source": spec})
