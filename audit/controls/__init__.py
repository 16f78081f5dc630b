"""Instrument controls: what the verbalizer and the grader report on inputs without relevant content, and the record of the results.

The other controls are elsewhere: deployment controls are tasks (`tasks/`), and the positive control is a condition of the run
(`audit.running`).
"""
