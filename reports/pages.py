"""Shared by all pages: templates that escape every value, and scripts that the content security policy allows by their hash."""

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined

TEMPLATES = Environment(loader=PackageLoader("reports"), autoescape=True, undefined=StrictUndefined)
"""The templates of `reports/templates`; every string from a model or data set is escaped."""


def hashed_script(name: str) -> tuple[str, str]:
    """Return the text of one of our scripts, and its hash in the form of a content security policy."""
    script = TEMPLATES.get_template(name).render()
    return script, f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
