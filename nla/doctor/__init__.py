"""`nla doctor`: whether each engine on this machine computes, for a user's own model, what transformers computes."""
