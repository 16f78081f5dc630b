"""What every page of ours rests on: templates that escape whatever they are given, and scripts allowed by their hash alone."""

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined

TEMPLATES = Environment(loader=PackageLoader("reports"), autoescape=True, undefined=StrictUndefined)
"""The templates of `reports/templates`; every string from a model or data set comes out escaped."""


def hashed_script(name: str) -> tuple[str, str]:
    """(a script of ours, its hash as a content security policy names it)."""
    script = TEMPLATES.get_template(name).render()
    return script, f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
