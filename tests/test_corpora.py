"""Malformed corpora end as one DataError that names the file; whatever is read can be tokenized. Fuzzed through all file formats."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla.support.errors import DataError
from nla.training.data.config import is_heldout
from nla.training.data.documents import Corpus, Document, passages, read_documents
from nla.training.heldout import corpus_of
from tests.conftest import byte_tokenizer
from tests.fuzz_inputs import inputs

LONG = "The ferry crosses the wide river at dawn. " * 4


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("empty.jsonl", b"", "has no rows"),
        ("empty.csv", b"", "has no rows"),
        ("empty.parquet", b"", "cannot be read"),
        ("blank.txt", b" \n", "has no document"),
        ("cut.parquet", b"PAR1 and then nothing", "cannot be read"),
        ("headless.csv", b"the ferry,1\nthe river,2\n", "no column text or .*the ferry"),
        ("ragged.csv", b"id,text\n1,a ferry, with a comma\n", "no row longer than the header"),
        ("latin.txt", "caf\u00e9".encode("latin-1"), "Expected text in UTF-8"),
        ("latin.csv", "text\ncaf\u00e9".encode("latin-1"), "cannot be read"),
        ("list.jsonl", b"[1, 2]\n", "cannot be read|does not hold rows"),
        ("cut.jsonl", b'{"text": "a', "cannot be read"),
        ("deep.jsonl", b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "cannot be read|holds a list"),
        ("number.jsonl", b'{"text": 5}\n', r"row 1: the column 'text' holds int '5', expected text"),
        ("null.jsonl", b'{"id": 1, "text": null}\n', "has no document"),
        ("no_id.jsonl", b'{"id": 1, "text": "a"}\n{"text": "b"}\n', r"row 2: the column 'id' holds nothing"),
        ("nan_id.jsonl", b'{"id": NaN, "text": "a"}\n', "expected an id"),
    ],
)
def test_a_malformed_file_is_one_data_error(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_documents(Corpus(path=str(written(tmp_path, name, content))))
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        (None, "holds nothing"),
        ([], "holds a list"),
        ("not JSON", "is not JSON"),
        ('{"role": "user"}', "holds a dict"),
        ([{"role": "user", "content": None}], "a turn is a dict"),
        ([{"role": "user"}], "a turn is a dict"),
        (["hello"], "a turn is str 'hello'"),
        ('[{"role": "user", "content": "\\udc00"}]', r"holds \\udc00"),
    ],
)
def test_a_malformed_conversation_is_one_data_error(messages: object, match: str, tmp_path: Path) -> None:
    rows = [{"id": 1, "messages": [{"role": "user", "content": "hello"}]}, {"id": 2, "messages": messages}]
    with pytest.raises(DataError, match=rf"row 2: .*{match}"):
        read_documents(Corpus(path=str(jsonl(tmp_path / "chats.jsonl", *rows)), kind="conversation"))


def test_half_a_surrogate_pair_never_reaches_a_tokenizer(tmp_path: Path) -> None:
    path = written(tmp_path, "lone.jsonl", b'{"id": "\\udfff", "text": "a \\ud800 b"}\n')
    documents, error = outcome(Corpus(path=str(path)))
    assert error is not None or [document.text for document in documents] == ["a \ufffd b"]


def test_wrong_column_types_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1: the column 'text' holds int"):
        read_documents(Corpus(path=str(table(tmp_path / "numbers.parquet", text=[1, 2]))))
    with pytest.raises(DataError, match="holds a bytes"):
        read_documents(Corpus(path=str(table(tmp_path / "bytes.parquet", text=[b"a"]))))
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        read_documents(Corpus(path=str(tmp_path / "folder.parquet")))
    with pytest.raises(DataError, match="cannot be read as parquet"):
        corpus_of(written(tmp_path, "cut.parquet", b"PAR1"))


def test_rows_without_text_are_left_out_and_huge_cells_are_read(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": None}, {"id": 2, "text": " "}, {"id": 3, "text": LONG}, {"id": 4, "text": "x" * 3_000_000}]
    documents = read_documents(Corpus(path=str(jsonl(tmp_path / "rows.jsonl", *rows))))
    assert {document.doc_id for document in documents} == {"rows/3", "rows/4"}
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), ("1", "y" * 300_000)])
    assert len(read_documents(Corpus(path=str(tmp_path / "rows.csv")))[0].text) == 300_000


CELL: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=120) | st.just(LONG),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", 3]), "content": inner})
        | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(["text", "id", "messages", "doc_id", "kind", ""]), CELL, max_size=5), max_size=4)


def written_as(rows: list[dict[str, Any]], suffix: str, folder: Path) -> Path | None:
    """The rows as a file of a format; None where the format cannot hold them."""
    path = folder / f"fuzz{suffix}"
    try:
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif suffix == ".csv":
            names = sorted({name for row in rows for name in row})
            with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
                csv.writer(file).writerows([names, *([row.get(name) for name in names] for row in rows)])
        else:
            jsonl(path, *rows)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    return path


def outcome(corpus: Corpus) -> tuple[list[Document], str | None]:
    """The documents of a corpus, and the message of the DataError where there is one."""
    try:
        return read_documents(corpus), None
    except DataError as ex:
        return [], str(ex)


@settings(max_examples=inputs(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, suffix=st.sampled_from([".jsonl", ".csv", ".parquet"]), kind=st.sampled_from(["text", "conversation", "prompt"]))
def test_any_rows_give_documents_or_a_data_error(rows: list[dict[str, Any]], suffix: str, kind: Any, tmp_path: Path) -> None:
    path = written_as(rows, suffix, tmp_path)
    if path is None:
        return
    corpus = Corpus(path=str(path), kind=kind)
    documents, error = outcome(corpus)
    assert error is None or (str(path) in error and error.isprintable())
    for document in documents:
        assert is_heldout(document.doc_id) in (True, False)
        for passage in passages(document, corpus, byte_tokenizer(), 120):
            assert 0 < len(passage.ids) <= 120


@settings(max_examples=inputs(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".jsonl", ".csv", ".parquet", ".txt"]))
def test_any_bytes_give_documents_or_a_data_error(content: bytes, suffix: str, tmp_path: Path) -> None:
    documents, error = outcome(Corpus(path=str(written(tmp_path, f"fuzz{suffix}", content))))
    assert error is None or "fuzz" in error
    assert all(document.text.encode() for document in documents)
