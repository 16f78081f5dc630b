"""Editing an explanation to change what a model does: the autoencoder's own way of steering, with controls beside it."""
