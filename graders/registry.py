"""Inspect's entry point for scorers: `inspect score LOG --scorer graders/nla_awareness`. Imports without torch."""

from inspect_ai._util.registry import registry_add, registry_has, registry_info

from graders.scorers.nla_awareness import nla_awareness
from graders.scorers.verbalized_awareness import verbalized_awareness


def _register_with_package_name() -> None:
    """Make `graders/NAME` known in editable installs too.

    Inspect prefixes a registered name with its package only where the top-level package and the installed distribution share
    a name, or the package lies in site-packages; in an editable install of `awareness-audit` neither holds.
    """
    for scorer in (nla_awareness, verbalized_awareness):
        info = registry_info(scorer)
        name = f"graders/{info.name.removeprefix('graders/')}"
        if not registry_has("scorer", name):
            registry_add(scorer, info.model_copy(update={"name": name}))


_register_with_package_name()
