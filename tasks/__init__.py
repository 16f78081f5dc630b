"""Benchmarks and deployment-like controls, one file each, as Inspect tasks with the awareness scorers attached."""
