"""The test suite. `check` is the run-time type checker that pytest switches on for shape annotations (see pyproject.toml)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is accepted where a float is asked for
