"""Random generators that depend on a key alone, so that every draw can be repeated."""

import hashlib

import numpy as np


def seeded_generator(*key: object) -> np.random.Generator:
    """Return a random generator that depends on its key alone (any values with a stable `repr`)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
