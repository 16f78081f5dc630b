"""Fast parts of a forward pass: ragged attention, the key-value cache, packed linear layers, padding, and the compute thread on
which networks run on a CPU. Nothing here knows which model it serves.
"""
