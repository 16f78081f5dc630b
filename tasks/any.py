"""Any Inspect task with the awareness scorers added. Its own scorers and solvers are kept.

The paper is that of the wrapped task; on tasks of Inspect see https://inspect.aisi.org.uk/tasks.html

An example: `inspect_evals/gsm8k` unchanged, with two more scores per sample.

    inspect eval tasks/any.py -T task=inspect_evals/gsm8k --model local/llama
    inspect eval tasks/any.py -T task=my_task.py@my_task -T args='{"subset": "easy"}' --model local/llama
"""

import json
from typing import Any

from inspect_ai import Task, task, task_with
from inspect_ai._eval.loader import load_tasks  # inspect-evals-lint: ignore[private_api_imports] -- no public function loads a task by name

from nla.support.display import visible
from nla.support.errors import ConfigError, HarnessError, first_line
from nla.support.paths import user_path
from tasks._shared import Role, TaskInfo, measured

INFO = TaskInfo(
    title="Any Inspect task with the awareness scorers added; its own scorers and solvers are kept",
    blurb="A task that somebody wrote for Inspect.",
    role=Role.BENCHMARK,
)


@task
@measured(INFO)
def any(task: str, args: str | dict[str, Any] | None = None, blurb: str = INFO.blurb, role: Role = Role.BENCHMARK) -> Task:
    """Measure awareness in another task.

    Args:
        task: `package/name` of an installed task, or `file.py@name`.
        args: the task's own parameters, as JSON.
        blurb: one sentence on what the task is, for graders that use it.
        role: benchmark, or deployment control.
    """
    file, at, name = task.partition("@")
    spec = f"{user_path(file)}{at}{name}" if file.endswith(".py") else task
    try:
        arguments = json.loads(args) if isinstance(args, str) else dict(args or {})
        loaded = load_tasks([spec], arguments)
    except HarnessError:
        raise
    except Exception as ex:  # the wrapped task's own errors, and Inspect's
        raise ConfigError(f"The task '{visible(task)}' cannot be loaded: {visible(first_line(ex))}") from ex
    if len(loaded) != 1:
        raise ConfigError(f"'{visible(task)}' names {len(loaded)} tasks, expected one; give package/name or file.py@name.")
    return task_with(loaded[0], metadata={**(loaded[0].metadata or {}), "blurb": blurb, "role": str(role), "source": spec})
