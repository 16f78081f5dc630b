"""All statistics of the audit, as pure functions with named results.

They take arrays of codes and numbers. Whatever knows about logs, tasks or models belongs in `audit.analysis`.
"""
