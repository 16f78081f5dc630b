"""Models in memory: where their files come from, how they are loaded, their architecture, precision, adapters and chat template.

Code that runs a model for a purpose (decoding, capture, verbalizing) belongs in the packages that import this one.
"""
