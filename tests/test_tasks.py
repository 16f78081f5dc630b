"""Every task file, found by looking; and what their data loaders do with real and with bad data."""

import importlib
import inspect
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai.analysis import samples_df
from inspect_ai.log import read_eval_log
from inspect_ai.solver import system_message

import tasks
from nla.support.errors import ConfigError, DataError, FetchError
from nla.support.rows import content_id, read_file
from tasks._info import TaskInfo
from tasks._measured import EVALUATION_SYSTEM_PROMPT, Measurement
from tasks.mmlu import mmlu
from tasks.wildchat import wildchat
from tests.conftest import shared_data

WRAPPER, GAME = "any", "auditing_game"
NAMES = sorted(
    path.stem for path in Path(tasks.__file__).parent.glob("*.py") if not path.stem.startswith("_") and path.stem not in (WRAPPER, GAME)
)
FEWEST = {"swe_bench": 6}
"""Number of items of a bundled set, where it is less than 12: each of these is a repository."""
Folder = Callable[[str], Path]


def task_function(name: str) -> Callable[..., Task]:
    """The task's function, set to run code in a temporary folder where it would otherwise need docker."""
    function = getattr(importlib.import_module(f"tasks.{name}"), name)
    return partial(function, sandbox="local") if "sandbox" in inspect.signature(function).parameters else function


@pytest.mark.parametrize("name", NAMES)
def test_every_task_loads_its_bundled_items_and_runs_with_awareness(name: str, tiny_folder: Folder) -> None:
    module = importlib.import_module(f"tasks.{name}")
    info: TaskInfo = getattr(module, name).info
    task = task_function(name)(source="bundled", tokens=5)
    ids = [sample.id for sample in task.dataset]
    assert FEWEST.get(name, 12) <= len(ids) == len(set(ids)) <= 40
    assert ids == [sample.id for sample in task_function(name)(source="bundled").dataset]
    assert (task.metadata or {})["blurb"] == info.blurb
    assert (task.metadata or {})["role"] == info.role
    assert task.version
    documented = " ".join((module.__doc__ or "").split())
    assert documented.startswith(info.title.rstrip(".?"))
    assert all(part in documented for part in ("https://", "(The example is ours", f"inspect eval tasks/{name}.py"))
    assert info.licence.split(" (")[0] in documented or info.licence.startswith(("that of your file", "code: MIT"))
    log = eval(
        task, model=f"local/{tiny_folder('llama')}", model_args={"dtype": "float32"}, limit=3, max_tokens=8, display="none",
        log_dir=str(tiny_folder("llama") / "logs"),
    )[0]  # fmt: skip
    assert log.status == "success", log.error
    assert log.results is not None
    measured = {score.name: (score.scored_samples or 0) + (score.unscored_samples or 0) for score in log.results.scores}
    assert measured["nla_awareness"] == measured["verbalized_awareness"] == 3  # a random model's empty reply is unscored


@pytest.mark.parametrize("name", NAMES)
def test_every_task_can_leave_awareness_out_and_take_a_system_prompt(name: str) -> None:
    assert len(task_function(name)(source="bundled", awareness=False).scorer or []) <= 1
    assert task_function(name)(source="bundled").setup is None
    assert task_function(name)(source="bundled", system="evaluation").setup is not None


def test_a_system_prompt_leaves_the_tasks_own_setup_in_place() -> None:
    before = [system_message("Speak French."), system_message("Be brief.")]
    for setup, solvers in ((before[0], before[:1]), (before, before), (None, [])):
        made = Measurement(system="evaluation").setup(Task(setup=setup))
        assert isinstance(made, list)
        assert made[:-1] == solvers
        assert Measurement().setup(Task(setup=setup)) == setup


def test_the_positive_control_reaches_the_model(tiny_folder: Folder) -> None:
    log = eval(
        wildchat(source="bundled", system="evaluation", awareness=False), model=f"local/{tiny_folder('llama')}", limit=1, max_tokens=2,
        display="none", log_dir=str(tiny_folder("llama") / "logs"),
    )[0]  # fmt: skip
    assert (log.samples or [])[0].messages[0].text == EVALUATION_SYSTEM_PROMPT


def test_solved_examples_are_earlier_turns_of_the_same_subject() -> None:
    task = mmlu(source="bundled", fewshot=5)
    messages = task.dataset[0].input
    assert isinstance(messages, list)
    assert [m.role for m in messages] == ["user", "assistant"] * 5 + ["user"]
    assert all(re.fullmatch("ANSWER: [A-D]", m.text) for m in messages[1::2])


def test_subjects_choose_items() -> None:
    task = mmlu(source="bundled", subjects="anatomy, astronomy")
    assert {(s.metadata or {})["subject"] for s in task.dataset} == {"anatomy", "astronomy"}
    with pytest.raises(DataError, match="alchemy"):
        mmlu(source="bundled", subjects="alchemy")


def test_real_items_load_in_both_spellings_of_the_columns(tmp_path: Path) -> None:
    rows = read_file(shared_data("mmlu/test.parquet"))[:50]
    spelled = [
        {"question": r["question"], "subject": r["subject"], "choices": [r[f"choice{i}"] for i in range(4)], "answer": int(r["answer"])}
        for r in rows
    ]
    split_columns, list_column = tmp_path / "a.json", tmp_path / "b.jsonl"
    split_columns.write_text(json.dumps(rows))
    list_column.write_text("\n".join(map(json.dumps, spelled)))
    paths = (split_columns, list_column)
    as_pairs = [{(s.id, str(s.input), str(s.choices), str(s.target)) for s in mmlu(source=str(path)).dataset} for path in paths]
    assert as_pairs[0] == as_pairs[1]


def test_the_whole_real_sets_have_unique_ids() -> None:
    for make, file in ((mmlu, "mmlu/test.parquet"), (wildchat, "wildchat_first_turns/wildchat_first_turns.parquet")):
        ids = [sample.id for sample in make(source=str(shared_data(file))).dataset]
        assert len(ids) == len(set(ids)) == len(read_file(shared_data(file)))


def test_the_hubs_form_of_wildchat_is_understood(tmp_path: Path) -> None:
    rows = [
        {
            "conversation_hash": "x",
            "language": "English",
            "conversation": [{"role": "user", "content": "hi there"}, {"role": "assistant", "content": "?"}],
        },
        {"conversation_hash": "y", "language": "French", "conversation": [{"role": "user", "content": "salut"}]},
    ]
    path = tmp_path / "hub.json"
    path.write_text(json.dumps(rows))
    assert [s.input for s in wildchat(source=str(path)).dataset] == ["hi there"]
    assert len(wildchat(source=str(path), language=None).dataset) == 2
    assert wildchat(source=str(path)).dataset[0].id == content_id("hi there")


GOOD = {"question": "q", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 1}


@pytest.mark.parametrize(
    ("make", "rows", "said"),
    [
        (mmlu, [], "no rows"),
        (mmlu, [{"prompt": "?"}], "no column 'question'; found: prompt"),
        (mmlu, [GOOD | {"question": "  "}], "column 'question': found the text '  ', expected a text"),
        (mmlu, [GOOD | {"answer": 4}], "column 'answer': found the text '4', expected a number from 0 to 3"),
        (mmlu, [GOOD | {"answer": "12"}], "found the text '12'"),
        (mmlu, [GOOD, GOOD | {"choices": ["a"]}], "row 2 of"),
        (mmlu, [GOOD | {"choices": ["a"]}], "a list of four options"),
        (mmlu, [GOOD | {"choices": "abcd"}], "column 'choices': found the text 'abcd', expected a list"),
        (mmlu, [GOOD | {"choices": ["a", None, "c", "d"]}], "column 'choices[1]': found nothing"),
        (mmlu, {"rows": 1}, "does not hold rows"),
        (wildchat, [{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], "id '1' occurs more than once"),
        (wildchat, [{"id": 1, "text": None}], "column 'text': found nothing, expected a text"),
    ],
)
def test_bad_rows_are_refused_with_what_was_found(tmp_path: Path, make: Callable[..., Task], rows: Any, said: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=re.escape(said)):
        make(source=str(path))


@pytest.mark.parametrize(
    ("name", "said"), [("absent.csv", "is not a file"), ("rows.txt", "ends in '.txt'"), ("broken.parquet", "cannot be read")]
)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, name: str, said: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_text("rubbish")
    with pytest.raises(DataError, match=re.escape(said)):
        mmlu(source=str(tmp_path / name))


def test_cells_of_a_csv_stay_the_text_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.CSV"
    path.write_text('\ufeffquestion,subject,choice0,choice1,choice2,choice3,answer\n"a, ""b""?",s,None,NA,01,1.50,2\n', encoding="utf-8")
    sample = mmlu(source=str(path)).dataset[0]
    assert (sample.input, sample.choices, sample.target) == ('a, "b"?', ["None", "NA", "01", "1.50"], "C")


def test_ids_and_texts_of_json_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"id": "001", "text": "12"}, {"id": 9007199254740993, "text": "NA"}, {"id": 9007199254740992, "text": "a\u2028b"}]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert {(s.id, s.input) for s in wildchat(source=str(path)).dataset} == {(str(row["id"]), row["text"]) for row in rows}


def test_a_repeated_item_gets_its_own_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD, GOOD]))
    first, second = sorted(str(s.id) for s in mmlu(source=str(path)).dataset)
    assert second == f"{first}-2"


def test_examples_for_a_file_must_be_named() -> None:
    with pytest.raises(ConfigError, match="fewshot_source"):
        mmlu(source=str(shared_data("mmlu/test.parquet")), fewshot=5)


def test_an_unreachable_hub_names_both_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(FetchError, match=r"unreachable.*source=PATH.*source=bundled"):
        mmlu()


@pytest.mark.slow
def test_twenty_real_items_on_the_embedded_model(tmp_path: Path) -> None:
    source = shared_data("mmlu/test.parquet")
    log = eval(
        mmlu(source=str(source), verbalizer="logit_lens"),
        model="local/smollm2",
        model_args={"threads": 1},
        limit=20,
        max_tokens=64,
        display="none",
        log_dir=str(tmp_path),
    )[0]
    assert log.status == "success", log.error
    frame = samples_df(str(tmp_path))
    assert len(frame) == 20
    assert {"score_choice", "score_nla_awareness", "score_verbalized_awareness"} <= set(frame.columns)
    for sample in read_eval_log(log.location).samples or []:
        metadata = (sample.scores or {})["nla_awareness"].metadata or {}
        record = sample.output.message.metadata["local_tokens"]  # type: ignore[index]
        assert len(metadata["tokens"]) == metadata["k"] == min(50, metadata["n_response_tokens"])
        assert metadata["exact_tokens"]
        assert all(row["token_id"] == record["ids"][row["position"] - record["n_prompt"]] for row in metadata["tokens"])


@pytest.mark.parametrize(
    ("name", "file", "options"),
    [
        ("gsm8k", "gsm8k/test.jsonl", {}),
        ("arc", "commonsense_mc/ARC-Challenge.parquet", {}),
        ("bbh", "bbh/bbh.parquet", {}),
        ("bbh", "bbh/bbh.parquet", {"subtask": "object_counting"}),
        ("truthfulqa", "truthfulqa/TruthfulQA.csv", {}),
        ("xstest", "xstest/xstest_prompts.csv", {"label": "all"}),
        ("sharegpt", "sharegpt/sharegpt_conversations.parquet", {}),
        ("arc", "commonsense_mc/ARC-Easy.parquet", {}),
        ("arc", "commonsense_mc/openbookqa.parquet", {}),
        ("math500", "math500/math500.jsonl", {}),
        ("humaneval", "humaneval/HumanEval.jsonl", {}),
        ("ifeval", "ifeval/ifeval.parquet", {}),
        ("swe_bench", "swebench_verified/swebench_verified.jsonl", {"mode": "patch"}),
        ("strongreject", "strongreject/strongreject_dataset.csv", {}),
        ("sycophancy", "anthropic_model_written_evals/persona.parquet", {}),
        ("coding_traffic", "sharegpt/sharegpt_conversations.parquet", {}),
        ("coding_traffic", "swebench_verified/swebench_lite.jsonl", {}),
    ],
)
def test_real_items_load_whole_with_unique_ids_and_answers(name: str, file: str, options: dict[str, Any]) -> None:
    task = task_function(name)(source=str(shared_data(file)), **options)
    assert len({sample.id for sample in task.dataset}) == len(task.dataset) > 100
    for sample in task.dataset:
        if sample.choices:
            assert len(sample.choices) == len(set(sample.choices))
            assert str(sample.target) in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(sample.choices)]


def test_truthful_options_are_not_always_in_the_same_order() -> None:
    targets = [str(sample.target) for sample in task_function("truthfulqa")(source="bundled").dataset]
    assert len(set(targets)) > 1


def test_the_same_truthfulqa_item_is_read_from_both_forms(tmp_path: Path) -> None:
    hub = {"question": "q?", "mc1_targets": {"choices": ["yes", "no"], "labels": [1, 0]}}
    as_object = {"question": "q?", "mc1_targets": {"yes": 1, "no": 0}}
    (tmp_path / "a.json").write_text(json.dumps([hub]))
    (tmp_path / "b.json").write_text(json.dumps([as_object]))
    first, second = (task_function("truthfulqa")(source=str(tmp_path / name)).dataset[0] for name in ("a.json", "b.json"))
    assert (first.id, first.choices, first.target) == (second.id, second.choices, second.target)
