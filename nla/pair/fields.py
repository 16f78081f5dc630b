"""Fields of a sidecar, checked one by one: a sidecar comes with a model and may hold anything.

Each function returns the value in its right type, or raises a `ValueError` that says what the field holds and what was expected.
"""

import math
from collections.abc import Mapping
from typing import Any

from nla.support.display import visible

SQRT_D_MODEL = "sqrt_d_model"
_LONGEST_NUMBER = 20
_SCALES = (1e-12, 1e12)


def integer(value: object, name: str, low: int, high: int) -> int:
    """Return an integer from `low` to `high`, which may be written as text or as a float without a fraction."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    whole = whole or (isinstance(value, float) and value.is_integer())
    whole = whole or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _LONGEST_NUMBER)
    result = int(value) if whole else None  # type: ignore[call-overload]
    if result is None or not low <= result <= high:
        raise ValueError(f"{name} is {shown(value)}; expected an integer from {low} to {high}")
    return int(result)


def number(value: object, name: str, low: float, high: float) -> float:
    """Return a finite number from `low` to `high`."""
    try:
        result = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        result = math.nan
    if not low <= result <= high:
        raise ValueError(f"{name} is {shown(value)}; expected a number from {low:g} to {high:g}")
    return result


def text(value: object, name: str, longest: int) -> str:
    """Return a text of at most `longest` characters without lone surrogates."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}; expected a text")
    if len(value) > longest or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{name} is {shown(value)}; expected a text of at most {longest:,} characters without lone surrogates")
    return value


def section(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a group of fields; an absent one is empty."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}; expected a group of fields")
    return value


def resolve_scale(value: object, d_model: int) -> float | None:
    """Return a scale (L2 norm of vectors) as a number: None, `raw` and `none` mean no scaling, `sqrt_d_model` is the root of the width.

    Raises:
        ValueError: it is none of these and not a positive number.
    """
    if value is None or value in ("raw", "none"):
        return None
    if value == SQRT_D_MODEL:
        return math.sqrt(d_model)
    try:
        return number(value, "scale", *_SCALES)
    except ValueError:
        raise ValueError(f"scale {shown(value)} is not a positive number; expected one, {SQRT_D_MODEL}, raw or none") from None


def shown(value: object) -> str:
    """Return a value as messages show it: short, and safe for a terminal."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST_NUMBER:
        return "a very long number"  # the decimal digits of a huge number take long to compute
    if isinstance(value, dict | list):
        return f"a {'group of fields' if isinstance(value, dict) else 'list'} ({len(value)} items)"
    return visible(repr(value), limit=60)
