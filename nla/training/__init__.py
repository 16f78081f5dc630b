"""Training of a natural language autoencoder: the AV, the AR, and both together by reinforcement learning."""
