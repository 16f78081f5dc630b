"""A pair's card and the texts that quote it hold the figures of the adapters that are shipped, and of no earlier ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from nla.card import CONFIG_FILE, SCORES_FILE, Card, adapters_digest, read_card, renew, summary
from nla.scoring import Scoring
from nla.support.errors import ConfigError, DataError

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "nla" / "pairs" / "smollm2-135m-L20"


def stored(pair: Path, card: Card, estimate: float) -> list[dict[str, Any]]:
    """Scores as `nla card` stores them, without a run."""
    measures = [
        {"name": "fve_nrm, round trip", "estimate": estimate, "low": 0.1, "high": 0.9, "note": ""},
        {"name": "retrieval top-1 of 100", "estimate": 0.5, "low": None, "high": None, "note": "chance 0.01"},
    ]
    sample = {"context": "it is `so", "explanation": "One.\nTwo", "mse_nrm": 0.25}
    return [
        {"files": adapters_digest(pair), "scoring": json.loads(scoring.model_dump_json()) | {"dtype": card.dtype}, "measures": measures}
        | {"n": 7, "n_documents": 3, "n_failed": 1, "settings": {}, "samples": [sample]}
        for scoring in card.scores
    ]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    for role in ("av", "ar"):
        (tmp_path / role).mkdir()
        (tmp_path / role / "adapter_model.safetensors").write_bytes(role.encode())
    (tmp_path / CONFIG_FILE).write_text('[[scores]]\ntitle = "Kept out"\nheldout = "docs.txt"\n')
    marks = "# Card\n<!-- card:scores -->old<!-- /card:scores -->\nmiddle\n<!-- card:samples -->old<!-- /card:samples -->\nend\n"
    (tmp_path / "README.md").write_text(marks)
    return tmp_path


def test_stored_scores_are_written_between_the_marks_and_nowhere_else(pair: Path) -> None:
    (pair / SCORES_FILE).write_text(json.dumps(stored(pair, read_card(pair / CONFIG_FILE), 0.4567)))
    other = pair / "other.md"
    other.write_text("It reads (<!-- card:summary -->?<!-- /card:summary -->).")
    for _ in range(2):  # a second run changes nothing
        assert renew(pair, None, [other], "cpu", lambda _: None) == [pair / SCORES_FILE, pair / "README.md", other]
        text = (pair / "README.md").read_text()
        assert "| fve_nrm, round trip | 0.457 | 0.100 to 0.900 |  |\n| retrieval top-1 of 100 | 0.500 |  | chance 0.01 |" in text
        assert "`nla score PAIR --heldout docs.txt --limit 400 --dtype float32 --known-prompts 20`" in text
        assert "7 vectors of 3 documents, 1 failed." in text
        assert "- `…'it is 'so'` (mse_nrm 0.25)\n\n      One.\n      Two\n" in text
        assert [text.count(word) for word in ("old", "# Card", "middle", "end")] == [0, 1, 1, 1]
        assert other.read_text() == "It reads (<!-- card:summary -->fve_nrm 0.457 on 7 vectors, retrieval 0.500<!-- /card:summary -->)."


def test_scores_of_other_adapters_or_settings_are_measured_again(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = read_card(pair / CONFIG_FILE)
    (pair / SCORES_FILE).write_text(json.dumps(stored(pair, card, 0.4)))
    asked: list[Scoring] = []

    def stopped(_pair: object, scoring: Scoring, _say: object) -> None:
        asked.append(scoring)
        raise DataError("stopped")

    monkeypatch.setattr("nla.card.load_pair", lambda *_args, **_more: None)
    monkeypatch.setattr("nla.card.score_pair", stopped)
    (pair / "ar" / "adapter_model.safetensors").write_bytes(b"another")
    before = (pair / "README.md").read_text()
    with pytest.raises(DataError, match="stopped"):
        renew(pair, Path("/corpora"), [], "cpu", lambda _: None)
    assert asked[0].heldout == Path("/corpora/docs.txt")
    assert (pair / "README.md").read_text() == before  # no figure of the earlier adapters, and no half of a card


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (CONFIG_FILE, "[[scores]]\ntitle = 'x'\n", r"card\.toml does not say what to score: scores\.0\.heldout: Field required"),
        (CONFIG_FILE, "scores = []\n", r"does not say what to score: scores: "),
        (CONFIG_FILE, "[[", "is not TOML"),
        ("README.md", "# no marks\n", r"has no place for figures; expected the marks <!-- card:NAME -->"),
        (SCORES_FILE, "{", r"scores\.json cannot be read \(JSONDecodeError\); delete it"),
    ],
)
def test_a_wrong_file_is_named(pair: Path, name: str, content: str, message: str) -> None:
    (pair / name).write_text(content)
    with pytest.raises((ConfigError, DataError), match=message):
        renew(pair, None, [], "cpu", lambda _: None)


def test_the_shipped_figures_are_those_of_the_shipped_adapters() -> None:
    scores = json.loads((SHIPPED / SCORES_FILE).read_text(encoding="utf-8"))
    card = read_card(SHIPPED / CONFIG_FILE)
    assert {score["files"] for score in scores} == {adapters_digest(SHIPPED)}
    asked = [json.loads(scoring.model_dump_json()) | {"dtype": card.dtype} for scoring in card.scores]
    assert [score["scoring"] for score in scores] == asked
    assert summary(scores[0]) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| fve_nrm, round trip | {scores[0]['measures'][0]['estimate']:.3f} |" in (SHIPPED / "README.md").read_text(encoding="utf-8")
