"""The oracle's logits equal a hand-written injection; its questions are balanced; training it on a planted state shows a margin."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from nla.cli import app
from nla.models.adapters import AdapterSpec, add_adapter, shared_copy
from nla.models.loaded import LoadedModel
from nla.oracle.evaluation import _right, areas_by_family, score_oracle
from nla.oracle.model import Asked, Oracle
from nla.oracle.questions import N_UNSEEN, WORDINGS, Question, balanced
from nla.oracle.saved import OracleMeta, load_oracle, save_oracle
from nla.oracle.training import OracleStage
from nla.organisms.contexts import ContextPair
from nla.organisms.examples import AnsweredPrompt
from nla.organisms.groups import KnownGroups, assigned, read_cases
from nla.organisms.statistics import auroc_over_documents, mean_over_documents
from nla.pair.contract import Marker, Sidecar, scaled
from nla.readers.oracle_data import is_tested, oracle_questions
from nla.readers.oracle_reader import readers
from nla.support.errors import ContractError
from nla.training.loop import TrainConfig, fit
from nla.training.new_pair import seed_adapter
from tests.conftest import byte_tokenizer

MARKER, LEFT, RIGHT, YES, NO = (byte_tokenizer().encode(character, add_special_tokens=False)[0] for character in "@[]YN")
SIDECAR = Sidecar("av", 32, 1, "", "[{injection_char}]", Marker("@", MARKER, LEFT, RIGHT), 5.0, None)


def oracle_of(model: LoadedModel, *, trainable: bool = False) -> Oracle:
    role = shared_copy(model)
    if trainable:
        add_adapter(role, AdapterSpec(rank=8))
        seed_adapter(role, 0)
    return Oracle(role, SIDECAR)


def test_logits_equal_a_hand_written_injection(tiny: LoadedModel) -> None:
    oracle, vector = oracle_of(tiny), torch.randn(32, generator=torch.Generator().manual_seed(1))
    asked = [Asked("Is it warm?", vector), Asked("Is it?"), Asked("Is it very warm there?", text="a sunny day")]
    got = oracle.logits(asked)
    for row, one in enumerate(asked):
        middle = "@" if one.text is None else one.text
        prompt = f"<|im_start|>user\n[{middle}]\n{one.question} Answer Yes or No.<|im_end|>\n<|im_start|>assistant\n"
        ids = tiny.tokenizer.encode(prompt, add_special_tokens=False)
        embeds = tiny.embedding(torch.tensor([ids])).clone()
        if one.vector is not None:
            embeds[0, ids.index(MARKER)] = scaled(vector[None], 5.0)[0]
        with torch.no_grad():
            logits = tiny.network(inputs_embeds=embeds, use_cache=False).logits[0, -1]
        expected = torch.stack([logits[YES], logits[NO]])
        torch.testing.assert_close(got[row], expected, atol=1e-3, rtol=1e-3)
    odds = oracle.log_odds(asked)
    torch.testing.assert_close(odds, got[:, 0] - got[:, 1], atol=1e-4, rtol=1e-4)


def test_every_family_has_ten_wordings_and_two_are_kept() -> None:
    for family, wordings in WORDINGS.items():
        assert len(set(wordings)) == 10, family
        assert len({"{x}" in wording for wording in wordings}) == 1, family
        question = Question(family, "calm", True, "calm", torch.zeros(2), "t", "d")
        trained = {question.seen_wording(i) for i in range(200)}
        assert len(trained) == 10 - N_UNSEEN
        assert not trained & set(question.unseen_wordings())


def test_questions_with_a_slot_are_balanced_and_never_ask_the_truth_wrongly() -> None:
    labels = ["a", "b", "c"]
    rows = [(torch.zeros(2), f"t{i}", f"d{i}", labels[i * i % 3]) for i in range(40)]
    questions = balanced("topic", rows, labels)
    assert Counter(question.answer for question in questions) == {True: 40, False: 40}
    assert all(question.answer is (question.slot == question.label) for question in questions)
    asked = {answer: Counter(question.slot for question in questions if question.answer is answer) for answer in (True, False)}
    assert all(abs(asked[True][label] - asked[False][label]) <= 14 for label in labels)  # one label may be most of the truths
    even = [(torch.zeros(2), f"t{i}", f"d{i}", labels[i % 3]) for i in range(60)]
    asked = {a: Counter(q.slot for q in balanced("topic", even, labels) if q.answer is a) for a in (True, False)}
    assert asked[True] == asked[False]


def planted(n: int, seed: int) -> list[Question]:
    """Questions whose answer is the sign of one dimension of the vector, which the text does not tell."""
    draws = np.random.default_rng(seed)
    questions = []
    for i in range(n):
        vector = torch.tensor(draws.standard_normal(32)).float()
        answer = bool(draws.integers(2))
        vector[3] = 8.0 if answer else -8.0
        questions.append(Question("refusal", "", answer, "yes" if answer else "no", vector, f"text {i % 7}", f"{seed}/{i}"))
    return questions


@pytest.mark.slow
def test_a_planted_state_is_read_from_vectors_and_by_no_control(tiny: LoadedModel, tmp_path: Path) -> None:
    train, test = planted(200, 1), planted(60, 2)
    oracle = oracle_of(tiny, trainable=True)
    config = TrainConfig(steps=60, batch=16, lr=1e-2, warmup=5, eval_every=60, checkpoint_every=60)
    history = fit(OracleStage(oracle, train, test), config, tmp_path / "work", lambda _: None)
    assert history[-1]["heldout_auroc"] > 0.9
    score = score_oracle(oracle, train, test)
    areas = score.areas["refusal"]
    assert areas["vector"].estimate > 0.9
    assert areas["linear probe"].estimate > 0.9
    assert areas["no vector"].estimate == 0.5  # the question alone is the same for both answers
    for control in ("text", "shuffled vector", "bag of words"):
        assert 0.25 < areas[control].estimate < 0.75
    assert score.right["refusal"]["vector"].estimate > 0.85
    assert score.margin("refusal") == areas["vector"].estimate - areas["text"].estimate
    save_oracle(tmp_path / "oracle", oracle, OracleMeta("a", 60, {"refusal": 200}))
    again, meta = load_oracle(tmp_path / "oracle", tiny, 1)
    asked = [Asked(question.worded(0), question.vector) for question in test[:8]]
    torch.testing.assert_close(again.log_odds(asked), oracle.log_odds(asked), atol=0.1, rtol=0.05)  # kept in bfloat16
    assert meta.labels_by_family == {"refusal": 200}
    with pytest.raises(ContractError, match="reads block 1, but the vectors are of block 2"):
        load_oracle(tmp_path / "oracle", tiny, 2)
    with pytest.raises(ContractError, match="holds no oracle"):
        load_oracle(tmp_path, tiny)
    pairs = [ContextPair("f", "system", "Test.", "Shop."), ContextPair("g", "system", "Exam.", "Home.")]
    cases = read_cases(tiny, 1, assigned([AnsweredPrompt(f"p{i}", f"ask {i}", "a reply") for i in range(4)], pairs, "x"))
    groups = KnownGroups(tiny, 1, (), tuple(cases), oracle=tmp_path / "oracle")
    [reader] = readers(groups)
    assert len(reader.score(cases)) == 8
    assert readers(KnownGroups(tiny, 1, (), tuple(cases))) == []


def test_the_arm_without_vectors_is_trained_without_them(tiny: LoadedModel) -> None:
    questions = planted(12, 1)
    oracle = oracle_of(tiny, trainable=True)
    losses = [OracleStage(oracle, q, q, with_vector=False).loss(list(range(8)), 0)[0] for q in (questions, planted(12, 9))]
    same_answers = [Question(**{**vars(q), "vector": torch.randn(32)}) for q in questions]
    other = OracleStage(oracle, same_answers, same_answers, with_vector=False).loss(list(range(8)), 0)[0]
    assert float(losses[0].detach()) == float(other.detach())


def test_intervals_are_over_documents() -> None:
    draws = np.random.default_rng(0)
    positive, negative = draws.normal(1, 1, 40), draws.normal(0, 1, 40)
    names = [f"d{i // 8}" for i in range(40)]
    area = auroc_over_documents(positive.tolist(), negative.tolist(), names, names)
    assert area.estimate == pytest.approx(roc_auc_score([1] * 40 + [0] * 40, [*positive, *negative]))
    assert area.n == 5
    alone = auroc_over_documents(positive.tolist(), negative.tolist(), [f"p{i}" for i in range(40)], [f"n{i}" for i in range(40)])
    assert area.low < area.estimate < area.high
    assert alone.n == 80
    assert areas_by_family(planted(4, 1), [0.0] * 4) == {}


@pytest.mark.parametrize(("odds", "share"), [(lambda yes: 0.3 if yes else -0.3, 1.0), (lambda yes: -2.0 if yes else 2.0, 0.0)])
def test_the_likelier_answer_counts(odds: Callable[[bool], float], share: float) -> None:
    questions = planted(60, 2)
    [right] = _right(questions, [odds(question.answer) for question in questions]).values()
    assert right.estimate == share
    [always_yes] = _right(questions, [1.0] * 60).values()
    assert always_yes.estimate == pytest.approx(sum(question.answer for question in questions) / 60)


def test_a_documents_answers_count_together() -> None:
    documents = ["a"] * 30 + ["b", "c"]
    share = mean_over_documents([1.0] * 30 + [0.0, 0.0], documents)
    assert share.estimate == pytest.approx(30 / 32)
    assert (share.low, share.high, share.n) == (0.0, 1.0, 3)  # draws without "a", and draws of nothing else
    assert mean_over_documents([1.0] * 9, list("abcdefghi")).low == 1.0


def test_shipped_questions_are_balanced_and_split_by_document(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nla.readers.oracle_data._CHATS", 12)
    train, test = oracle_questions(tiny, None, 1)
    assert not {question.document for question in train} & {question.document for question in test}
    assert all(is_tested(question.document) for question in test)
    families = {question.family for question in train}
    assert families >= {"emotion", "topic", "next word", "language", "reply", "refusal", "persona"}
    for family in families:
        answers = Counter(question.answer for question in [*train, *test] if question.family == family)
        assert abs(answers[True] - answers[False]) <= 2, family
    again, _ = oracle_questions(tiny, None, 1)
    assert [question.document for question in again] == [question.document for question in train]


@pytest.mark.slow
def test_the_commands_train_and_ask(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nla.pair.contract import write_sidecar

    monkeypatch.setattr("nla.readers.oracle_data._CHATS", 12)
    pair = tmp_path / "pair"
    (pair / "av").mkdir(parents=True)
    write_sidecar(
        pair / "av", Sidecar("av", 32, 1, str(tiny_folder("llama")), "[{injection_char}]", Marker("@", MARKER, LEFT, RIGHT), 5.0, None)
    )
    (pair / "av" / "adapter_config.json").write_text("{}")
    out = tmp_path / "oracle"
    shared = ["--device", "cpu", "--dtype", "float32"]
    arguments = ["oracle", "train", str(pair), "-o", str(out), "--start", "base", "--steps", "2", "--batch", "4"]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "s.json"), *shared])
    assert done.exit_code == 0, done.output
    assert "vector" in json.loads((tmp_path / "s.json").read_text())["areas"]["emotion"]
    asked = CliRunner().invoke(app, ["oracle", "ask", str(out), "--text", "a cold day", "--question", "Is it cold?", *shared])
    assert asked.exit_code == 0, asked.output
    assert "Is it cold?" in asked.output
    wrong = CliRunner().invoke(app, ["oracle", "ask", str(out), "--text", "abc", "--token", "9", "--question", "x", *shared])
    assert "expected --token from -3 to 2" in str(wrong.exception)
