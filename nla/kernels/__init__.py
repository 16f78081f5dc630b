"""Building blocks of a fast forward pass: attention over rows of unequal length, the key-value cache, rotary embeddings, packed linear
layers, padding, and the thread that runs networks on a CPU. None of this code depends on a particular model.
"""
