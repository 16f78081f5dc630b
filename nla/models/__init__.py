"""Models in memory: where their files come from, how they are loaded, their architecture, precision, adapters and chat template.

What runs a model for a purpose (decoding, capture, verbalizing) belongs in the rooms above.
"""
