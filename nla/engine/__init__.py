"""Generation of tokens: the batched decoder, the scheduler that feeds it, and sampling. This code works on token ids, not on messages."""
