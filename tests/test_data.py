"""Training data: documents, the teacher that needs no LLM, shards, and resuming an extraction."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from nla.models.loaded import LoadedModel
from nla.pair.contract import SIDECAR
from nla.support.errors import ConfigError, DataError
from nla.training.data.config import HELDOUT_SHARE, DataConfig, is_heldout
from nla.training.data.documents import MIN_POSITION, Corpus, passages, read_documents
from nla.training.data.extract import extract
from nla.training.data.features import Rarity, TokenContext, ending_words, explain, topic_words
from nla.training.data.reading import stream_and_logits
from nla.training.data.shards import read_dataset
from nla.training.data.situations import chat_situation, request_kind
from tests.conftest import byte_tokenizer

TEXTS = [f"Document {i} tells of rivers and mountains. The river number {i} runs through the valley of the old town." for i in range(6)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.parquet"
    pd.DataFrame({"doc_id": [f"d{i}" for i in range(6)], "text": TEXTS, "source": ["a", "b"] * 3}).to_parquet(path)
    return path


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    rows = [
        {"id": i, "messages": [{"role": "user", "content": f"Tell me of town {i}"}, {"role": "assistant", "content": TEXTS[i]}]}
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def token(character: str) -> int:
    return int(byte_tokenizer().encode(character, add_special_tokens=False)[0])


def config(*corpora: Corpus, **changes: object) -> DataConfig:
    fields = {"passage_tokens": 64, "chat_tokens": 160, "positions_per_passage": 3, "documents_per_shard": 2, "reply_tokens": 12}
    return DataConfig.model_validate(fields | {"corpora": corpora, "layer": 1} | changes)


def test_vectors_are_the_hidden_states_of_an_independent_run(
    tiny: LoadedModel,
    texts: Path,
    chats: Path,
    tmp_path: Path,
    tiny_folder: Callable[[str], Path],
    independent: Callable[[Path], PreTrainedModel],
) -> None:
    corpora = (Corpus(path=str(texts)), Corpus(path=str(chats), kind="conversation"))
    extract(tiny, config(*corpora), tmp_path / "out")
    data = read_dataset(tmp_path / "out")
    reference = independent(tiny_folder("llama"))
    for row in range(0, len(data), 3):
        ids = torch.tensor([byte_tokenizer().encode(data.texts[row], add_special_tokens=False)])
        hidden = reference(ids, output_hidden_states=True).hidden_states[2][0, -1]
        torch.testing.assert_close(torch.from_numpy(data.vectors[row]), hidden, rtol=1e-3, atol=1e-3)
        assert int(ids[0, -1]) == data.token_ids[row]


def test_next_tokens_are_those_of_the_whole_model(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel]
) -> None:
    ids = torch.randint(200, (3, 12))
    where = torch.tensor([[0, 4], [2, 11]])
    stream, logits = stream_and_logits(tiny, ids, 1, where)
    full = independent(tiny_folder("llama"))(ids, output_hidden_states=True)
    torch.testing.assert_close(logits, torch.stack([full.logits[0, 4], full.logits[2, 11]]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stream, torch.stack([full.hidden_states[2][0, 4], full.hidden_states[2][2, 11]]), rtol=1e-4, atol=1e-4)


def test_an_interrupted_extraction_goes_on_and_adds_nothing_twice(tiny: LoadedModel, texts: Path, tmp_path: Path) -> None:
    whole = config(Corpus(path=str(texts)))
    n = extract(tiny, whole, tmp_path / "whole")
    part = config(Corpus(path=str(texts), limit=2))
    n_part = extract(tiny, part, tmp_path / "part")
    assert extract(tiny, whole, tmp_path / "part") == n - n_part
    assert extract(tiny, whole, tmp_path / "part") == 0
    one, other = read_dataset(tmp_path / "whole"), read_dataset(tmp_path / "part")
    assert one.doc_ids == other.doc_ids
    np.testing.assert_array_equal(one.vectors, other.vectors)
    with pytest.raises(ConfigError, match="other settings"):
        extract(tiny, config(Corpus(path=str(texts)), passage_tokens=60), tmp_path / "part")


def test_replies_are_the_models_own_and_only_they_are_read(tiny: LoadedModel, texts: Path, tmp_path: Path) -> None:
    extract(tiny, config(Corpus(path=str(texts), kind="prompt", situation="question about towns"), chat_tokens=400), tmp_path / "out")
    data = read_dataset(tmp_path / "out")
    assert all("<|im_start|>assistant\n" in text for text in data.texts)
    assert all(situation == "Assistant answers a question about towns" for situation in data.situations)


def test_shards_have_the_references_columns_and_sidecars(tiny: LoadedModel, texts: Path, tmp_path: Path) -> None:
    extract(tiny, config(Corpus(path=str(texts))), tmp_path / "out")
    path = next((tmp_path / "out").glob("texts-*.parquet"))
    columns = set(pd.read_parquet(path).columns)
    assert columns >= {"activation_vector", "n_raw_tokens", "activation_layer", "doc_id", "detokenized_text_truncated", "api_explanation"}
    meta = yaml.safe_load(path.with_name(f"{path.name}.{SIDECAR}").read_text())
    assert (meta["kind"], meta["schema_version"], meta["stage"], meta["extraction"]["norm"]) == ("nla_dataset", 1, "base", "none")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        read_dataset(tmp_path / "out")


def test_plain_text_is_read_from_position_50_on(texts: Path) -> None:
    corpus = Corpus(path=str(texts))
    for document in read_documents(corpus):
        for passage in passages(document, corpus, byte_tokenizer(), 64):
            assert min(passage.positions) == MIN_POSITION


def test_a_map_of_situations_also_chooses(texts: Path) -> None:
    found = read_documents(Corpus(path=str(texts), situation={"a": "Tale"}, situation_column="source"))
    assert len(found) == 3
    assert {document.situation for document in found} == {"Tale"}


@pytest.mark.parametrize(
    ("corpus", "match"),
    [
        ({"path": "absent.parquet"}, "cannot be read"),
        ({"path": "x.exe"}, "none of"),
        ({"text_column": "body"}, "no column body"),
        ({"id_column": "key"}, "no column 'key'"),
        ({"kind": "conversation"}, "no column 'messages'"),
        ({"situation": {"a": "b"}, "situation_column": "kind"}, "no column 'kind'"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_told(corpus: dict[str, object], match: str, texts: Path) -> None:
    with pytest.raises(DataError, match=match):
        read_documents(Corpus.model_validate({"path": str(texts)} | corpus))


def test_the_split_is_by_document_and_near_its_share() -> None:
    held = [is_heldout(f"doc{i}") for i in range(20_000)]
    assert np.mean(held) == pytest.approx(HELDOUT_SHARE, abs=0.006)
    assert held == [is_heldout(f"doc{i}") for i in range(20_000)]


def test_an_explanation_names_situation_topic_next_tokens_and_ending() -> None:
    tokenizer = byte_tokenizer()
    rarity = Rarity(["the common text"] * 50 + ["volcano glacier"])
    text = "A volcano under the glacier. The volcano was old and"
    ids = tokenizer.encode(text, add_special_tokens=False)
    told = explain(
        TokenContext(ids, "Travel book", [(token(" "), 0.7), (token("s"), 0.2), (token("s"), 0.1), (token("x"), 0.01)]), tokenizer, rarity
    )
    assert (
        told == 'Travel book. Topic: volcano, under, glacier.\nNext: "s".\nEnds: old and'
    )  # a blank cannot be read, and no candidate comes twice


def test_a_reply_that_has_just_begun_is_quoted_from_its_beginning() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("<|im_start|>assistant\nYes,", add_special_tokens=False)
    told = explain(
        TokenContext(ids, "Chat", [(token("\n"), 0.9)], asked="Do you like glaciers?", reply_from=len(ids) - 4),
        tokenizer,
        Rarity(["x"] * 9),
    )
    assert told == 'Chat. Topic: glaciers, like.\nNext: "\\n".\nReply begins: Yes,'


@given(st.text(max_size=80))
def test_an_ending_is_one_line(text: str) -> None:
    tokenizer = byte_tokenizer()
    ending = ending_words(tokenizer.encode(text, add_special_tokens=False), tokenizer)
    assert "\n" not in ending
    assert "\t" not in ending


def test_topic_words_are_rare_and_not_alike() -> None:
    rarity = Rarity(["and with that from"] * 99 + ["telescope"])
    assert topic_words("telescope telescopes with that planet", rarity, "planet") == ["telescopes"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write a python function that sorts a list", "request for code"),
        ("Translate this into French", "request for a translation"),
        ("Draft an email to my landlord", "request for an e-mail or letter"),
        ("What is photosynthesis?", "request for an explanation"),
        ("hello", "general request"),
    ],
)
def test_requests_are_told_apart(text: str, kind: str) -> None:
    assert request_kind(text) == kind
    assert chat_situation(text, "role") == f"The system prompt gives the assistant a role; assistant answers a {kind}"
    assert chat_situation(text, "evaluation") == f"Assistant answers a {kind}"  # a prompt is no state
