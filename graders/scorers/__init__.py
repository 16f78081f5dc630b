"""The Inspect scorers, one file for each measure, and their metrics. Text is graded by `graders`; weights are read in `nla`."""
