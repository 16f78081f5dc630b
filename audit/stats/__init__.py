"""All statistics of the audit, as pure functions with named results.

The functions take arrays of verdict codes and numbers. Code that depends on logs, tasks or models belongs in `audit.analysis`.
"""
