"""Where `nla` meets Inspect: the `local/` model provider, its entry point, and `read_transcript`.

Beside this room only `nla.transcripts` and the LLM teacher of the training data import Inspect.
"""
