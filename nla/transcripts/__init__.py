"""Conversations as the token ids a model saw, with the tokens it wrote marked.

`tokens` holds the transcript itself and imports nothing of Inspect; `chat`, `reply` and `transcript` build transcripts from Inspect's
messages. What reads a model at those tokens belongs in `nla.activations`.
"""
