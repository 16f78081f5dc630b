"""Conditions, statistics, controls and the `audit` command."""
