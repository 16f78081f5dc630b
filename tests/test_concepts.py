"""Concept vectors equal a plain computation, recover planted directions, and say what chance would give; wrong sets are refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from transformers import PreTrainedModel
from typer.testing import CliRunner

from nla.cli import app
from nla.models.loaded import LoadedModel, load_model
from nla.probes.concept_report import FitSettings, fit_and_report, opened
from nla.probes.concept_sets import SHIPPED, concept_set_names, read_concepts, read_neutral
from nla.probes.concept_steering import perplexities, random_units, within_bound, word_changes, word_logprobs
from nla.probes.concept_tests import ReadSet, identify, lenses, valence_test
from nla.probes.concepts import fit_concepts, neutral_basis, passage_means, read_saved_concepts
from nla.support.errors import ConfigError, ContractError, DataError, HarnessError

TEXTS = ["a quiet harbour at noon", "the engine failed twice", "she laughed and ran home", "no", "grey rain on a tin roof", "it worked"]
LABELS = ["calm", "fault", "joy", "calm", "fault", "joy"]


def test_vectors_equal_a_computation_by_hand(tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable) -> None:
    network: PreTrainedModel = independent(tiny_folder("llama"))
    neutral_texts = [f"item {i} is in box {i * i}" for i in range(8)]
    skip = 1

    def mean_streams(texts: list[str]) -> np.ndarray:
        rows = []
        for text in texts:
            ids = torch.tensor([tiny.tokenizer.encode(text)])
            streams: list[torch.Tensor] = []
            handles = [
                block.register_forward_hook(lambda _m, _i, out, streams=streams: streams.append(out)) for block in network.model.layers
            ]
            with torch.no_grad():
                network(ids)
            for handle in handles:
                handle.remove()
            rows.append([stream[0, skip:].double().mean(0).numpy() for stream in streams])
        return np.array(rows)

    labelled, neutral = mean_streams(TEXTS), mean_streams(neutral_texts)
    fitted = fit_concepts(passage_means(tiny, TEXTS, skip), LABELS, passage_means(tiny, neutral_texts, skip), share=0.6)
    for layer in range(tiny.n_layers):
        centred = neutral[:, layer] - neutral[:, layer].mean(0)
        _, sizes, components = np.linalg.svd(centred, full_matrices=False)
        k = next(k for k in range(1, 8) if (sizes[:k] ** 2).sum() / (sizes**2).sum() >= 0.6)
        assert fitted.components[layer] == k
        by_label = {label: labelled[[i for i, other in enumerate(LABELS) if other == label], layer].mean(0) for label in LABELS}
        centre = np.mean(list(by_label.values()), axis=0)
        for label, mean in by_label.items():
            raw = mean - centre
            for component in components[:k]:
                raw = raw - (raw @ component) * component
            np.testing.assert_allclose(fitted.of(label)[layer].numpy(), raw / np.linalg.norm(raw), atol=2e-4)


def planted(
    n_labels: int = 6, n_topics: int = 5, d: int = 40, noise: float = 0.05
) -> tuple[torch.Tensor, list[str], list[str], torch.Tensor]:
    """Vectors with a direction per label, one per topic, and a strong nuisance direction that neutral vectors have too."""
    n_labels, n_topics, d = 6, 5, 40
    draws = np.random.default_rng(3)
    basis = np.linalg.qr(draws.standard_normal((d, d)))[0]
    means, labels, topics = [], [], []
    for label in range(n_labels):
        for topic in range(n_topics):
            x = 2 * basis[label] + 3 * basis[20 + topic] + 8 * draws.standard_normal() * basis[30] + noise * draws.standard_normal(d)
            means.append(x)
            labels.append(f"label {label}")
            topics.append(f"topic {topic}")
    neutral = 8 * draws.standard_normal((50, 1)) * basis[30] + noise * draws.standard_normal((50, d))
    return torch.tensor(np.array(means)).float()[:, None], labels, topics, torch.tensor(neutral).float()[:, None]


def test_planted_directions_are_recovered_and_the_nuisance_is_removed() -> None:
    means, labels, topics, neutral = planted()
    fitted = fit_concepts(means, labels, neutral)
    draws = np.random.default_rng(3)
    basis = np.linalg.qr(draws.standard_normal((40, 40)))[0]
    centre = basis[:6].mean(0)
    for label in range(6):
        truth = basis[label] - centre
        cosine = float(fitted.of(f"label {label}")[0].numpy() @ truth) / np.linalg.norm(truth)
        assert cosine > 0.97
        assert abs(float(fitted.of(f"label {label}")[0].numpy() @ basis[30])) < 0.05
    told = identify(ReadSet(means, labels, topics), ReadSet(means, labels, topics), neutral, 0)
    assert (told.n, told.n_labels, told.first, told.mean_rank) == (30, 6, 30, 1.0)
    order = np.random.default_rng(0).permutation(30)
    mixed = ReadSet(means, [labels[i] for i in order], topics)
    assert identify(mixed, mixed, neutral, 0).first < 15  # labels without meaning are told by chance
    raw = fit_concepts(means, labels, neutral, n_components=0)
    assert max(abs(float(raw.vectors[i, 0].numpy() @ basis[30])) for i in range(6)) > 0.3  # so the components did it


def test_the_valence_test_finds_a_planted_order_and_holds_its_level() -> None:
    draws = np.random.default_rng(5)
    rating = draws.uniform(-1, 1, 20)
    vectors = torch.tensor(0.3 * draws.standard_normal((20, 4, 24))).float()
    vectors[:, 2, 0] += torch.tensor(3 * rating).float()
    test = valence_test(vectors, list(rating), 2)
    centred = vectors[:, 2].double() - vectors[:, 2].double().mean(0)
    scores = np.linalg.svd(centred.numpy())[0][:, 0]
    assert test.r == pytest.approx(abs(pearsonr(scores, rating)[0]), abs=1e-6)
    assert test.best_layer == 2
    assert test.best_r > 0.9 > test.null_best_r > test.null_r
    hits = 0
    for seed in range(40):
        noise = np.random.default_rng(100 + seed)
        null = valence_test(torch.tensor(noise.standard_normal((20, 4, 24))).float(), list(noise.uniform(-1, 1, 20)), 0)
        hits += null.best_r > null.null_best_r
    assert hits <= 6  # 5 % of 40 are 2; more than 6 has a probability below .004


def test_pushes_words_and_perplexities_equal_hand_written_ones(tiny: LoadedModel) -> None:
    layer, added = 1, 3.0 * random_units(tiny.d_model, ("test",), 3)
    prompt, words = "He feels", [tiny.tokenizer.encode(text) for text in (" calm", " cold", "!")]

    def by_hand(ids: list[int], vector: torch.Tensor) -> torch.Tensor:
        def hook(_module: object, _inputs: object, out: torch.Tensor) -> torch.Tensor:
            changed = out.clone()
            for position in range(1, out.shape[1]):
                changed[0, position] = out[0, position] + vector
            return changed

        handle = tiny.blocks[layer].register_forward_hook(hook)
        with torch.no_grad():
            logits = tiny.network(torch.tensor([ids]), use_cache=False).logits[0].double()
        handle.remove()
        return logits.log_softmax(-1)

    start = tiny.tokenizer.encode(prompt)
    got = word_logprobs(tiny, layer, prompt, words, added)
    for i, vector in enumerate(added):
        for column, word in enumerate(words):
            logprobs = by_hand([*start, *word], vector)
            expected = sum(float(logprobs[len(start) - 1 + k, token]) for k, token in enumerate(word))
            assert float(got[i, column]) == pytest.approx(expected, abs=2e-3)
    rows = [tiny.tokenizer.encode(text) for text in TEXTS[:3]]
    losses = [-float(by_hand(row, added[0])[k, row[k + 1]]) for row in rows for k in range(len(row) - 1)]
    assert float(perplexities(tiny, layer, rows, added)[0]) == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-3)


def test_word_changes_are_counted_as_they_say(tiny: LoadedModel) -> None:
    means = passage_means(tiny, TEXTS)
    concepts = fit_concepts(means, LABELS, passage_means(tiny, [f"n {i}" for i in range(6)]))
    results = word_changes(tiny, concepts, 1, [f"some neutral text {i}" for i in range(8)], [0.1, 2.0])
    assert [(result.prompt, result.strength) for result in results] == [(p, s) for s in (0.1, 2.0) for p in ("He feels", "I feel")]
    for result in results:
        own = [float(result.changes[i, i]) for i in range(3)]
        assert result.n_rises == sum(change > 0 for change in own)
        assert result.n_above_random == sum(own[i] > float(result.random[:, i].max()) for i in range(3))
        ranks = [1 + sum(float(result.changes[j, i]) > own[i] for j in range(3)) for i in range(3)]
        assert result.own_rank == pytest.approx(sum(ranks) / 3)
    assert within_bound(results, 0.0) == []
    assert {result.strength for result in within_bound(results, 1e9)} == {2.0}
    with pytest.raises(ConfigError, match="expected numbers above 0"):
        word_changes(tiny, concepts, 1, ["x y"], [0.0])


def test_a_lens_ranks_the_word_of_its_label(tiny: LoadedModel) -> None:
    concepts = fit_concepts(passage_means(tiny, TEXTS), LABELS, passage_means(tiny, [f"n {i}" for i in range(6)]))
    [first, *_] = lenses(tiny, concepts, 1)
    with torch.no_grad():
        logits = tiny.unembedding(tiny.final_norm(concepts.of("calm")[1][None]))[0]
    word = tiny.tokenizer.encode(" calm")[0]
    assert first.own_rank == 1 + int((logits > logits[word]).sum())
    assert first.top[0] == tiny.tokenizer.decode([int(logits.argmax())])


@pytest.mark.parametrize("name", concept_set_names())
def test_shipped_sets_are_balanced_over_labels_and_topics(name: str) -> None:
    concepts = read_concepts(name)
    counts: dict[tuple[str, str], set[str]] = {}
    for passage in concepts.passages:
        counts.setdefault((passage.arm, passage.label), set()).add(passage.topic)
    assert {len(topics) for topics in counts.values()} == {10}
    assert len(concepts.passages) == 10 * len(concepts.labels) * len(concepts.arms)
    assert len({passage.text for passage in concepts.passages}) == len(concepts.passages)
    for passage in concepts.passages:
        words = [word.strip(".,;:!?'\"()").lower() for word in passage.text.split()]
        if passage.arm == "banned":
            assert not set(words) & set(concepts.facts[passage.label].words), passage
        if passage.arm == "named":
            assert passage.label in words, passage


def test_shipped_neutral_passages_are_many_and_different() -> None:
    assert len(set(read_neutral())) == len(read_neutral()) >= 200


def test_fit_writes_what_show_and_steer_read(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    rows = [{"label": label, "topic": f"t{i // 3}", "text": text} for i, (label, text) in enumerate(zip(LABELS, TEXTS, strict=True))]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "neutral.jsonl").write_text("".join(json.dumps({"text": f"box {i} holds {i * 7}"}) + "\n" for i in range(9)))
    model = load_model(str(tiny_folder("llama")), dtype="float32", device="cpu")
    settings = FitSettings(str(tmp_path / "set.jsonl"), neutral=tmp_path / "neutral.jsonl", layer=1)
    report = fit_and_report(model, settings, tmp_path / "out")
    assert report.identified["any"].n == 6
    again, concepts, meta = opened(tmp_path / "out", device="cpu", dtype="float32")
    assert (meta.labels, again.n_layers) == (("calm", "fault", "joy"), model.n_layers)
    torch.testing.assert_close(concepts.vectors.norm(dim=-1), torch.ones(3, model.n_layers))
    assert sorted(path.stem for path in (tmp_path / "out" / "directions").iterdir()) == ["calm", "fault", "joy"]
    steered = load_model(str(tiny_folder("llama")), dtype="float32", device="cpu")
    from nla.activations.steering import steering_of

    steering = steering_of(steered, f"{tmp_path / 'out' / 'directions' / 'joy.safetensors'}:+0.5")
    cosine = torch.nn.functional.cosine_similarity(steering.added, concepts.of("joy"), dim=-1)
    assert float(cosine.min()) > 0.999
    out = CliRunner().invoke(app, ["concepts", "show", str(tmp_path / "out"), "--device", "cpu", "--dtype", "float32"])
    assert out.exit_code == 0
    assert "calm" in out.output
    (tmp_path / "out" / "concepts.safetensors").write_bytes(b"broken")
    with pytest.raises(ContractError, match="holds no concept vectors"):
        read_saved_concepts(tmp_path / "out")


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"label": "a", "text": "x y"}, {"label": "b", "text": "z w"}, {"label": "b", "text": "v"}], {}, "label 'a' has 1 passages"),
        ([{"label": "a", "text": "x y"}, {"label": "a", "text": "z"}], {}, "there is 1 label"),
        ([{"label": "a"}], {}, "row 1 has no text `text`"),
        ([], {}, "holds no passage"),
        ([{"label": x, "text": f"{x} {i}", "arm": arm} for x in "ab" for i in range(2) for arm in ("p", "q")], {}, "has several arms"),
        ([{"label": x, "text": f"{x} {i}"} for x in "ab" for i in range(2)], {"arm": "c"}, "no arm 'c'"),
        ([{"label": x, "text": f"{x} {i}"} for x in "ab" for i in range(2)], {"skip": 500}, "at most 500 tokens"),
        ([{"label": x, "text": f"{x} {i}"} for x in "ab" for i in range(2)], {"components": 400}, "400 components of neutral text"),
    ],
)
def test_sets_that_give_no_vectors_are_refused(
    rows: list[dict[str, str]], arguments: dict[str, object], message: str, tiny: LoadedModel, tmp_path: Path
) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(HarnessError, match=message):
        fit_and_report(tiny, FitSettings(str(path), **arguments), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_unknown_sets_and_labels_name_what_there_is(tiny: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no concept set 'emotion'.*Did you mean 'emotions'"):
        read_concepts("emotion")
    with pytest.raises(ConfigError, match="no vectors for 'x'"):
        fit_concepts(passage_means(tiny, TEXTS), LABELS, passage_means(tiny, TEXTS)).of("x")
    (tmp_path / "few.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(DataError, match="at least 2"):
        read_neutral(tmp_path / "few.jsonl")
    with pytest.raises(ConfigError, match=r"3 components .* 3 neutral passages have 2"):
        neutral_basis(torch.eye(3), n_components=3)
    with pytest.raises(ConfigError, match="give no vector"):
        fit_concepts(torch.zeros(4, 2, 8), ["a", "a", "b", "b"], torch.randn(6, 2, 8))
    (SHIPPED / "emotions.toml").read_text()
