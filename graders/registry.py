"""Inspect's entry point for scorers: `inspect score LOG --scorer graders/nla_awareness`. It imports no torch."""

from inspect_ai._util.registry import registry_add, registry_has, registry_info

from graders.scorers import scorer_functions


def _register_with_package_name() -> None:
    """Register the scorers as `graders/NAME` in editable installs too.

    Inspect prefixes a registered name with its package only if the top-level package and the installed distribution share
    a name, or if the package lies in site-packages. Neither holds in an editable install of `awareness-audit`.
    """
    for scorer in scorer_functions():
        info = registry_info(scorer)
        name = f"graders/{info.name.removeprefix('graders/')}"
        if not registry_has("scorer", name):
            registry_add(scorer, info.model_copy(update={"name": name}))


_register_with_package_name()
