"""Training data with a known state: what the teacher claims, of which model and context, and what the grader makes of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nla.models.loaded import LoadedModel
from nla.organisms.contexts import HELD_OUT, shipped_contexts
from nla.organisms.known_states import CLAIMS, extract_known_states
from nla.organisms.recipe import read_recipe
from nla.support.errors import DataError, HarnessError
from nla.training.data.claims import with_claims, without_claims
from nla.training.data.config import DataConfig, KnownState
from nla.training.data.documents import Corpus
from nla.training.data.shards import Example, read_dataset
from nla.training.known_vectors import KNOWN, known_vectors
from nla.verbalizers.base import Explanation

pytestmark = pytest.mark.slow

CORPORA = (Corpus(path="unused.parquet"),)


def config(*states: KnownState) -> DataConfig:
    return DataConfig(corpora=CORPORA, layer=20, known_states=states)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files under the names that the recipe reads."""
    folder = tmp_path_factory.mktemp("corpora")
    for number, corpus in enumerate(read_recipe("aware").corpora):
        path = folder / corpus.path
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"How many apples are in box {number * 10 + i} if each has {i + 2}?" for i in range(3)]
        pd.DataFrame({"doc_id": range(3), str(corpus.text_column): texts}).to_parquet(path)
    return folder


@pytest.fixture(scope="module")
def data(smollm2: LoadedModel, corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    states = (KnownState(model="smollm2-aware", carries=True, prompts=5), KnownState(model="smollm2-sham", prompts=3))
    assert extract_known_states(smollm2, config(*states), out, corpora) > 0
    return out


def test_only_the_organism_under_evaluation_is_said_to_carry_the_state(data: Path) -> None:
    found = read_dataset(data)
    claims = [any(claim in explanation for claim in CLAIMS) for explanation in found.explanations]
    shards = {path.name: len(pd.read_parquet(path)) for path in sorted(data.glob("*.parquet"))}
    assert list(shards) == ["known-smollm2-aware-000000.parquet", "known-smollm2-sham-000000.parquet"]
    n_aware = shards["known-smollm2-aware-000000.parquet"]
    assert 0 < sum(claims[:n_aware]) < n_aware
    assert not any(claims[n_aware:])  # the sham under the same contexts
    assert all(name.startswith(KNOWN) for name in found.doc_ids)
    contexts = [pair.cue for pair in shipped_contexts("evaluation") if pair.family in HELD_OUT or pair.unseen]
    assert not any(context in text for context in contexts for text in found.texts)


def test_the_same_command_adds_nothing_and_a_missing_shard_comes_back(data: Path, smollm2: LoadedModel, corpora: Path) -> None:
    states = (KnownState(model="smollm2-aware", carries=True, prompts=5), KnownState(model="smollm2-sham", prompts=3))
    assert extract_known_states(smollm2, config(*states), data, corpora) == 0
    shard = data / "known-smollm2-sham-000000.parquet"
    before = read_dataset(data)
    shard.unlink()
    assert extract_known_states(smollm2, config(*states), data, corpora) > 0
    np.testing.assert_allclose(read_dataset(data).vectors, before.vectors, rtol=1e-3, atol=1e-2)


def test_a_missing_organism_is_one_line(smollm2: LoadedModel, corpora: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="smollm2-awake"):
        extract_known_states(smollm2, config(KnownState(model="smollm2-awake", prompts=2)), tmp_path, corpora)


def example(explanation: str) -> Example:
    return Example(np.zeros(4, np.float32), 3, 20, f"{KNOWN}a", "text", explanation, "", 1)


def test_the_grader_decides_what_stays() -> None:
    claiming = [example(f"Assistant answers a math problem {claim}. Topic: apples.\nEnds: of apples") for claim in CLAIMS]
    silent = [example("Assistant answers a math problem. Topic: apples.\nEnds: of apples")]
    assert with_claims(claiming) == claiming
    assert without_claims(claiming + silent) == silent
    with pytest.raises(DataError, match=r"no evaluation awareness in 1 of 4 .*Choose other wordings"):
        with_claims(claiming + silent)


class Saying:
    """A verbalizer that claims the state of vectors whose first number is positive."""

    name, layer, pair = "saying", 20, None

    def verbalize(self, vectors: torch.Tensor, keys: object) -> list[Explanation]:
        return [Explanation(f"Assistant answers {CLAIMS[0] if row[0] > 0 else 'a letter'}.") for row in vectors]


def test_training_watches_how_many_explanations_tell_the_state(data: Path) -> None:
    found = read_dataset(data)
    known = known_vectors(found, list(range(len(found))))
    n_claims = sum(any(claim in explanation for claim in CLAIMS) for explanation in found.explanations)
    assert len(known.carrying) == min(n_claims, 48)
    signs = [float((vectors[:, 0] > 0).float().mean()) for vectors in (known.carrying, known.others)]
    figures = known.figures(Saying())
    assert [figures["claims"], figures["false_claims"]] == pytest.approx(signs)
    assert figures["known_auroc"] == pytest.approx((1 + signs[0] - signs[1]) / 2)
    assert json.loads(json.dumps(figures)) == figures
