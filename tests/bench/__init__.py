"""Benchmark scripts: run by hand, ratios measured in one process run; never part of the test suite."""
