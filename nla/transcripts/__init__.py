"""Conversations as the token ids that a model saw, with the tokens it wrote marked.

`tokens` holds the transcript itself and does not import Inspect. `chat`, `thinking`, `borders`, `reply` and `transcript` build transcripts
from Inspect's messages. Code that reads a model at those tokens belongs in `nla.activations`; rendering and encoding in `nla.models`.
"""
