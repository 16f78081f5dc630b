"""Foreign text on a terminal: nothing acts, nothing hides, nothing is markup."""

import io
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from nla.support.display import plain, visible


def printed(*what: object, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    console = Console(file=stream, width=200, force_terminal=True, color_system=None)
    for thing in what:
        console.print(thing)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined, no-any-return]


def test_characters_that_act_or_hide_are_escapes() -> None:
    assert visible("\x1b]0;title\x07") == r"\x1b]0;title\x07"
    assert visible("a\u202eb\u200bc\ufeffd\x9b\u2028") == r"a\u202eb\u200bc\ufeffd\x9b\u2028"
    assert visible("\ud800\U000e0041") == r"\ud800\U000e0041"
    assert visible("\u3164") == r"\u3164"
    assert visible("é 漢 🙂 \\x1b [/b]") == "é 漢 🙂 \\x1b [/b]"
    assert visible("a\n\tb") == r"a\x0a\x09b"
    assert visible("a\n\tb\r", lines=True) == "a\n\tb\\x0d"
    assert visible(3.5) == "3.5"


@given(st.text(st.characters()), st.booleans())
@example("[/INST] [link=https://evil.example]x[/link]", False)
def test_no_text_acts_on_a_terminal_or_is_markup(text: str, lines: bool) -> None:
    shown = visible(text, lines=lines)
    kept = "\n\t" if lines else ""
    assert all(unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in shown if character not in kept)
    shown.encode()  # no lone surrogate is left
    assert plain(text, lines=lines).plain == shown
    assert not plain(text).spans


@given(st.text(st.characters(), max_size=200), st.integers(1, 50))
def test_a_limit_holds_and_keeps_both_ends(text: str, limit: int) -> None:
    shown, whole = visible(text, limit=limit), visible(text)
    assert len(shown) <= limit
    if len(text) <= 2 * limit:
        head, ellipsis, tail = shown.partition("…") if len(whole) > limit else (whole, "", "")
        assert whole.startswith(head) or "…" in whole
        assert whole.endswith(tail) or not ellipsis or "…" in whole


def test_markup_in_tables_titles_and_messages_is_text() -> None:
    table = Table("a", title=plain("m [v2]"))  # type: ignore[arg-type]
    table.add_row(plain("[/INST] \x1b[31m", "red"))
    said = printed(table, plain("[bold]x[/bold]"))
    assert "m [v2]" in said
    assert r"[/INST] \x1b[31m" in said
    assert "[bold]x[/bold]" in said


def test_ascii_and_latin_1_terminals_get_escapes_instead_of_an_error() -> None:
    for encoding in ("ascii", "latin-1"):
        assert r"\u6f22" in printed(plain("漢"), encoding=encoding)
