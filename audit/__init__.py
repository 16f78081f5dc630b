"""Audits: many tasks under many conditions, their statistics, and the `audit` command.

Here belong runs, the analysis of logs, instrument controls, and the agreement of graders with people. Scorers belong in `graders`, and
pages and figures in `reports`.

The public Python API is this module's four functions, imported lazily:

    import audit

    result = audit.run_audit({"model": "local/smollm2", "tasks": ["mmlu", "wildchat"], "source": "bundled", "limit": 12}, "my_audit")
    result = audit.analyze("my_audit")              # again from the logs
    stored = audit.read_result("my_audit")          # stored.result, stored.transcripts, stored.explanations (data frames)
    change = audit.compare("my_audit", "other")     # item by item
"""

import importlib
from typing import TYPE_CHECKING, Any

from nla.support.shadowing import tell_of_hidden_packages

if TYPE_CHECKING:
    from audit.api import analyze, compare, read_result, run_audit

__all__ = ["analyze", "compare", "read_result", "run_audit"]
tell_of_hidden_packages()


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("audit.api"), name)
    raise AttributeError(f"module 'audit' has no attribute {name!r}; its functions are {', '.join(__all__)}.")
