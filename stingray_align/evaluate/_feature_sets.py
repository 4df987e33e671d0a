"""Parts of the feature vector to compare: all of it, parts alone, what a catalogue lists."""

import numpy as np

__all__ = ["CATALOGUE_FEATURES", "feature_sets"]

#: What catalogues list of every source: brightness, exposure, hardness ratios, tests for
#: variability (excess variances, Kuiper). Names, or their beginnings if they end in "_".
CATALOGUE_FEATURES = ("log_counts", "log_duration", "log_exposure", "log_rate", "counts_hardness_",
                      "excess_variance_", "kuiper_statistic")


def feature_sets(vectors, names):
    """Split feature vectors into the sets that benchmarks put beside each other.

    Parameters
    ----------
    vectors : array_like, shape (n, n_features)
        Of `~stingray_align.autodecoder.embed_vectors`.
    names : sequence of str
        Their names, `~stingray_align.Embedding.feature_names`.

    Returns
    -------
    dict of ndarray
        ``"embedding"`` (all), ``"latent"``, ``"descriptors"`` (what the embedding itself says of
        the source: parameters, their spreads, and how likely each kind of variability is) and
        ``"catalogue features"``.

    Examples
    --------
    >>> import numpy as np
    >>> from stingray_align.evaluate import feature_sets
    >>> sets = feature_sets(np.zeros((3, 4)), ["log_counts", "latent_0", "latent_1", "decoded_rms"])
    >>> {name: values.shape for name, values in sets.items()}
    {'embedding': (3, 4), 'latent': (3, 2), 'descriptors': (3, 0), 'catalogue features': (3, 1)}
    """
    from ..autodecoder.descriptors import DESCRIPTORS

    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape[1] != len(names):
        raise ValueError(f"vectors of shape {vectors.shape} do not fit {len(names)} names.")

    def chosen(wanted):
        return [any(name == w or w.endswith("_") and name.startswith(w) for w in wanted)
                for name in names]

    return {"embedding": vectors, "latent": vectors[:, chosen(["latent_"])],
            "descriptors": vectors[:, chosen(DESCRIPTORS)],
            "catalogue features": vectors[:, chosen(CATALOGUE_FEATURES)]}
