"""True parameters as vectors: what the best imaginable event model would hand to the aligner."""

import numpy as np

from ..autodecoder.descriptors import TIME_SHAPES
from ..text.slots import CLASSES

__all__ = ["truth_vectors"]

# Column of the truth table: centre and scale, and whether the logarithm is meant.
_NUMBERS = {
    "flux": (-13.0, 1.2, True), "hardness": (0.0, 0.5, False), "photon_index": (1.9, 0.6, False),
    "kT": (0.0, 0.6, True), "n_h": (-0.7, 0.9, True), "period": (3.0, 1.5, True),
    "timescale": (3.7, 1.3, True), "fractional_variability": (-1.0, 1.0, True),
}
_LOWEST = -4.0  # standard deviations: the logarithm of zero


def truth_vectors(truth, *, with_class=True):
    """Vectors of what is true of simulated sources.

    An aligner that is trained with them in place of event vectors shows how well texts could be
    found if the photons told everything: the ceiling of retrieval.

    Parameters
    ----------
    truth : astropy.table.QTable
        Of `~stingray_align.datasets.simulate_population`.
    with_class : bool, optional
        False leaves the class label out: what physical parameters alone allow.

    Returns
    -------
    ndarray, shape (n, n_features), float32
        Class (if wanted) and time shape, each as zeros and a one; then flux, hardness, photon
        index, kT, column density, period, timescale and fractional variability, standardised,
        with a mask of presence each. What does not apply is zero.

    Examples
    --------
    >>> from stingray_align.datasets import simulate_population
    >>> from stingray_align.evaluate import truth_vectors
    >>> truth_vectors(simulate_population(3, seed=1, summaries=0).truth).shape
    (3, 57)
    """
    columns = [_one_hot(truth["class"], CLASSES)] if with_class else []
    columns.append(_one_hot(truth["time_shape"], TIME_SHAPES))
    for name, (centre, scale, logarithmic) in _NUMBERS.items():
        values = np.asarray(getattr(truth[name], "value", truth[name]), dtype=float)
        known = np.isfinite(values)
        if logarithmic:
            with np.errstate(divide="ignore"):
                values = np.log10(values, where=known, out=np.zeros_like(values))
        scaled = np.maximum((values - centre) / scale, _LOWEST)
        columns.append(np.column_stack([np.where(known, scaled, 0.0), known]))
    return np.concatenate(columns, axis=1).astype(np.float32)


def _one_hot(values, names):
    return np.asarray(values).astype(str)[:, None] == np.asarray(names)
