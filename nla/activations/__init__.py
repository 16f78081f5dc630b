"""Read and change the residual stream at the tokens of a transcript: capture, directions, steering and projection. Also here: the
likelihood of responses and the follow-up question. Code that turns vectors into text belongs in `nla.verbalizers`.
"""
