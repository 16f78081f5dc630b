"""Contrast probes: directions equal a plain computation, and wrong sets are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from nla.activations.contrast_sets import ContrastSet, contrast_names, read_contrast, read_probes
from nla.models.adapters import shared_copy
from nla.models.loaded import LoadedModel
from nla.probes.contrasts import direction, projections
from nla.probes.kept_directions import kept_direction, weights_in_memory
from nla.support.errors import ConfigError, DataError
from tests.conftest import AWARENESS_PAIR


def test_directions_are_those_of_plain_torch(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel]
) -> None:
    def plain_stream(text: str, layer: int) -> torch.Tensor:
        ids = torch.tensor([tiny.tokenizer.encode(text)])
        with torch.no_grad():
            return independent(tiny_folder("llama"))(ids, output_hidden_states=True).hidden_states[layer + 1][0]

    last = [plain_stream(text, 1)[-1] for text in AWARENESS_PAIR]
    expected = (last[0] - last[1]) / (last[0] - last[1]).norm()
    assert torch.allclose(direction(tiny, read_contrast("testing"), 1), expected, atol=1e-5)
    pairs = (("It is hot.", "It is cold."), ("Hot tea now.", "Cold tea now."))
    means = [plain_stream(a, 0)[1:].mean(0) - plain_stream(b, 0)[1:].mean(0) for a, b in pairs]
    mean = torch.stack(means).mean(0)
    found = direction(tiny, ContrastSet("x", pairs, "mean"), 0)
    assert torch.allclose(found, mean / mean.norm(), atol=1e-5)
    vectors = torch.randn(3, tiny.d_model, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(projections(vectors, found), (vectors * found).sum(-1), atol=1e-5)


def test_shipped_sets_are_complete() -> None:
    assert {"testing", "monitoring", "observed", *(f"unrelated-{i}" for i in range(1, 6))} <= set(contrast_names())
    for name in contrast_names():
        found = read_contrast(name)
        assert len(found.pairs) >= (1 if name == "testing" else 32)
        if name.startswith("unrelated"):
            text = " ".join(side for pair in found.pairs for side in pair).lower()
            assert not any(word in text for word in ("evaluat", "benchmark", "monitor", "being tested"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"positive": "a"}], "lacks a side"),
        ([{"positive": "a", "negative": ""}], "lacks a side"),
        ([{"positive": "a", "negative": "a"}], "same text on both sides"),
        ([{"name": "x", "vector": "first"}, {"positive": "a", "negative": "b"}], "vector 'first'"),
        ([{"name": "x"}], "no pair"),
    ],
)
def test_a_wrong_set_is_refused(rows: list[dict[str, str]], message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        read_contrast(str(path))


def write_set(path: Path, *pairs: tuple[str, str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"positive": a, "negative": b}) + "\n" for a, b in pairs), encoding="utf-8")
    return str(path)


def test_the_papers_pair_is_a_file_like_the_others() -> None:
    assert read_contrast("testing") == ContrastSet("testing", (AWARENESS_PAIR,), "last")


def test_no_names_mean_all_shipped_sets_and_files_stand_beside_names(tmp_path: Path) -> None:
    assert [probe.name for probe in read_probes(())] == contrast_names()
    mine = write_set(tmp_path / "mine.jsonl", ("It is hot.", "It is cold."))
    probes = read_probes(("testing", mine, "unrelated-2"))
    assert [(probe.name, probe.is_control) for probe in probes] == [("testing", False), ("mine", False), ("unrelated-2", True)]


def test_the_digest_follows_the_pairs_and_the_activation_that_stands_for_a_text() -> None:
    made = [ContrastSet("x", pairs, vector) for pairs in ((("a", "b"),), (("b", "a"),)) for vector in ("last", "mean")]  # type: ignore[arg-type]
    assert len({contrast.digest for contrast in made}) == 4
    assert ContrastSet("another name", (("a", "b"),), "last").digest == made[0].digest


def test_probes_that_could_not_be_told_apart_or_give_no_value_are_refused(tmp_path: Path) -> None:
    files = [write_set(tmp_path / folder / "mine.jsonl", ("It is hot.", "It is cold.")) for folder in "ab"]
    with pytest.raises(ConfigError, match=r"Several probes are named 'mine' \(.*a/mine.jsonl, .*b/mine.jsonl\)"):
        read_probes(files)
    with pytest.raises(ConfigError, match="named 'testing'"):
        read_probes(("testing", write_set(tmp_path / "testing.jsonl", ("It is hot.", "It is cold."))))
    with pytest.raises(ConfigError, match="all controls"):
        read_probes(("unrelated-1", "unrelated-2"))


def test_an_unknown_set_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean .monitoring"):
        read_contrast("monitorin")


def test_a_direction_that_took_long_is_kept_for_the_same_weights_alone(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nla.probes.kept_directions._LONG", 0.0)
    monkeypatch.setattr("nla.probes.kept_directions._FEW_WEIGHTS", 0)
    monkeypatch.setattr("nla.probes.kept_directions.cache_dir", lambda: tmp_path)
    computed = kept_direction(tiny, ("a", 1), lambda: torch.arange(4.0))

    def never() -> torch.Tensor:
        raise AssertionError("computed again")

    assert torch.equal(kept_direction(tiny, ("a", 1), never), computed)
    assert torch.equal(kept_direction(tiny, ("a", 2), lambda: torch.ones(4)), torch.ones(4))
    changed = shared_copy(tiny)
    assert weights_in_memory(changed) == weights_in_memory(tiny)
    with torch.no_grad():  # one number in the middle of one tensor
        projection = changed.network.get_decoder().layers[1].mlp.down_proj
        planted = (torch.arange(projection.weight.numel()) == 900).view_as(projection.weight)
        projection.weight = torch.nn.Parameter(projection.weight + planted)
    weights_in_memory.cache_clear()
    assert torch.equal(kept_direction(changed, ("a", 1), lambda: torch.zeros(4)), torch.zeros(4))
    for path in (tmp_path / "directions").iterdir():
        path.write_bytes(b"torn")
    assert torch.equal(kept_direction(tiny, ("a", 1), lambda: torch.ones(4)), torch.ones(4))
