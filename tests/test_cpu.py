"""All networks of a process run in one thread on a CPU, and no other thread gets helpers of its own."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from nla.activations.capture import residual_stream
from nla.kernels.compute_thread import compute, on_compute_thread
from nla.models.loaded import LoadedModel

_AUDIT = """
import os, sys, threading
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # their helpers are others
import torch
from concurrent.futures import ThreadPoolExecutor
from nla.activations.capture import capture
from nla.kernels.compute_thread import on_compute_thread
from nla.models.loaded import load_model
from nla.transcripts.transcript import build_transcript
from nla.verbalizers import verbalizer_for
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser

torch.set_num_threads(2)
model = on_compute_thread(lambda: load_model("smollm2", dtype="float32", device="cpu"))
readers, meet = 4, threading.Barrier(4)

def helpers():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

def read(i):
    asked, told = f"Question {i}?", "An answer of some length, so that there are enough tokens to read."
    transcript = build_transcript(model.tokenizer, [ChatMessageUser(content=asked), ChatMessageAssistant(content=told, source="generate")])
    tokens = transcript.response_tokens()[:3]
    for verbalizer in ("logit_lens", "av"):
        told = verbalizer_for(verbalizer, model)
        told.verbalize(capture(model, transcript, tokens, told.layer), [(i, j) for j in range(len(tokens))])
    meet.wait()  # all readers live while threads are counted
    if i == 0:
        print(helpers())
    meet.wait()

print(helpers())
with ThreadPoolExecutor(readers) as pool:
    list(pool.map(read, range(readers)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir() or (os.cpu_count() or 1) < 2, reason="counts a process' threads on Linux")
def test_readers_in_many_threads_do_not_get_helper_threads_of_their_own() -> None:
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command, root = [sys.executable, "-c", _AUDIT], Path(__file__).parents[1]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=180, cwd=root, env=env)
    before, after = map(int, done.stdout.split())
    assert after - before <= 1, "libgomp's helpers of the compute thread are all there may be"


def test_all_threads_compute_in_the_compute_thread_once_there_is_one() -> None:
    def name() -> str:
        return threading.current_thread().name

    assert on_compute_thread(name) == compute(name) == "compute"
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(compute, lambda: compute(name)) for _ in range(9)]  # what work asks for is done within it
        assert {future.result() for future in futures} == {"compute"}


_FIRST = """
import threading
from concurrent.futures import ThreadPoolExecutor
from nla.kernels.compute_thread import compute

def ident():
    return threading.get_ident()

assert compute(ident) == ident()  # the main thread by itself
meet = threading.Barrier(8)

def first(_):
    meet.wait()
    return compute(lambda: compute(ident))

with ThreadPoolExecutor(8) as pool:
    print(len({*pool.map(first, range(8))}), compute(ident) == ident())
"""


def test_there_is_one_compute_thread_however_many_ask_for_it_first() -> None:
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", _FIRST], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
        assert done.stdout.split() == ["1", "False"]


_MAIN_BESIDE_JOBS = """
import threading, time
from nla.kernels.compute_thread import compute, on_compute_thread

told = []

def in_main():
    other = threading.Thread(target=on_compute_thread, args=(lambda: told.append("job"),))
    other.start()
    time.sleep(0.3)
    told.append("main")
    assert on_compute_thread(threading.get_ident) == threading.get_ident()  # what work asks for is done within it: no waiting for itself
    return other

compute(in_main).join()
print(*told)
"""


def test_work_of_the_main_thread_and_jobs_do_not_overlap() -> None:
    done = subprocess.run([sys.executable, "-c", _MAIN_BESIDE_JOBS], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.split() == ["main", "job"]


def test_a_failure_reaches_the_caller_and_the_thread_lives_on(tiny: LoadedModel) -> None:
    def fail() -> None:
        raise MemoryError("no room")

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(MemoryError, match="no room"):
            pool.submit(compute, fail).result()
        read = pool.submit(residual_stream, tiny, [1, 2, 3], 1).result()
    torch.testing.assert_close(read, residual_stream(tiny, [1, 2, 3], 1))
    assert not read.requires_grad


@pytest.mark.slow
def test_a_process_can_end_while_the_compute_thread_works() -> None:
    # A daemon thread that is inside torch when the interpreter ends makes C++ abort the process ("terminate called ...").
    code = """
import sys, threading, time
import torch
from nla.kernels.compute_thread import on_compute_thread

def work():
    for _ in range(200):
        torch.ones(64, 64) @ torch.ones(64, 64)

def submit():
    while True:
        on_compute_thread(work)

threading.Thread(target=submit, daemon=True).start()
time.sleep(0.3)
sys.exit(3)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (3, "")
