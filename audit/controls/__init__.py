"""Instrument controls: what verbalizer and grader report where there is nothing to find, and the record of it.

Deployment controls are tasks (`tasks/`), and the positive control is a condition of the run (`audit.running`).
"""
