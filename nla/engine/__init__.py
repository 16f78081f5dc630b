"""Generation of tokens: the batched decoder, the scheduler that feeds it, and sampling. Nothing here knows of messages or roles."""
