"""What all figures share: their colours, and how names from models and data sets are drawn. Nothing here imports matplotlib."""

BLUE, ORANGE, GREY, GREEN, RED = "#0072B2", "#E69F00", "#777777", "#009E73", "#D55E00"
"""Okabe and Ito's palette, whose colours people with any common form of colour blindness can distinguish."""


def drawable(text: str) -> str:
    """Return a name for matplotlib: one line, no control characters, and no dollar sign that starts mathematics."""
    return "".join(character if character.isprintable() else " " for character in text)[:60].replace("$", r"\$")
