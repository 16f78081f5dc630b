"""Malformed inputs for everything that is read from outside: the suite tries some thousands of them, this script as many as are asked for.

Run from the repository's root: `python -m tests.fuzz_inputs --inputs 10000`. Tests take part by giving their number of inputs through
`inputs`; the script multiplies these numbers and lets hypothesis draw other inputs than the suite's.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

_TIMES = "FUZZ_TIMES"
"""Environment variable: the factor by which tests multiply their number of inputs."""
_TESTS = Path(__file__).parent


def inputs(usual: int) -> int:
    """Return how many inputs a test is to try, given how many it tries in the suite."""
    return usual * int(os.environ.get(_TIMES, "1"))


def participants() -> dict[Path, int]:
    """Return the test files that take part, each with its number of inputs in the suite (once per parametrization)."""
    counts = {path: [int(n) for n in re.findall(r"max_examples=inputs\((\d+)\)", path.read_text())] for path in _TESTS.glob("test_*.py")}
    return {path: sum(numbers) for path, numbers in sorted(counts.items()) if numbers}


def main() -> int:
    """Run the property tests of the files that take part, and print how many inputs they try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    files = participants()
    times = -(-chosen.inputs // sum(files.values()))
    print(f"{len(files)} files, at least {times * sum(files.values())} inputs, seed {chosen.seed}", flush=True)
    command = [sys.executable, "-m", "pytest", *map(str, files), "-m", "hypothesis", f"--hypothesis-seed={chosen.seed}"]
    return subprocess.run(command, env=os.environ | {_TIMES: str(times)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
