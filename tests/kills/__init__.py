"""Kills of whole commands at random moments, by hand: `python -m tests.kills`."""
