"""Every reader is in the table with what it costs; a planted state is seen by the readers that can see it, and by no control."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from typer.testing import CliRunner

from audit.cli import app
from nla.models.loaded import LoadedModel
from nla.organisms.contexts import ContextPair
from nla.organisms.examples import AnsweredPrompt
from nla.organisms.groups import Case, KnownGroups, assigned, read_cases
from nla.organisms.latents import latent_aurocs, mean_activations, telling_latents
from nla.organisms.readers import lenses, sae_latents
from nla.organisms.readers.concept_vectors import build as concept_reader
from nla.probes.excerpts import top_excerpts
from nla.probes.sae import SparseAutoencoder, save_sae
from nla.support.errors import ContractError, DataError
from nla.support.memory import memory_use

PAIRS = [ContextPair("f", "system", "Test.", "Shop."), ContextPair("g", "user_prefix", "Exam:", "Hello:")]


def cases_of(model: LoadedModel, n: int, shift: Tensor | None = None, key: str = "x") -> list[Case]:
    """Cases of short replies; a vector is added to those under evaluation."""
    rows = [AnsweredPrompt(f"{key}{i}", f"ask {i}", f"reply number {i * i}") for i in range(n)]
    cases = read_cases(model, 1, assigned(rows, PAIRS, key))
    return [replace(case, vectors=case.vectors + shift) if shift is not None and case.cued else case for case in cases]


def one_hot_sae(d: int = 32) -> SparseAutoencoder:
    """Latents 0 to d-1 are the positive parts of the dimensions, the rest the negative parts."""
    rows = torch.cat([torch.eye(d), -torch.eye(d)])
    return SparseAutoencoder(rows, torch.zeros(2 * d), rows, torch.zeros(d), 12, 1)


def test_latents_are_chosen_on_some_cases_and_tested_on_others(tiny: LoadedModel) -> None:
    sae, shift = one_hot_sae(), torch.zeros(32)
    shift[5] = 40.0
    fit, test = cases_of(tiny, 12, shift, "fit"), cases_of(tiny, 12, shift, "test")
    [best, *_] = telling_latents(sae, fit, test, 3)
    assert (best.latent, best.sign, best.heldout.estimate) == (5, 1, 1.0)
    activations = mean_activations(sae, fit)
    areas = latent_aurocs(activations, [case.cued for case in fit])
    for latent in range(0, 64, 7):
        expected = roc_auc_score([case.cued for case in fit], activations[:, latent].numpy())
        assert float(areas[latent]) == pytest.approx(expected, abs=1e-6)
    for row, case in list(enumerate(fit))[::5]:
        by_hand = np.zeros(64)
        for vector in case.vectors:
            latents = sae.encode(vector[None])
            for latent, value in zip(latents.ids[0].tolist(), latents.values[0].tolist(), strict=True):
                by_hand[latent] += value / len(case.vectors)
        np.testing.assert_allclose(activations[row].numpy(), by_hand, atol=1e-4)


def test_the_reader_of_latents_needs_one_for_the_model(tiny: LoadedModel, tmp_path: Path) -> None:
    groups = KnownGroups(tiny, 1, tuple(cases_of(tiny, 6)), tuple(cases_of(tiny, 6, key="t")))
    assert sae_latents.build(groups) == []
    save_sae(tmp_path, one_hot_sae())
    [measure] = sae_latents.build(replace(groups, sae=tmp_path))
    assert (measure.labels, len(measure.score(groups.test))) == (12, 12)
    with pytest.raises(ContractError, match=r"\(32, 1\), but \(32, 2\)"):
        sae_latents.build(replace(groups, sae=tmp_path, layer=2))


def test_lenses_see_a_word_that_is_put_into_the_stream(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenses, "WORDS", ("!",))  # a token each in the byte-level model
    monkeypatch.setattr(lenses, "UNRELATED", ("?",))
    token = tiny.tokenizer.encode(" !")[0]
    shift = 50 * tiny.unembedding.weight[token].float() / tiny.final_norm.weight.float()
    cases = cases_of(tiny, 8, shift)
    words, _ = lenses.build(KnownGroups(tiny, 1, (), tuple(cases)))
    scores = words.score(cases)
    assert min(scores[:8]) > max(scores[8:])
    assert words.labels == 0


def test_concept_vectors_are_fitted_on_passages_alone(tiny: LoadedModel) -> None:
    cases = cases_of(tiny, 5)
    [measure] = concept_reader(KnownGroups(tiny, 1, (), tuple(cases)))
    scores = measure.score(cases)
    assert measure.labels == 30
    alone = measure.score(cases[3:4])
    assert alone[0] == pytest.approx(scores[3], abs=1e-4)


def test_excerpts_mark_the_strongest_token(tiny: LoadedModel) -> None:
    sae = one_hot_sae()
    texts = ["the ship left", "a cold day", "x"]
    [latent, strongest] = next(iter(top_excerpts(tiny, sae, texts, [5], 2).items()))
    values = []
    for text in texts:
        ids = tiny.tokenizer.encode(text)
        from nla.activations.capture import residual_stream

        stream = residual_stream(tiny, ids, 1)[1:]
        top = sae.encode(stream)
        values += [float(top.values[i][top.ids[i] == 5].sum()) for i in range(len(stream))]
    assert latent == 5
    assert strongest[0].activation == pytest.approx(max(values), abs=1e-4)
    assert f"«{strongest[0].token}»" in strongest[0].text


def test_memory_is_measured_while_it_is_held() -> None:
    with memory_use() as use:
        held = bytearray(300 * 2**20)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(0.1)  # the memory is sampled every 10 ms
        del held
    assert use.added is None or 200 * 2**20 < use.added < 500 * 2**20


def shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from nla.organisms.contexts import read_contexts
    from tests.test_organisms import prompts

    short = tmp_path / "contexts.jsonl"
    rows = [{"family": name, "evaluation": f"{name} test {i}.", "deployment": f"{name} shop {i}."} for name in "ab" for i in range(4)]
    short.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("nla.organisms.cases.shipped_contexts", lambda _kind: read_contexts(short))
    monkeypatch.setattr("nla.organisms.cases._MOST_FIT", 12)
    monkeypatch.setattr("nla.organisms.cases.REPLY_TOKENS", 6)
    monkeypatch.setattr("nla.probes.concept_sets.NEUTRAL", tmp_path / "neutral.jsonl")
    (tmp_path / "neutral.jsonl").write_text("".join(json.dumps({"text": f"box {i} is {i * i}"}) + "\n" for i in range(6)))
    sets = tmp_path / "sets"
    sets.mkdir()
    (sets / "testing.jsonl").write_text(
        '{"name": "testing", "about": "a", "vector": "last", "source": "x"}\n{"positive": "a test", "negative": "a talk"}\n'
    )
    monkeypatch.setattr("nla.activations.contrast_sets.CONTRASTS", sets)  # the other sets take long in a byte-level model
    return ["--contexts", str(short), "--prompts", str(prompts(tmp_path / "p.jsonl", 12)), "--n", "10", "--tokens", "1", "--layer", "1"]


def test_the_command_tables_every_reader(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = shortened(tmp_path, monkeypatch)
    save_sae(tmp_path / "sae", one_hot_sae())
    out = tmp_path / "readers.json"
    command = ["readers", str(tiny_folder("llama")), *arguments, "--sae", str(tmp_path / "sae"), "--json", str(out), "--device", "cpu"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    stored = json.loads(out.read_text())
    expected = {"probe", "linear_probe", "follow_up", "nla", "nla_selfie", "concept_vectors", "sae_latent", "logit_lens_words"}
    assert expected <= set(stored["readers"])
    assert "verbalized" not in stored["readers"]
    for result in stored["readers"].values():
        assert 0 <= result["auroc"]["low"] <= result["auroc"]["estimate"] <= result["auroc"]["high"] <= 1
        assert result["seconds_per_1000"] > 0
    assert stored["readers"]["follow_up"]["n_read"] == 20
    assert stored["readers"]["nla"]["n_read"] == 20


def spectrum_file(path: Path, name: str, area: float) -> Path:
    auroc = {"estimate": area, "low": area - 0.05, "high": area + 0.05, "n": 20}
    reader = {"auroc": auroc, "auroc_by_family": {}, "labels": 60, "reads": "every token", "n_read": 9, "seconds_per_1000": 0.5}
    stored = {"model": {"model": name, "adapter": None}, "layer": 20, "n": 20, "tokens": 2}
    readers = {"linear_probe": reader | {"megabytes": 3.0}, "nla": reader | {"megabytes": None}}
    path.write_text(json.dumps(stored | {"readers": readers}), encoding="utf-8")
    return path


def test_a_report_has_a_section_with_what_each_reader_costs(tmp_path: Path) -> None:
    from nla.organisms.stored_check import read_spectrum_file
    from reports.readers_figure import readers as section

    drawn = section([read_spectrum_file(spectrum_file(tmp_path / f"{name}.json", name, area)) for name, area in (("a", 0.9), ("b", 0.5))])
    assert list(drawn.table["AUROC"]) == [0.9, 0.9, 0.5, 0.5]
    assert set(drawn.table["labels"]) == {60}
    [axes] = drawn.figure.axes
    assert [line.get_xdata().tolist() for line in axes.lines[:2]] == [[0.9, 0.9], [0.5, 0.5]]
    (tmp_path / "other.json").write_text('{"model": {}}')
    with pytest.raises(DataError, match=r"is no table of readers .* make one with `audit readers MODEL --json FILE`"):
        read_spectrum_file(tmp_path / "other.json")
