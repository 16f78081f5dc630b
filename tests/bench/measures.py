"""Time of all four measures against the NLA alone on the same transcripts, and transcripts per minute of probes and follow-up alone.

    python -m tests.bench.measures [--limit 8] [--tokens 50] [--rounds 2] [--model local/smollm2]

Bars of the issue: all measures cost at most 1.15 times the NLA alone; probes and follow-up read at least 20 transcripts per minute. The
transcripts are written once and scored again and again, the settings in turn; loading the models and the contrast directions is left out
by a first round that is not counted.
"""

import argparse
import tempfile
import time
from pathlib import Path

from inspect_ai import eval as inspect_eval
from inspect_ai.log import EvalLog, write_eval_log

from audit.running.rescore import score_logs
from audit.running.rescore_config import RescoreConfig
from nla.inspect.shared_read import LOGPROBS, VECTORS

SETTINGS = ("nla", "nla,probe,follow_up,verbalized", "probe,follow_up", "probe")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="local/smollm2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        log = _transcripts(given, Path(name))
        seconds: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        for number in range(given.rounds + 1):
            for setting in SETTINGS:
                VECTORS.clear()  # each setting reads the transcripts itself
                LOGPROBS.clear()
                start = time.perf_counter()
                config = RescoreConfig(measures=setting, tokens=given.tokens)
                score_logs([log.location], Path(name) / f"{number}-{setting.replace(',', '-')}", config)
                seconds[setting].append(time.perf_counter() - start)
        least = {setting: min(taken[1:]) for setting, taken in seconds.items()}
    for setting, taken in least.items():
        print(f"{setting:32} {taken:6.1f} s, {60 * given.limit / taken:6.1f} transcripts per minute (least of {given.rounds})")
    print(f"all measures against the NLA alone: {least[SETTINGS[1]] / least[SETTINGS[0]]:.3f}")


def _transcripts(given: argparse.Namespace, folder: Path) -> EvalLog:
    task_args = {"source": "bundled", "measures": "verbalized"}
    (log,) = inspect_eval(
        "tasks/mmlu.py",
        model=given.model,
        task_args=task_args,
        limit=given.limit,
        max_tokens=given.max_tokens,
        log_dir=str(folder / "logs"),
        display="none",
    )
    log.samples = [sample.model_copy(update={"scores": None}) for sample in log.samples or []]
    write_eval_log(log, log.location)
    return log


if __name__ == "__main__":
    main()
