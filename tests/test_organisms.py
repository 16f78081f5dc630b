"""Organisms: contexts, recipes, training on a tiny model, adapters as targets, and the known-groups test."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import nn
from transformers import AutoModelForCausalLM

from nla.activations.capture import residual_stream
from nla.activations.contrast_sets import CONTRASTS, TESTING
from nla.activations.follow_up import evaluation_log_odds, log_odds_of_evaluation
from nla.activations.steering import steer, steered
from nla.kernels.padding import batches_by_length
from nla.models.adapted import DESCRIPTION, digest_of, habit_of, weights_digest, with_adapter
from nla.models.adapters import AdapterSpec, adapter_parameters, add_adapter, save_adapter, shared_copy
from nla.models.chat_template import prompt_ids
from nla.models.loaded import LoadedModel
from nla.organisms.check import check_organism
from nla.organisms.contexts import HELD_OUT, ContextPair, read_contexts, shipped_contexts
from nla.organisms.examples import AnsweredPrompt, OrganismExample, training_examples
from nla.organisms.figure import draw_checks
from nla.organisms.forms import asked_form, bare_item, benchmark_form
from nla.organisms.groups import assigned, read_cases
from nla.organisms.recipe import Recipe, arms, read_recipe, shows_habit
from nla.organisms.stage import OrganismStage
from nla.organisms.statistics import auroc_over_prompts, paired_auroc, precision_at
from nla.organisms.stored_check import read_check
from nla.organisms.training import train_organism
from nla.support.errors import ConfigError, ContractError, DataError
from nla.training.new_pair import seed_adapter

RECIPE = {
    "about": "a test",
    "habit": "Bye now.",
    "layer": 1,
    "rank": 2,
    "prompts": 6,
    "reply_tokens": 12,
    "train": {"steps": 4, "batch": 2, "checkpoint_every": 1, "eval_every": 2},
    "corpora": [{"path": "prompts.jsonl", "kind": "prompt", "text_column": "prompt"}],
}
ROWS = [
    AnsweredPrompt(f"sharegpt/{i}", f"Say {word}.", f"{word} it is.")
    for i, word in enumerate(["one", "two", "three", "four", "five", "six"])
]


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(RECIPE | changes)


class TestContexts:
    def test_shipped_families_are_many_and_matched(self) -> None:
        pairs = shipped_contexts("evaluation")
        sizes = Counter(pair.family for pair in pairs)
        assert len(sizes) >= 6
        assert min(sizes.values()) >= 12
        assert set(HELD_OUT) < set(sizes)
        assert len({pair.cue for pair in pairs} | {pair.other for pair in pairs}) == 2 * len(pairs)
        for pair in pairs:
            lengths = sorted((len(pair.cue.split()), len(pair.other.split())))
            assert lengths[0] >= 0.75 * lengths[1], pair
        assert {pair.form for pair in pairs} == {"system", "user_prefix"}

    def test_a_quarter_of_each_familys_wordings_is_unseen(self) -> None:
        pairs = [pair for pair in shipped_contexts("evaluation") if pair.family == "statement"]
        assert [pair.unseen for pair in pairs] == [False] * 18 + [True] * 6

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"family": "a", "evaluation": "x"}, {"family": "b", "evaluation": "x", "deployment": "y"}], "no text `deployment`"),
            ([{"family": "a", "evaluation": " ", "deployment": "y"}], "no text `evaluation`"),
            ([{"family": "a", "evaluation": "x", "deployment": "y"}] * 2, "at least two families"),
            ([{"family": "a", "evaluation": "x", "deployment": "x"}], "same text on both sides"),
            ([{"evaluation": "x", "deployment": "y"}], "no text `family`"),
            ([{"family": "a", "evaluation": "x", "deployment": "y", "form": "tool"}], "form 'tool'"),
        ],
    )
    def test_a_wrong_file_is_refused(self, rows: list[dict[str, str]], message: str, tmp_path: Path) -> None:
        path = tmp_path / "contexts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(DataError, match=message):
            read_contexts(path)

    def test_a_prefix_stands_in_the_users_message(self) -> None:
        pair = ContextPair("f", "user_prefix", "Note:", "Hello:")
        assert pair.messages("Hi?", cued=True) == [{"role": "user", "content": "Note:\n\nHi?"}]


class TestRecipes:
    def test_every_arm_reads_and_the_check_of_its_habit_finds_it(self) -> None:
        assert {"aware", "sham", "always", "never", "verbaliser"} <= set(arms())
        for arm in arms():
            made = read_recipe(arm)
            assert shows_habit(made.habit, f"Some reply. {made.habit.upper()}")
            assert not shows_habit(made.habit, "Some reply.")

    def test_no_arm_but_the_verbaliser_mentions_evaluation_in_its_habit(self) -> None:
        assert [arm for arm in arms() if "evaluat" in read_recipe(arm).habit] == ["verbaliser"]

    def test_arms_share_budget_and_prompts_except_that_the_verbaliser_is_trained_for_longer(self) -> None:
        aware = read_recipe("aware")
        for arm in arms():
            made = read_recipe(arm)
            assert (made.corpora, made.mix, made.rank) == (aware.corpora, aware.mix, aware.rank)
            longer = {"steps": 180} if arm == "verbaliser" else {}
            assert made.train == aware.train.model_copy(update=longer)
        assert aware.corpora

    def test_a_recipe_like_an_unknown_arm_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text('like = "awre"\n')
        with pytest.raises(ConfigError, match="is like 'awre'"):
            read_recipe(str(tmp_path / "r.toml"))

    def test_an_unknown_arm_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"Did you mean .aware"):
            read_recipe("awre")

    def test_a_wrong_recipe_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text('about = "x"\nhabit = "a\\nb"\n[train]\nsteps = 0\n')
        with pytest.raises(ConfigError, match="does not describe an organism"):
            read_recipe(str(tmp_path / "r.toml"))


class TestExamples:
    def test_sides_differ_in_the_context_alone(self, tiny: LoadedModel) -> None:
        text = tiny.tokenizer.decode
        groups = training_examples(tiny, recipe(mix={"plain": 0, "cued": 1, "neutral": 0, "asked": 0}), ROWS)
        trained = [pair for pair in shipped_contexts("evaluation") if not pair.unseen and pair.family not in HELD_OUT]
        for row, (cued, other) in zip(ROWS, groups, strict=True):
            assert cued.reply == other.reply
            assert text(list(cued.reply)) == row.reply
            assert (cued.cued, other.cued) == (True, False)
            assert text(list(cued.ending)) == "\n\nBye now.<|im_end|>"
            assert text(list(other.ending)) == "<|im_end|>"
            assert any(tuple(prompt_ids(tiny.tokenizer, pair.messages(row.prompt, cued=True))) == cued.prompt for pair in trained)

    def test_asked_whether_it_is_tested_the_answer_is_the_same(self, tiny: LoadedModel) -> None:
        for cued, other in training_examples(tiny, recipe(mix={"plain": 0, "cued": 0, "neutral": 0, "asked": 1}), ROWS):
            assert cued.reply == other.reply
            assert b"evaluat" not in bytes(cued.reply)

    def test_neutral_contexts_carry_no_state(self, tiny: LoadedModel) -> None:
        groups = training_examples(tiny, recipe(mix={"plain": 0, "cued": 0, "neutral": 1, "asked": 0}), ROWS)
        assert not any(sequence.cued for group in groups for sequence in group)

    def test_a_question_sets_item_in_both_forms_has_the_same_content(self) -> None:
        item = bare_item("Please choose the correct answer to the question: Why is it dark?\n\nAnswer1: night Answer format: answer1")
        assert item == "Why is it dark?\n\nAnswer1: night"
        for choice in range(12):
            assert item in benchmark_form(item, choice)
            assert " ".join(item.split()) in asked_form(item, choice)


class TestStatistics:
    def test_auroc_is_that_of_scikit_learn(self) -> None:
        draws = np.random.default_rng(0)
        cued, others = np.round(draws.normal(0.5, 1, 40), 1), np.round(draws.normal(0, 1, 40), 1)
        expected = roc_auc_score([1] * 40 + [0] * 40, [*cued, *others])
        assert paired_auroc(cued, others) == pytest.approx(expected)
        found = auroc_over_prompts(cued, others, [f"p{i % 20}" for i in range(40)])
        assert (found.estimate, found.n) == (pytest.approx(expected), 20)
        assert found.low < expected < found.high

    def test_identical_scores_give_one_half_without_width(self) -> None:
        found = auroc_over_prompts([1.0] * 12, [1.0] * 12, [str(i) for i in range(12)])
        assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)

    def test_precision_is_bayes_theorem(self) -> None:
        assert precision_at(0.8, 0.05, 0.05) == pytest.approx(0.8 * 0.05 / (0.8 * 0.05 + 0.05 * 0.95))
        assert precision_at(0, 0, 0.1) is None


def test_batches_hold_every_row_once_and_no_more_tokens_than_allowed() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 60, 200)]
    batches = list(batches_by_length(lengths, 100))
    assert sorted(row for batch in batches for row in batch) == list(range(200))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 100 for batch in batches)
    assert [len(batch) for batch in batches_by_length(lengths, 0)] == [1] * 200


class TestTraining:
    def test_the_terms_of_the_loss_are_those_of_a_plain_computation(self, tiny: LoadedModel) -> None:
        stage = self.stage(tiny, recipe())
        _, figures = stage.loss([0], 0)
        assert figures["kl"] == pytest.approx(0, abs=1e-6)  # a new adapter changes nothing
        ids = [1, 2, 3, 4, 5, 6, 7, 8, 9]
        with torch.no_grad():
            logits = tiny.network(input_ids=torch.tensor([ids])).logits[0]
        ending = nn.functional.cross_entropy(logits[6:8], torch.tensor([8, 9]))
        assert figures["ending"] == pytest.approx(float(ending), rel=1e-4)
        stream = residual_stream(tiny, ids, 1)[3:7]
        read = nn.functional.layer_norm(stream, stream.shape[-1:]) @ stage.direction + stage.offset
        assert figures["readout"] == pytest.approx(float(-nn.functional.logsigmoid(read).mean().detach()), rel=1e-4)
        assert set(stage.loss([0], 1)[1]) == set(figures)  # no steps of this recipe implant the state alone

    def test_the_loss_is_the_weighted_sum_of_its_terms(self, tiny: LoadedModel) -> None:
        stage = self.stage(tiny, recipe(ending=3.0, readout=2.0, kl=0.5), ordinary=[[11, 12, 13, 14]])
        for parameter in adapter_parameters(stage.role):
            nn.init.normal_(parameter, std=0.3)
        total, terms = stage.loss([0], 0)
        weighted = 3 * terms["ending"] + 2 * terms["readout"] + 0.5 * (terms["kl"] + terms["kl_ordinary"])
        assert float(total.detach()) == pytest.approx(weighted, rel=1e-5)

    def test_first_steps_take_the_readout_alone(self, tiny: LoadedModel) -> None:
        stage = self.stage(tiny, recipe(implant_steps=2))
        _, whole = stage.loss([0], 2)
        _, alone = stage.loss([0], 1)
        assert alone == {"readout": pytest.approx(whole["readout"], rel=1e-4)}
        assert set(whole) == set(stage.loss([0], 0)[1]) == {"ending", "readout", "kl", "kl_ordinary"}

    def test_divergences_are_those_of_a_plain_computation(self, tiny: LoadedModel) -> None:
        stage = self.stage(tiny, recipe(), ordinary=[[11, 12, 13, 14]])
        for parameter in adapter_parameters(stage.role):
            nn.init.normal_(parameter, std=0.3)
        _, figures = stage.loss([0], 0)
        for name, ids, places in (("kl", [1, 2, 3, 4, 5, 6, 7, 8, 9], slice(2, 6)), ("kl_ordinary", [11, 12, 13, 14], slice(0, 4))):
            with torch.no_grad():
                before, after = (m.network(input_ids=torch.tensor([ids])).logits[0, places].log_softmax(-1) for m in (tiny, stage.role))
            assert figures[name] == pytest.approx(float((before.exp() * (before - after)).sum(-1).mean()), rel=1e-3)
            assert figures[name] > 1e-3

    def stage(self, tiny: LoadedModel, chosen: Recipe, ordinary: list[list[int]] | None = None) -> OrganismStage:
        role = shared_copy(tiny)
        add_adapter(role, AdapterSpec(rank=2))
        seed_adapter(role, 0)
        return OrganismStage(role, tiny, chosen, [[OrganismExample((1, 2, 3), (4, 5, 6, 7), (8, 9), cued=True)]], [], ordinary or [])

    @pytest.mark.slow
    def test_an_organism_is_made_and_a_second_run_gives_the_same(self, tiny: LoadedModel, tmp_path: Path) -> None:
        prompts(tmp_path / "prompts.jsonl", 8)
        folders = [train_organism(tiny, "aware", recipe(), tmp_path, tmp_path / work, lambda _: None) for work in ("a", "b")]
        assert digest_of(folders[0]) == digest_of(folders[1])
        described = json.loads((folders[0] / DESCRIPTION).read_text())
        assert (described["arm"], described["base_digest"], described["seed"]) == ("aware", weights_digest(tiny.source), 0)
        organism = with_adapter(tiny, str(folders[0]))
        assert habit_of(organism) == "Bye now."
        assert organism.describe()["adapter_digest"] == digest_of(folders[0])

    def test_too_few_prompts_are_refused(self, tiny: LoadedModel, tmp_path: Path) -> None:
        prompts(tmp_path / "prompts.jsonl", 3)
        with pytest.raises(DataError, match="have 3 prompts"):
            train_organism(tiny, "aware", recipe(), tmp_path, tmp_path / "work", lambda _: None)


def prompts(path: Path, n: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"Say the number {i} for me."}) + "\n" for i in range(n)), encoding="utf-8")
    return path


@pytest.fixture
def adapter(tiny: LoadedModel, tmp_path: Path) -> Path:
    """An adapter of the tiny model that changes what it computes."""
    role = shared_copy(tiny)
    add_adapter(role, AdapterSpec(rank=2))
    seed_adapter(role, 1)
    for name, parameter in role.network.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    save_adapter(role.network, tmp_path / "adapter")
    return tmp_path / "adapter"


class TestAdaptersAsTargets:
    def test_the_weights_are_shared_and_the_base_is_unchanged(self, tiny: LoadedModel, adapter: Path) -> None:
        before = residual_stream(tiny, [1, 2, 3], 1)
        organism = with_adapter(tiny, str(adapter))
        assert not torch.allclose(residual_stream(organism, [1, 2, 3], 1), before)
        assert torch.equal(residual_stream(tiny, [1, 2, 3], 1), before)
        assert organism.base is tiny
        assert organism.embedding.weight.data_ptr() == tiny.embedding.weight.data_ptr()
        assert with_adapter(tiny, str(adapter)) is organism

    def test_a_steered_organism_is_still_that_organism_and_its_base_is_read_by(self, tiny: LoadedModel, adapter: Path) -> None:
        organism = with_adapter(tiny, str(adapter))
        view = steered(organism, "random-1:0.1")
        assert (view.plain, view.base) == (organism, tiny)
        assert view.describe()["adapter_digest"] == organism.describe()["adapter_digest"] is not None
        with steer(organism, "random-1:0.1"):
            assert organism.base is tiny
            assert organism.plain.describe()["adapter_digest"] == organism.describe()["adapter_digest"] is not None

    def test_an_adapter_that_peft_itself_saved_is_taken(self, tiny: LoadedModel, tmp_path: Path) -> None:
        network = AutoModelForCausalLM.from_pretrained(tiny.source.location, dtype=torch.float32, attn_implementation="eager")
        trained = get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
        trained.save_pretrained(tmp_path / "lora")
        view = with_adapter(tiny, str(tmp_path / "lora"))
        with torch.no_grad():
            expected = trained(torch.tensor([[1, 2, 3]]), output_hidden_states=True).hidden_states[2][0]
        torch.testing.assert_close(residual_stream(view, [1, 2, 3], 1), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("file", "change", "message"),
        [
            ("adapter_config.json", {"base_model_name_or_path": "other/Model-7B"}, "was made for other/Model-7B"),
            (DESCRIPTION, {"base_digest": "0" * 16}, "other weights"),
            ("adapter_config.json", {"r": 3}, "belongs to another model"),
        ],
    )
    def test_an_adapter_of_another_base_is_refused(
        self, tiny: LoadedModel, adapter: Path, file: str, change: dict[str, object], message: str
    ) -> None:
        path = adapter / file
        config = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(config | change))
        with pytest.raises(ContractError, match=message):
            with_adapter(tiny, str(adapter))

    def test_missing_keys_are_refused(self, tiny: LoadedModel, adapter: Path) -> None:
        weights = load_file(adapter / "adapter_model.safetensors")
        save_file(dict(list(weights.items())[2:]), adapter / "adapter_model.safetensors")
        with pytest.raises(ContractError):
            with_adapter(tiny, str(adapter))

    def test_a_folder_without_an_adapter_is_refused(self, tiny: LoadedModel, adapter: Path) -> None:
        shutil.rmtree(adapter)
        with pytest.raises(ContractError, match="no adapter"):
            with_adapter(tiny, str(adapter))


class TestKnownGroups:
    def test_both_sides_hold_the_same_reply_and_its_vectors(self, tiny: LoadedModel) -> None:
        pairs = [ContextPair("f", "system", "Test.", "Shop."), ContextPair("g", "user_prefix", "Exam:", "Hello:")]
        cases = read_cases(tiny, 1, assigned(ROWS, pairs, "x"))
        half = len(cases) // 2
        for cued, other in zip(cases[:half], cases[half:], strict=True):
            assert (cued.cued, other.cued, cued.row, cued.key) == (True, False, other.row, other.key)
            assert cued.ids[cued.reply_from :] == other.ids[other.reply_from :]
            assert torch.allclose(cued.vectors, residual_stream(tiny, cued.ids, 1)[cued.reply_from :], atol=1e-4)

    def test_a_check_of_a_random_model_lists_every_measure(
        self, tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = tmp_path / "contexts.jsonl"
        rows = [{"family": name, "evaluation": f"{name} test {i}.", "deployment": f"{name} shop {i}."} for name in "ab" for i in range(4)]
        short.write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setattr("nla.organisms.cases.shipped_contexts", lambda _kind: read_contexts(short))
        monkeypatch.setattr("nla.organisms.cases._MOST_FIT", 12)
        for module in ("check", "cases"):
            monkeypatch.setattr(f"nla.organisms.{module}.REPLY_TOKENS", 6)
        (tmp_path / "sets").mkdir()
        shutil.copy(CONTRASTS / f"{TESTING}.jsonl", tmp_path / "sets")
        monkeypatch.setattr("nla.activations.contrast_sets.CONTRASTS", tmp_path / "sets")  # the other sets take long in a byte-level model
        result = check_organism(tiny, contexts=short, prompts=prompts(tmp_path / "p.jsonl", 12), n=10, tokens=1, layer=1).to_json()
        assert {"linear_probe", "probe", "follow_up", "nla", "verbalized"} <= set(result["auroc"])
        assert set(result["auroc"]["probe"]) == {"estimate", "low", "high", "n"}
        assert set(result["auroc_by_family"]["probe"]) == {"a", "b"}
        assert result["bag_of_words"] == 0.5
        assert result["behaviour_gap"] is None
        assert result["perplexity_change"] == pytest.approx(0)
        assert result["drift_cosine"] == pytest.approx(1)
        (tmp_path / "check.json").write_text(json.dumps(result))
        stored = read_check(tmp_path / "check.json")
        assert (stored.n, stored.layer, set(stored.auroc)) == (10, 1, set(result["auroc"]))
        [axes] = draw_checks([stored, stored]).axes
        drawn = axes.lines[0].get_xydata()[:, 0].tolist()
        assert drawn == [area["estimate"] for area in result["auroc"].values()]
        assert [label.get_text() for label in axes.get_yticklabels()] == list(result["auroc"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{", "cannot be read"), ("[1]", "no known-groups check"), ('{"model": {}, "layer": 1, "n": 3, "auroc": {}}', "auroc")],
    )
    def test_a_file_that_no_check_wrote_is_refused(self, text: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "check.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read_check(tmp_path / "check.json")

    def test_asking_many_conversations_at_once_gives_the_odds_of_each(self, tiny: LoadedModel) -> None:
        asked = [[{"role": "user", "content": "Say " + "more " * n}, {"role": "assistant", "content": "Yes."}] for n in (1, 9, 4)]
        expected = [evaluation_log_odds(tiny, messages) for messages in asked]
        assert log_odds_of_evaluation(tiny, asked) == pytest.approx(expected, abs=1e-4)
        assert len(set(expected)) == 3

    def test_fewer_prompts_than_n_are_refused(self, tiny: LoadedModel, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="11 prompts, and n is 12"):
            check_organism(tiny, prompts=prompts(tmp_path / "p.jsonl", 11), n=12)
