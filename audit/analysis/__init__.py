"""From the logs of an audit to `audit.json`: tables, analysis, stored results, and the comparison of two audits.

Formulas belong in `audit.stats`; formatting belongs in `audit.terminal` and `reports`.
"""
