"""Which transcripts come from the same sample: the partition that every interval and paired test rests on."""

import numpy as np
import pandas as pd

from audit.stats.rates import Codes


def sample_numbers(table: pd.DataFrame) -> Codes:
    """Number of each transcript's sample, shape (transcript,)."""
    return pd.factorize(table.sample_id)[0].astype(np.int64)


def sample_codes(table: pd.DataFrame) -> Codes | None:
    """`sample_numbers`, or None if every transcript is a sample of its own."""
    numbers = sample_numbers(table)
    return None if len(np.unique(numbers)) == len(numbers) else numbers
