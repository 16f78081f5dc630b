"""Reading and moving the residual stream at the tokens of a transcript: capture, directions, steering, likelihood, and the follow-up
question. What turns vectors into text belongs in `nla.verbalizers`.
"""
