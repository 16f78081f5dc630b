"""From the logs of an audit to `audit.json`: tables, the analysis, its result, and the comparison of two audits."""
