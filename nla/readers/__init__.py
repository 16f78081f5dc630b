"""Commands and tests of the readers beside the autoencoder: lenses, sparse autoencoders, question-answering oracles."""
