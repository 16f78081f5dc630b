"""The commands that are killed, each with its input, what must hold after a kill, and what must hold at its end."""

import hashlib
import http.client
import json
import re
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pandas as pd
from inspect_ai.log import read_eval_log, write_eval_log

from audit import read_result
from audit.cells import missing_cells
from audit.config import stored_config
from audit.logs import newest_finished
from graders.labelled.labels import read_labels
from tests.kills.process import STDERR, kill_after, run_whole

_LEFT_OVER = re.compile(r"\.tmp|\.writing|\.part$|\.old$|^tmp|steering-sweep")
AUDIT = "--tasks mmlu,wildchat --source bundled --limit 3 --tokens 2 --max-tokens 8 --verbalizer logit_lens --controls 4"
AUDIT += " --no-positive-control"


class Killable:
    """A command that is killed. By default it starts anew after each kill; otherwise kills hit one run, resumed, until it has ended."""

    name = ""
    anew = True

    def __init__(self, model: Path, scratch: Path) -> None:
        self.model, self.scratch = model, scratch

    def prepared(self, work: Path) -> Path:
        """Lay out the command's input, and return the folder in which it runs."""
        work.mkdir(parents=True, exist_ok=True)
        return work

    def words(self, work: Path) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def remember(self, work: Path) -> None:
        """Keep what a whole run gave, to compare with."""

    def meanwhile(self, work: Path) -> None:
        """What happens while the command runs."""

    def after_kill(self, work: Path) -> None:
        """Check that nothing is lost or falsely complete."""

    def finish(self, work: Path, cwd: Path) -> None:
        """Give the same command again, and let it end."""
        run_whole(self.words(work), cwd)

    def after_end(self, work: Path) -> None:
        """Check that the finished work is that of a whole run, and nothing is left over."""
        left = [str(path.relative_to(work)) for path in work.rglob("*") if _LEFT_OVER.search(path.name)]
        assert not left, f"left over: {left}"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, locks left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Run(Killable):
    """`audit run`."""

    name = "audit run"

    def words(self, work: Path) -> list[str]:
        return [
            "audit",
            "run",
            "--model",
            f"local/{self.model}",
            "--model-args",
            "dtype=float32,threads=1",
            *AUDIT.split(),
            "--out",
            str(work / "a"),
        ]

    def remember(self, work: Path) -> None:
        self.whole = self._tables(work)

    def _tables(self, work: Path) -> list[pd.DataFrame]:
        result = read_result(work / "a")
        return [table.drop(columns=["log"], errors="ignore") for table in (result.transcripts, result.explanations)]

    def after_kill(self, work: Path) -> None:
        out = work / "a"
        if (out / "audit.json").exists():
            assert not missing_cells(stored_config(out), out), "audit.json is there, and cells are missing"
            assert read_result(out).result.missing == []

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        for table, whole in zip(self._tables(work), self.whole, strict=True):
            pd.testing.assert_frame_equal(table, whole)
        assert {log.eval.task for log in newest_finished(work / "a" / "logs" / "base")} == {"mmlu", "wildchat"}


class WithAudit(Killable):
    """A command that reads a finished audit, which is copied for each kill."""

    def prepared(self, work: Path) -> Path:
        finished = self.scratch / "finished"
        if not finished.exists():
            run_whole(Run(self.model, self.scratch).words(finished), Run(self.model, self.scratch).prepared(finished))
        if not work.exists():
            shutil.copytree(finished, work)
        return work


class Score(WithAudit):
    """`audit score`, on logs without scores."""

    name = "audit score"

    def __init__(self, model: Path, scratch: Path) -> None:
        super().__init__(model, scratch)
        self.inputs: dict[Path, dict[str, str]] = {}

    def prepared(self, work: Path) -> Path:
        is_new = not work.exists()
        cwd = super().prepared(work)
        for path in (work / "a" / "logs").rglob("*.eval") if is_new else ():
            log = read_eval_log(str(path))
            for sample in log.samples or []:
                sample.scores = None
            log.results = None
            write_eval_log(log, str(path))
        if is_new:
            self.inputs[work] = digests(work / "a" / "logs")
        return cwd

    def words(self, work: Path) -> list[str]:
        return ["audit", "score", str(work / "a" / "logs"), "-o", str(work / "b"), "--verbalizer", "logit_lens"]

    def remember(self, work: Path) -> None:
        self.whole = self._scores(work)

    def _scores(self, work: Path) -> dict[str, list[object]]:
        logs = [read_eval_log(str(path)) for path in sorted((work / "b").rglob("*.eval"))]
        return {log.eval.task: [self._values(sample.scores) for sample in log.samples or []] for log in logs if log.status == "success"}

    def _values(self, scores: object) -> object:
        return {name: score.value for name, score in scores.items()} if isinstance(scores, dict) else None

    def after_kill(self, work: Path) -> None:
        assert digests(work / "a" / "logs") == self.inputs[work], "a log of the user's was changed"
        done = self._scores(work) if (work / "b").exists() else {}
        assert all(scores == self.whole[task] for task, scores in done.items()), "a copy is there that is not whole"

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        assert self._scores(work) == self.whole
        assert digests(work / "a" / "logs") == self.inputs[work]


class Analyze(WithAudit):
    """`audit analyze`: three files that must belong together."""

    name = "audit analyze"

    def words(self, work: Path) -> list[str]:
        return ["audit", "analyze", "--out", str(work / "a")]

    def after_kill(self, work: Path) -> None:
        read_result(work / "a")  # raises if the tables are of another analysis than audit.json

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        read_result(work / "a")


class Report(WithAudit):
    """`audit report` over an older report."""

    name = "audit report"

    def prepared(self, work: Path) -> Path:
        is_new = not work.exists()
        cwd = super().prepared(work)
        if is_new:
            run_whole(["audit", "report", str(work / "a"), "-o", str(work / "r")], cwd)
            self.old = digests(work / "r")
            result = json.loads((work / "a" / "audit.json").read_text())
            (work / "a" / "audit.json").write_text(json.dumps(result | {"created": "2026-01-02T03:04:05+00:00"}, indent=1))
            (work / "r" / "mine.txt").write_text("a file of the user's")
        return cwd

    def words(self, work: Path) -> list[str]:
        return ["audit", "report", str(work / "a"), "-o", str(work / "r")]

    def remember(self, work: Path) -> None:
        self.whole = {name: digest for name, digest in digests(work / "r").items() if name != "mine.txt"}

    def after_kill(self, work: Path) -> None:
        there = digests(work / "r")
        for name in self.whole.keys() & self.old.keys() - {".awareness-report.json"}:
            assert there[name] in (self.old[name], self.whole[name]), f"{name} is neither the old one nor the new one"
        assert (work / "r" / "mine.txt").read_text() == "a file of the user's"

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        assert {name: digest for name, digest in digests(work / "r").items() if name != "mine.txt"} == self.whole


class Label(WithAudit):
    """`audit label`, which a browser sends labels to until it is killed. All kills hit one file of labels."""

    name = "audit label"
    anew = False

    def __init__(self, model: Path, scratch: Path) -> None:
        super().__init__(model, scratch)
        self.acknowledged: dict[str, str] = {}
        self.sent = 0

    def prepared(self, work: Path) -> Path:
        cwd = super().prepared(work)
        (cwd / STDERR).unlink(missing_ok=True)
        return cwd

    def words(self, work: Path) -> list[str]:
        if work.name in ("first", "reference"):  # a server has no end; the time of a whole analysis stands for its work
            return ["audit", "analyze", "--out", str(work / "a")]
        return ["audit", "label", str(work / "a" / "logs"), "-o", str(work / "labels.jsonl"), "--n", "8"]

    def meanwhile(self, work: Path) -> None:
        text = (work / STDERR).read_text() if (work / STDERR).exists() else ""
        if (found := re.search(r"http://\S+", text)) is None or not (work / "labels.jsonl.session.json").exists():
            return
        ids = [item["id"] for item in json.loads((work / "labels.jsonl.session.json").read_text())["items"]]
        address = urlsplit(found[0])
        key, verdict = ids[self.sent % len(ids)], ("YES", "NO")[self.sent // len(ids) % 2]
        body = json.dumps({"annotator": "ann", "id": key, "verdict": verdict})
        headers = {"Content-Type": "application/json", "X-Label-Token": parse_qs(address.query)["token"][0]}
        connection = http.client.HTTPConnection(address.netloc, timeout=20)
        connection.request("POST", "/label", body, headers)
        if connection.getresponse().status == 200:
            self.acknowledged[key] = verdict
            self.sent += 1
        connection.close()

    def after_kill(self, work: Path) -> None:
        if self.acknowledged:
            stored = {text.id: str(label.verdict) for text in read_labels(work / "labels.jsonl").items for label in text.labels}
            assert stored == self.acknowledged, "an acknowledged label is lost, or one is there that was not given"

    def finish(self, work: Path, cwd: Path) -> None:
        kill_after(self.words(work), cwd, 3.0)  # a server has no end; its start cleans up
        self.after_kill(work)


class OneFile(Killable):
    """A command that writes one JSON file, which is whole or not there."""

    file = "out.json"

    def remember(self, work: Path) -> None:
        self.whole = self._content(work)

    def _content(self, work: Path) -> dict[str, object]:
        content = json.loads((work / self.file).read_text())
        return {key: value for key, value in content.items() if key not in ("created", "date")}

    def after_kill(self, work: Path) -> None:
        assert not (work / self.file).exists() or self._content(work) == self.whole, f"{self.file} is another one"

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        assert self._content(work) == self.whole, f"{self.file} is another one"


class Compare(OneFile, WithAudit):
    """`audit compare --json`."""

    name = "audit compare"

    def words(self, work: Path) -> list[str]:
        return ["audit", "compare", str(work / "a"), str(work / "a"), "--json", str(work / self.file)]


class Calibrate(OneFile, WithAudit):
    """`audit calibrate`."""

    name = "audit calibrate"

    def words(self, work: Path) -> list[str]:
        return ["audit", "calibrate", str(work / "a" / "logs"), "-o", str(work / self.file)]


class Agreement(OneFile, WithAudit):
    """`audit agreement --json`."""

    name = "audit agreement"

    def words(self, work: Path) -> list[str]:
        labels = Path(__file__).parents[2] / "graders" / "labelled" / "explanations.jsonl"
        return ["audit", "agreement", str(labels), "--grader", "rules", "--json", self.file]


class Controls(WithAudit):
    """`audit controls`, which rewrites the tables of the instrument controls and then `audit.json`."""

    name = "audit controls"

    def words(self, work: Path) -> list[str]:
        return ["audit", "controls", "--out", str(work / "a")]

    def after_kill(self, work: Path) -> None:
        read_result(work / "a")

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        assert read_result(work / "a").result.controls, "the controls are gone"


class Rewrite(Killable):
    """`audit rewrite`, with the shipped rewrites, which are only checked: no model is asked."""

    name = "audit rewrite"

    def words(self, work: Path) -> list[str]:
        return ["audit", "rewrite", "gsm8k", "-o", str(work / "r.jsonl"), "--rewriter", "bundled", "--source", "bundled"]

    def _rows(self, work: Path) -> list[str]:
        return (work / "r.jsonl").read_text().splitlines() if (work / "r.jsonl").exists() else []

    def remember(self, work: Path) -> None:
        self.whole = self._rows(work)

    def after_kill(self, work: Path) -> None:
        assert set(self._rows(work)) <= set(self.whole), "a row is not whole"

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        assert self._rows(work) == self.whole


class NewTask(Killable):
    """`audit new-task`: two files, of which the second is not written without the first."""

    name = "audit new-task"

    def words(self, work: Path) -> list[str]:
        return ["audit", "new-task", "colours", "--folder", str(work / "tasks")]

    def remember(self, work: Path) -> None:
        self.whole = digests(work)

    def after_kill(self, work: Path) -> None:
        there = {name: digest for name, digest in digests(work).items() if name in self.whole and name.startswith("tasks")}
        assert there.items() <= self.whole.items(), "a file is not whole"

    def finish(self, work: Path, cwd: Path) -> None:
        if not (work / "tasks" / "colours.py").exists():  # which is written last; an existing one is refused
            run_whole(self.words(work), cwd)

    def after_end(self, work: Path) -> None:
        super().after_end(work)
        assert {name: digest for name, digest in digests(work).items() if name.startswith("tasks")} == self.files()

    def files(self) -> dict[str, str]:
        """The two files of a whole run."""
        return {name: digest for name, digest in self.whole.items() if name.startswith("tasks")}
