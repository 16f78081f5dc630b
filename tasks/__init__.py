"""Benchmarks and deployment controls, one file each, as Inspect tasks to which the awareness scorers are added.

A task file defines `ITEMS` (where the data come from), `INFO` (what the task is) and one function of the file's own name; everything it
needs is imported from `tasks._shared`. Modules whose names start with an underscore are shared by tasks and are no tasks. What does not
belong here: scorers of awareness and graders (`graders`), running several tasks (`audit`).
"""
