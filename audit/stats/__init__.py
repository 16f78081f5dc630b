"""All statistics, as pure functions with named results. They take arrays, and know nothing of logs, tasks or models."""
