"""Training data of a natural language autoencoder: documents, their activations, and what a teacher says of them."""
