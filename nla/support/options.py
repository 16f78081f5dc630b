"""Options that several commands have, with one wording each."""

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto or a torch device name.")]
DType = Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")]
