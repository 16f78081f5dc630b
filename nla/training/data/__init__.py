"""Training data of a natural language autoencoder: documents, vectors read at their tokens, and a teacher's explanation of each.

The order of work: `documents` (rows of a file as token sequences, checked by `corpus_rows`), `extract` (vectors and likeliest next
tokens), a teacher (`features`, which needs no LLM and names `situations`, or `teacher`, an LLM), `shards` (parquet files).
"""
