"""Supervised readers of the residual stream: contrast directions and linear probes. They need no trained autoencoder.

Contrast sets are files in `contrasts/`, found by name. Steering (`nla.activations.steering`) and verbalizers do not belong here.
"""
