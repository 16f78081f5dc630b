"""A pair of adapters on a tiny model: roles share one base, `nla export` round-trips, `nla score` and `nla explain` run on it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import nla.cli
import nla.verbalizers.av
from nla.models.adapters import WEIGHTS_FILE, AdapterSpec, adapter_parameters, add_adapter, save_adapter, shared_copy
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import Marker, Sidecar, av_prompt_ids, write_sidecar
from nla.pair.export import export_pair
from nla.pair.metrics import reconstruction, unit
from nla.pair.reconstructor import HEAD_FILE, load_reconstructor
from nla.support.errors import ContractError, DataError
from nla.training.data.documents import Corpus
from nla.training.evaluation import kl_to_warm_start, score, token_means
from nla.training.heldout import read_token_contexts
from nla.training.intervals import fve_interval
from nla.training.new_pair import seed_adapter
from nla.training.text_measures import quote_verdicts, shuffled_words
from nla.verbalizers.av import build, load_verbalizer
from nla.verbalizers.base import Explanation
from tests.conftest import byte_tokenizer


@pytest.fixture(scope="module")
def pair(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random pair on the tiny Qwen; its adapters have an effect."""
    folder = tmp_path_factory.mktemp("pair")
    base = load_model(str(tiny_folder("qwen2")), dtype="float32", device="cpu")
    token = {c: byte_tokenizer().encode(c, add_special_tokens=False)[0] for c in "@[]"}
    marker = Marker("@", token["@"], token["["], token["]"])
    common = {"base_checkpoint": str(tiny_folder("qwen2")), "mse_scale": None, "harness": {"temperature": 0.5, "max_tokens": 24}}
    sidecars = {
        "av": Sidecar("av", 32, 1, template="Say [{injection_char}]", marker=marker, injection_scale=4.0, **common),
        "ar": Sidecar("ar", 32, 1, template="{explanation} End.", marker=None, injection_scale=None, **common),
    }
    for role, sidecar in sidecars.items():
        view = shared_copy(base, 2 if role == "ar" else None)
        add_adapter(view, AdapterSpec(rank=3))
        seed_adapter(view, 1)
        generator = torch.Generator().manual_seed(2)
        for parameter in adapter_parameters(view):
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
        save_adapter(view.network, folder / role)
        write_sidecar(folder / role, sidecar)
    save_file({"weight": torch.eye(32) * 1.5}, folder / "ar" / HEAD_FILE)
    return folder


@pytest.fixture
def base(pair: Path, tiny_folder: Callable[[str], Path]) -> LoadedModel:
    return load_model(str(tiny_folder("qwen2")), dtype="float32", device="cpu")


def test_target_av_and_ar_take_little_more_memory_than_the_target(base: LoadedModel, pair: Path) -> None:
    target = {t.data_ptr(): t.nbytes for t in base.network.parameters()}
    av, ar = build(base, None, str(pair)), load_reconstructor(str(pair), base)
    together = target | {t.data_ptr(): t.nbytes for role in (av.model, ar.model) for t in role.network.parameters()}
    added = sum(together.values()) - sum(target.values())
    adapters = sum(t.nbytes for role in (av.model, ar.model) for t in adapter_parameters(role))
    assert added == adapters


def test_an_exported_pair_says_the_same_as_its_adapters(base: LoadedModel, pair: Path, tmp_path: Path) -> None:
    export_pair(str(pair), tmp_path / "out", dtype="float32")
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(4))
    keys = [(i,) for i in range(3)]
    adapters, exported = build(base, None, str(pair)), build(base, None, str(tmp_path / "out"))
    assert [reply.ids for reply in exported.complete(vectors, keys)] == [reply.ids for reply in adapters.complete(vectors, keys)]
    texts = ["a river", "the old town at night"]
    merged = load_reconstructor(str(tmp_path / "out"), dtype="float32", device="cpu")
    assert merged.model.n_layers == 2
    torch.testing.assert_close(merged.reconstruct(texts), load_reconstructor(str(pair), base).reconstruct(texts), rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "out" / "ar" / "config.json").read_text())["num_hidden_layers"] == 2
    with pytest.raises(DataError, match="not empty"):
        export_pair(str(pair), tmp_path / "out")
    with pytest.raises(ContractError, match="full checkpoint already"):
        export_pair(str(tmp_path / "out"), tmp_path / "again", dtype="float32")
    assert not (tmp_path / "again").exists()


def test_score_and_explain_run_from_the_command_line(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Text {i} tells how the ferry number {i * 7} crosses the wide river at dawn and at dusk." for i in range(40)]
    pd.DataFrame({"doc_id": range(40), "text": texts}).to_parquet(tmp_path / "docs.parquet")
    import nla.verbalizers.av as module

    monkeypatch.setattr(module, "CLOSE", "")  # a random AV closes no tag; its reply is then what stands after the first character
    monkeypatch.setattr(module, "parse_explanation", lambda text: module.Explanation(text or "-"))
    arguments = ["score", str(pair), "--heldout", str(tmp_path / "docs.parquet"), "--limit", "20", "--json", str(tmp_path / "s.json")]
    done = CliRunner().invoke(nla.cli.app, [*arguments, "--dtype", "float32", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "s.json").read_text())
    assert result["n"] == 20
    assert {measure["name"] for measure in result["measures"]} >= {
        "fve_nrm, round trip",
        "fve_nrm, control: mean vector",
        "failed or truncated",
    }
    empty = CliRunner().invoke(nla.cli.app, ["explain", str(pair), "--text", "", "--dtype", "float32", "--device", "cpu"])
    assert "text is empty" in str(empty.exception)
    monkeypatch.setattr(module, "parse_explanation", lambda _text: module.Explanation("[/INST] [b]x\x1b]0;title\x07\n\u202ey"))
    arguments = ["explain", str(pair), "--text", "ab", "--token", "-1", "--dtype", "float32", "--device", "cpu"]
    explained = CliRunner(env={"COLUMNS": "200"}).invoke(nla.cli.app, arguments)
    assert explained.exit_code == 0, explained.output
    assert "'b'" in explained.output
    assert r"[/INST] [b]x\x1b]0;title\x07" in explained.output  # shown, neither obeyed nor read as markup
    assert r"\u202ey" in explained.output


def test_the_best_of_several_draws_is_kept(base: LoadedModel, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nla.verbalizers.av, "parse_explanation", lambda text: Explanation(text, failure="" if len(text) % 3 else "odd"))
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(4))
    keys = [(i,) for i in range(5)]
    best = build(base, None, str(pair), best_of="3").verbalize(vectors, keys)
    single = build(base, None, str(pair), reconstruct="false")
    draws = [single.verbalize(vectors, keys), *(single.verbalize(vectors, [(*key, "draw", n) for key in keys]) for n in (1, 2))]
    assert all(draw.mse_nrm is None for draw in draws[0])
    ar = load_reconstructor(str(pair), base)
    for row, chosen in enumerate(best):
        candidates = [draw[row] for draw in draws if not draw[row].failure]
        if not candidates:
            assert chosen.failure == "odd"
            continue
        errors = [float(ar.score(vectors[row : row + 1], [draw.text])[0]) for draw in candidates]
        assert chosen.text == candidates[errors.index(min(errors))].text
        assert chosen.mse_nrm == pytest.approx(min(errors), abs=1e-5)
    assert [draw.text for draw in build(base, None, str(pair)).verbalize(vectors, keys)] == [draw.text for draw in draws[0]]


def test_the_divergence_from_the_warm_start_is_that_of_plain_log_probabilities(base: LoadedModel, pair: Path, tmp_path: Path) -> None:
    av = build(base, None, str(pair))
    shutil.copytree(pair, tmp_path / "warm")
    tensors = load_file(tmp_path / "warm" / "av" / WEIGHTS_FILE)
    save_file({name: tensor * 0.9 for name, tensor in tensors.items()}, tmp_path / "warm" / "av" / WEIGHTS_FILE)
    warm = build(base, None, str(tmp_path / "warm"))
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(4))
    divergence, count = kl_to_warm_start(av, warm, vectors)
    export_pair(str(pair), tmp_path / "a", dtype="float32")
    export_pair(str(tmp_path / "warm"), tmp_path / "b", dtype="float32")
    plain = [AutoModelForCausalLM.from_pretrained(tmp_path / name / "av", dtype=torch.float32).eval() for name in "ab"]
    prompt = av_prompt_ids(base.tokenizer, av.sidecar)
    assert av.sidecar.marker is not None
    [at] = av.sidecar.marker.positions(prompt)
    ratios = []
    for vector, done in zip(vectors, replace(av, temperature=1.0).complete(vectors, [("kl", i) for i in range(3)]), strict=True):
        embeds = plain[0].get_input_embeddings()(torch.tensor([prompt + done.ids])).detach().clone()
        embeds[0, at] = vector * 4.0 / vector.norm()
        logs = [torch.log_softmax(network(inputs_embeds=embeds).logits[0, len(prompt) - 1 : -1], dim=-1) for network in plain]
        trained, start = (log[torch.arange(len(done.ids)), torch.tensor(done.ids)] for log in logs)
        ratios.append(start - trained)
    ratio = torch.cat(ratios)
    assert count == len(ratio)
    assert divergence == pytest.approx(float((ratio.exp() - ratio - 1).mean()), rel=1e-3)
    assert kl_to_warm_start(av, av, vectors)[0] == 0


def test_a_pair_whose_explanations_all_fail_is_told(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.txt").write_text("The ferry crosses the wide river at dawn, and again at dusk when the lamps are lit. " * 3)
    av, model = load_verbalizer(str(pair), dtype="float32", device="cpu")
    moments = read_token_contexts(model, av.layer, Corpus(path=str(tmp_path / "docs.txt")), 4)
    with pytest.raises(DataError, match="explanations failed"):
        score(av, load_reconstructor(str(pair), model), moments)


def test_the_bootstrap_interval_is_that_of_resampled_documents() -> None:
    generator = torch.Generator().manual_seed(0)
    documents = [f"d{i // 4}" for i in range(80)]
    shared = torch.randn(20, 6, generator=generator).repeat_interleave(4, dim=0)
    gold = shared + torch.randn(80, 6, generator=generator)
    predicted = gold + torch.randn(80, 6, generator=generator)
    low, high = fve_interval(gold, predicted, documents)
    draws = []
    for i in range(300):
        chosen = torch.randint(20, (20,), generator=torch.Generator().manual_seed(i))
        rows = torch.cat([torch.arange(4 * int(d), 4 * int(d) + 4) for d in chosen])
        draws.append(reconstruction(gold[rows], predicted[rows]).fve_nrm)
    by_hand = torch.tensor(draws).quantile(torch.tensor([0.025, 0.975]))
    assert (low, high) == pytest.approx(tuple(by_hand.tolist()), abs=0.05)
    assert low < reconstruction(gold, predicted).fve_nrm < high


def test_controls_are_what_they_say(base: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"id": i, "text": "The ferry crosses the river. " * 5}) + "\n" for i in range(4))
    )
    moments = read_token_contexts(base, 1, Corpus(path=str(tmp_path / "docs.jsonl")), 12)
    means = token_means(moments, [0])
    g = unit(moments.vectors)
    same = [i for i in range(12) if moments.doc_ids[i] != moments.doc_ids[0] and moments.token_ids[i] == moments.token_ids[0]]
    others = same or [i for i in range(12) if moments.doc_ids[i] != moments.doc_ids[0]]
    expected = g[others].mean(dim=0)
    torch.testing.assert_close(means[0], expected / expected.norm())
    assert sorted(shuffled_words("a b c d e", 1).split()) == list("abcde")
    assert quote_verdicts(['x\nEnds: "the red fox"'], ["A red fox ran"])["in context"] == pytest.approx(2 / 3)
