"""Reading and changing the residual stream at the tokens of a transcript: capture, directions, steering, projection, likelihood and the
follow-up question. Code that turns vectors into text belongs in `nla.verbalizers`.
"""
