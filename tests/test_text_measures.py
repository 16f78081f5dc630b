"""What is measured on explanations' text: repeated items, paraphrases, quotes, claims, lines left out."""

from math import isnan

import pytest

from nla.training.text_measures import (
    claims,
    paraphrased,
    quote_verdicts,
    quoted_words,
    recurring_share,
    repeated_items,
    repeating_share,
    without_line,
)

TEXT = 'Movie review. Topic: Rivers, boats.\nNext: " the" or " a".\nEnds: of the the'


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (TEXT, 0),  # the last line quotes, and may repeat
        (TEXT.replace("Rivers, boats", "click, click, Click"), 2),
        (TEXT.replace('" a"', '" the"'), 1),
        ("one line one line", 0),
        ("", 0),
    ],
)
def test_items_listed_twice_are_counted(text: str, count: int) -> None:
    assert repeated_items(text) == count


def test_the_share_that_repeats_counts_texts() -> None:
    assert repeating_share([TEXT, TEXT.replace("boats", "rivers")]) == 0.5


def test_a_paraphrase_is_one_of_three_forms_and_keeps_the_words() -> None:
    forms = {paraphrased(TEXT, i) for i in range(40)}
    backwards = "\n".join(reversed(TEXT.split("\n")))
    assert forms == {TEXT.lower(), backwards, backwards.lower()}
    assert paraphrased(TEXT, 3) == paraphrased(TEXT, 3)


def test_quotes_are_in_context_supported_or_invented() -> None:
    assert quoted_words('x\nEnds: "the Fox" jumps') == ["the", "fox"]
    assert quoted_words("x\nEnds: the Fox") == ["the", "fox"]
    verdicts = quote_verdicts(["x\nEnds: the governing zebra"], ["The government met."])
    assert verdicts == {"in context": pytest.approx(1 / 3), "supported": pytest.approx(1 / 3), "invented": pytest.approx(1 / 3)}
    assert all(isnan(share) for share in quote_verdicts(["x\nEnds: "], ["y"]).values())


def test_claims_are_the_words_of_all_lines_but_the_last() -> None:
    assert claims(TEXT) == {"movie", "review", "topic", "rivers", "boats", "next"}
    assert recurring_share([TEXT], [TEXT]) == 1
    assert recurring_share([TEXT], ["Movie plot\nEnds: boats"]) == pytest.approx(1 / 6)


def test_a_line_is_left_out() -> None:
    assert without_line("a\nb\nc", 1) == "a\nc"
    assert without_line("a\nb\nc", 7) == "a\nb\nc"
    assert without_line("a", 0) == "a"
