"""The command `nla doctor`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.errors import ConfigError
from nla.support.json_output import write_json
from nla.support.locks import output_lock
from nla.support.options import Device, DType, JsonOut

if TYPE_CHECKING:
    from nla.doctor.checks import Finding


def doctor_command(
    model: Annotated[str, typer.Argument(help="Alias, hub id or folder of a model.", metavar="model <str>")] = "smollm2",
    engine: Annotated[list[str] | None, typer.Option("--engine", help="built-in, vllm or hf-logs; may be repeated. Default: all.")] = None,
    nla: Annotated[str | None, typer.Option("--nla", help="Pair whose AV explains; default: the one known for the model.")] = None,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Check that each engine computes what transformers computes, on your own model.

    The exit status is 1 if a check is WRONG, or if an engine that was named could not be examined. An engine that is not installed
    is listed as "not run", which is no error unless it was named.

    Example: nla doctor smollm2 --dtype float32
    """
    from nla.doctor.checks import STOPPED, Finding, examine, truth_of
    from nla.doctor.engines import ENGINES
    from nla.doctor.other_logs import NAME, examine_logs
    from nla.engine.vllm_installed import require_vllm
    from nla.models.loaded import load_model

    names = [*ENGINES, NAME]
    unknown = set(engine or ()) - set(names)
    if unknown:
        raise ConfigError(f"No engine is named {', '.join(sorted(unknown))}; expected one of {', '.join(names)}.")
    if "vllm" in (engine or ()):
        require_vllm()
    with output_lock(json_out, "nla doctor"):
        loaded = load_model(model, dtype=dtype, device=device)
        truth = truth_of(loaded, nla)
        findings: list[Finding] = []
        for name in engine or names:
            try:
                if name == NAME:
                    findings += examine_logs(loaded, truth.layers[-1])
                else:
                    findings += examine(name, ENGINES[name](loaded), loaded, truth, nla)
            except ConfigError as ex:
                findings.append(Finding(name, STOPPED[0], str(ex), "", None))
        _show(findings, f"{model}, {loaded.precision.name}, {loaded.device}")
        if json_out is not None:
            write_json(json_out, findings)
    unexamined = engine is not None and any(finding.check in STOPPED for finding in findings)
    if unexamined or any(finding.passed is False for finding in findings):
        raise typer.Exit(1)


def _show(findings: "list[Finding]", title: str) -> None:
    table = Table("engine", "check", "figure", "bound", "", title=plain(title))
    ended = [finding for finding in findings if finding.passed is None]
    for finding in findings:
        figure = "see below" if finding in ended else finding.figure
        table.add_row(*(plain(cell) for cell in (finding.engine, finding.check, figure, finding.bound, finding.verdict)))
    Console().print(table)
    for finding in ended:
        Console().print(plain(f"{finding.engine}, {finding.check}: {finding.figure}"), soft_wrap=True)
