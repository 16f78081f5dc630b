"""Training of a natural language autoencoder: data, warm start of the AV, its own samples, the AR, reinforcement learning, scoring.

What belongs here: everything that changes a pair's weights or measures a pair on held-out documents, in `nla train`'s order:
`data/` (vectors and explanations), `av`, `samples`, `ar`, `rl`, joined by `pair` and run by `loop`; `evaluation` for `nla score`.
What does not: using a finished pair (`nla.pair`, `nla.verbalizers`), and Inspect, except in the LLM teacher (`data/teacher.py`), which
is imported only where one is asked for. A training machine needs torch, transformers, peft, accelerate, safetensors, pyarrow,
pydantic, typer, rich and jaxtyping.
"""
