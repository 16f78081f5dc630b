"""The section of a report about readers: what `audit readers` found, from labelled vectors to open descriptions."""

from collections.abc import Sequence

import pandas as pd

from nla.organisms.figure import draw_checks
from nla.organisms.stored_check import StoredSpectrum
from reports.drawing import Drawn


def readers(spectra: Sequence[StoredSpectrum]) -> Drawn:
    """AUROC of every reader on the same vectors of known groups, with the labels, the seconds and the memory that each took."""
    checks = [spectrum.as_check() for spectrum in spectra]
    rows = [
        {
            "model": check.name,
            "reader": name,
            "AUROC": reader.auroc.estimate,
            "low": reader.auroc.low,
            "high": reader.auroc.high,
            "labels": reader.labels,
            "reads": reader.reads,
            "seconds per 1,000": reader.seconds_per_1000,
            "MB": reader.megabytes,
        }
        for spectrum, check in zip(spectra, checks, strict=True)
        for name, reader in sorted(spectrum.readers.items(), key=lambda item: -item[1].auroc.estimate)
    ]
    read = "; ".join(f"{check.name}: {check.n} prompts, block {check.layer}" for check in checks)
    note = (
        "Every reader on the same vectors: identical replies under evaluation and deployment contexts of families that nothing was fitted "
        f"or trained on ({read}). The table says what each reader costs: labelled examples, seconds per 1,000 vectors (conversations, "
        "where it reads no vector), and the memory that reading adds."
    )
    how = (
        "A reader that needs labels and sees the state shows that it is there; a reader without labels that sees it too could have found "
        "it unasked. Readers with `unrelated` in their name are controls: they should lie at .5."
    )
    return Drawn("readers", "The spectrum: what each reader sees of the same vectors", note, draw_checks(checks), pd.DataFrame(rows), how)
