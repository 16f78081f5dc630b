"""Several processes that label into one file, and processes that are killed: every acknowledged label is on the disk."""

import http.client
import json
import multiprocessing
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from audit.labelling.session import open_labelling
from graders.labelled.labels import LabelledText, read_labels

N = 24
FORK = multiprocessing.get_context("fork")  # the modules are loaded already, and a new interpreter would take seconds


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "explanations.jsonl"
    path.write_text("".join(json.dumps({"explanation": f"Explanation {i}.", "verdict": "NO"}) + "\n" for i in range(N)))
    return path


def started(work: Callable[..., None], *arguments: object) -> BaseProcess:
    process = FORK.Process(target=work, args=arguments)
    process.start()
    return process


def label_everything(source: Path, out: Path, annotator: str) -> None:
    labelling = open_labelling(source, out, N, 0)
    for item in labelling.session.items:
        labelling.give(annotator, item.id, {"verdict": "NO"})


def test_no_label_is_lost_where_four_processes_start_and_label_one_file_at_once(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "labels.jsonl"
    workers = [started(label_everything, source, out, f"annotator {i}") for i in range(4)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert open_labelling(source, out, N, 0).counts() == {f"annotator {i}": N for i in range(4)}


def label_for_ever(source: Path, out: Path, annotator: str, pipe: int) -> None:
    """Label at random; each label is announced before it is given (?) and acknowledged after it was (!)."""
    labelling, draws = open_labelling(source, out, N, 0), random.Random(annotator)
    while True:
        item, verdict = draws.choice(labelling.session.items).id, draws.choice(["YES", "NO", "UNCLEAR"])
        os.write(pipe, f"? {item} {verdict}\n".encode())
        labelling.give(annotator, item, {"verdict": verdict})
        os.write(pipe, f"! {item} {verdict}\n".encode())


def reported(pipe: int) -> list[list[str]]:
    with os.fdopen(pipe) as end:
        return [line.split() for line in end.read().splitlines()]


@pytest.mark.slow
def test_after_kills_at_random_moments_every_acknowledged_label_is_there_and_no_line_is_cut(source: Path, tmp_path: Path) -> None:
    out, draws = tmp_path / "labels.jsonl", random.Random(0)
    open_labelling(source, out, N, 0)
    allowed: dict[tuple[str, str], set[str]] = {}
    n_acknowledged = 0
    for round_number in range(10):
        pipes, workers = {}, []
        for annotator in (f"ann {round_number}", f"ben {round_number}"):
            pipes[annotator], end = os.pipe()
            workers.append(started(label_for_ever, source, out, annotator, end))
            os.close(end)
        time.sleep(draws.uniform(0.03, 0.4))
        for worker in workers:
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join(10)
        for annotator, pipe in pipes.items():
            for mark, item, verdict in reported(pipe):
                acknowledged = mark == "!"
                n_acknowledged += acknowledged
                allowed[annotator, item] = {verdict} if acknowledged else allowed.get((annotator, item), {""}) | {verdict}
        stored = {(label.annotator, text.id): str(label.verdict) for text in stored_texts(out) for label in text.labels}
        assert all(stored.get(key, "") in verdicts for key, verdicts in allowed.items())
        assert stored.keys() <= allowed.keys()
        assert not out.exists() or stat.S_IMODE(out.stat().st_mode) == 0o600
    assert n_acknowledged > 20
    open_labelling(source, out, N, 0)
    leftovers = {path.name for path in tmp_path.iterdir()} - {source.name, out.name, f"{out.name}.session.json"}
    assert leftovers == set()


def stored_texts(out: Path) -> tuple[LabelledText, ...]:
    return read_labels(out).items if out.exists() else ()


def server(source: Path, out: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "audit", "label", str(source), "-o", str(out), "--n", str(N)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300", "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    return process, re.findall(r"http://\S+", process.stdout.readline())[0]


@pytest.mark.slow
def test_two_labelling_commands_on_one_file_keep_all_labels_even_when_they_are_killed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    servers = [server(source, out), server(source, out)]
    items = [item.id for item in open_labelling(source, out, N, 0).session.items]
    for i in range(16):
        address = urlsplit(servers[i % 2][1])
        connection = http.client.HTTPConnection(address.netloc, timeout=20)
        headers = {"Content-Type": "application/json", "X-Label-Token": parse_qs(address.query)["token"][0]}
        connection.request("POST", "/label", json.dumps({"annotator": f"a{i % 4}", "id": items[i], "verdict": "NO"}), headers)
        assert connection.getresponse().status == 200
        connection.close()
    for process, _ in servers:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert [len(text.labels) for text in read_labels(out).items] == [1] * 16
