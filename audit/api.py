"""The Python API of audits; `audit` offers these functions as `audit.run_audit` and so on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audit.analysis import analyze as analysis
from audit.analysis import compare as comparison
from audit.analysis.compare import AuditComparison
from audit.analysis.result import AuditResult
from audit.analysis.stored import StoredAudit, read_stored
from audit.config import AuditConfig, make_audit, read_audit
from audit.running import run
from audit.running.progress import RunProgress
from nla.support.errors import ConfigError

Folder = str | Path
Say = Callable[[str], None]


def run_audit(
    config: AuditConfig | Mapping[str, Any] | Folder, out: Folder = "audit", say: Say = lambda _: None, progress: RunProgress | None = None
) -> AuditResult:
    """Run every cell that is not finished, measure the instrument controls, and analyse the audit.

    After an interruption the same call resumes; finished samples are not run again.

    Args:
        config: an `AuditConfig`, its fields, or the path of an AUDIT.toml.
        out: the audit's folder; created where it does not exist.
        say: called with a line of progress for each step before and after the runs.
        progress: shows the transcripts done, as `audit run` does; None leaves the display to Inspect.

    Raises:
        ConfigError: invalid fields, an unknown task, or a folder that holds an audit with other settings.
        ModelError, FetchError: the model cannot be loaded.
        DataError: a task did not finish; the same call resumes it.
        StoppedError: the user stopped the run.
    """
    audit, folder = _as_config(config), _as_folder(out)
    run.run_audit(audit, folder, say=say, progress=progress)
    if audit.controls:
        from audit.controls.measure import run_controls

        run_controls(folder, say, again=False)
    return analysis.analyze(folder)


def analyze(folder: Folder) -> AuditResult:
    """Compute `audit.json` and both tables again from the logs of an audit.

    Raises:
        ConfigError: the folder holds no audit.
        DataError: nothing is finished, or the logs cannot be pooled.
    """
    return analysis.analyze(_as_folder(folder))


def compare(a: Folder, b: Folder) -> AuditComparison:
    """Compare two analysed audits item by item.

    Raises:
        DataError: a folder holds no analysed audit, or no transcript of one has a partner in the other.
    """
    return comparison.compare(_as_folder(a), _as_folder(b))


def read_result(folder: Folder) -> StoredAudit:
    """Read an analysed audit: its result, and its transcripts and explanations as data frames.

    Raises:
        DataError: the folder holds no analysed audit, or files of different analyses.
    """
    return read_stored(_as_folder(folder))


def _as_folder(folder: object) -> Path:
    if not isinstance(folder, str | Path):
        raise ConfigError(f"Invalid folder {folder!r:.80}: expected a path as text or Path.")
    return Path(folder)


def _as_config(config: object) -> AuditConfig:
    if isinstance(config, AuditConfig):
        return config
    if isinstance(config, Mapping):
        return make_audit(dict(config), "The configuration")
    if isinstance(config, str | Path):
        return read_audit(Path(config))
    raise ConfigError(f"Invalid configuration {config!r:.80}: expected an AuditConfig, its fields, or the path of an AUDIT.toml.")
