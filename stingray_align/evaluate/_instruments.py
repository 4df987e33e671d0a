"""Does what is read from photons depend on the instrument that counted them?

The same sources are seen through several instruments
(`stingray_align.datasets.simulate_through`). Spectrum, absorption and light curve of a source are
the same behind all mirrors, so what a model says of the *source* should be the same too, up to
photon noise. A second, independent observation with the reference instrument shows how large that
noise is.
"""

import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from ..errors import DomainShiftWarning
from ._regression import EXPERTS
from ._report import Report, bootstrap, figures

__all__ = ["InstrumentsResult", "instruments"]

READOUTS = ("latent_*", "decoded_hardness_*", "decoded_rms", "decoded_skewness",
            "decoded_strongest_frequency")
TARGETS = ("log n_h", "photon_index")


def instruments(populations, model=None, *, readouts=READOUTS, training=None, targets=TARGETS,
                equal_photons=True, seed=0, n_resamples=400):
    """Compare read-outs of the same sources through several instruments.

    Parameters
    ----------
    populations : dict of SimulatedSources
        The same sources by instrument, the reference first, as from
        `stingray_align.datasets.simulate_through`.
    model : PoissonAutodecoder, optional
        The bundled model by default.
    readouts : sequence of str, optional
        Names of features (`stingray_align.autodecoder.Embedding.feature_names`) that describe the
        source. A name with a ``*`` stands for all that match, taken together.
    training : SimulatedSources, optional
        Other sources, seen by the reference instrument, from which a regression learns to estimate
        ``targets`` out of ``readouts``; without them nothing is regressed.
    targets : sequence of str, optional
        Columns of the truth table to estimate, after "log " if the decimal logarithm is meant.
    equal_photons : bool, optional
        Thin the photons of each source at random to the smallest number that any instrument
        counted: read-outs also depend on how much is known. False takes the photons as they are.
    seed : int, optional
        Seed of the thinning and of the bootstrap.
    n_resamples : int, optional
        Bootstrap samples over sources.

    Returns
    -------
    InstrumentsResult

    Raises
    ------
    ValueError
        If the populations differ in their sources, or a name matches no feature.
    """
    from ..autodecoder import embed_vectors

    if len(populations) < 2:
        raise ValueError("Give the same sources through at least two instruments.")
    reference, first = next(iter(populations.items()))
    for name, population in populations.items():
        if not np.array_equal(population.photons.start, first.photons.start):
            raise ValueError(f"The sources of {name} are not those of {reference}: make all with "
                             "datasets.simulate_through.")
    columns = _columns(_feature_names(first, model), readouts)
    vectors = {name: embed_vectors(photons, model)
               for name, photons in _photons(populations, equal_photons, seed).items()}
    values = {what: {name: v[:, mine] for name, v in vectors.items()}
              for what, mine in columns.items()}
    truth = {}
    if training is not None:
        used = np.concatenate(list(columns.values()))
        learned = embed_vectors(training.photons, model)[:, used]
        for target in targets:
            known = np.isfinite(_target(training, target))
            regressor = EXPERTS["boosting"]().fit(learned[known],
                                                  _target(training, target)[known])
            truth[target] = _target(first, target)
            values[f"{target} (regressed)"] = {
                name: np.where(np.isfinite(truth[target]), regressor.predict(v[:, used]),
                               np.nan)[:, None] for name, v in vectors.items()}
    return InstrumentsResult(values=values, truth=truth, equal_photons=equal_photons, seed=seed,
                             n_resamples=n_resamples)


def _feature_names(population, model):
    from ..autodecoder import embed

    with warnings.catch_warnings():
        # other instruments than the trained one are what this is about
        warnings.simplefilter("ignore", DomainShiftWarning)
        return embed(population.event_lists[0], model).feature_names


def _columns(names, readouts):
    columns = {what: [i for i, name in enumerate(names) if fnmatchcase(name, what)]
               for what in readouts}
    for what, mine in columns.items():
        if not mine:
            raise ValueError(f"No feature is called {what!r}; there are {', '.join(names)}.")
    return columns


def _photons(populations, equal, seed):
    photons = {name: population.photons for name, population in populations.items()}
    if not equal:
        return photons
    least = np.min([p.n_photons for p in photons.values()], axis=0)
    rng = np.random.default_rng(seed)
    return {name: p.thin(least / np.maximum(p.n_photons, 1), rng)[0]
            for name, p in photons.items()}


def _target(population, name):
    column = population.truth[name.removeprefix("log ")]
    column = np.asarray(getattr(column, "value", column), dtype=float)
    return np.log10(column) if name.startswith("log ") else column


@dataclass(frozen=True, eq=False)
class InstrumentsResult(Report):
    """Read-outs of the same sources through several instruments.

    Attributes
    ----------
    values : dict of dict of ndarray, shape (n, m)
        Read-out to instrument to its values; several columns for a name with a ``*``. The first
        instrument is the reference.
    truth : dict of ndarray, shape (n,)
        True values of the regressed targets, nan where there is none.
    equal_photons : bool
        Whether all instruments were given the same number of photons.
    """

    primary_is = "largest bias of a read-out, in standard deviations of the sources"

    values: dict
    truth: dict
    equal_photons: bool
    seed: int
    n_resamples: int

    @property
    def instruments(self):
        """Names of the instruments, the reference first."""
        return tuple(next(iter(self.values.values())))

    @property
    def title(self):
        """What was compared."""
        n = len(next(iter(next(iter(self.values.values())).values())))
        number = "as many photons for each" if self.equal_photons else "photons as counted"
        return (f"The same {n} sources through other instruments than {self.instruments[0]}, "
                f"{number}")

    notes = ("bias, scatter: mean and standard deviation of the difference from the reference, in "
             "units of the spread among sources; for several columns their root mean squares "
             "(the part of the bias that is due to scatter taken off). Errors: bootstrap over "
             "sources.",)

    @property
    def primary(self):
        """The largest bias of any read-out, in units of the spread, an `Estimate`."""
        return max((self.difference(what, name)[0] for what in self.values
                    for name in self.instruments[1:]), key=lambda bias: abs(bias.value))

    def difference(self, what, instrument):
        """Bias and scatter of one read-out through one instrument.

        Parameters
        ----------
        what : str
            Key of ``values``.
        instrument : str

        Returns
        -------
        bias, scatter : Estimate
            In units of the spread among sources.
        """
        reference = self.values[what][self.instruments[0]]
        known = np.isfinite(reference).all(axis=1)
        spread = reference[known].std(axis=0)
        varied = spread > 0
        difference = (self.values[what][instrument] - reference)[known][:, varied] / spread[varied]

        def statistic(rows):
            mean, variance = difference[rows].mean(axis=0), difference[rows].var(axis=0)
            if len(mean) == 1:
                return np.array([mean[0], np.sqrt(variance[0])])
            bias = np.mean(mean**2 - variance / len(rows))
            return np.array([np.sqrt(max(bias, 0.0)), np.sqrt(variance.mean())])

        return bootstrap(statistic, len(difference), seed=self.seed, n_resamples=self.n_resamples)

    def to_table(self, by="readout"):
        """Differences from the reference, or errors of what was regressed.

        Parameters
        ----------
        by : {"readout", "target"}, optional

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = []
        if by == "target":
            for target, truth in self.truth.items():
                for name, predicted in self.values[f"{target} (regressed)"].items():
                    known = np.isfinite(truth)
                    error = predicted[known, 0] - truth[known]
                    bias, mae, r2 = bootstrap(
                        _errors(error, truth[known]), len(error), seed=self.seed,
                        n_resamples=self.n_resamples)
                    rows.append((target, name, len(error), bias.value, bias.error, mae.value,
                                 mae.error, r2.value, r2.error))
            return figures(rows, ["target", "instrument", "sources", "bias", "bias error", "MAE",
                                  "MAE error", "R2", "R2 error"])
        for what, seen in self.values.items():
            for name in self.instruments[1:]:
                bias, scatter = self.difference(what, name)
                rows.append((what, name, int(np.isfinite(seen[name]).all(axis=1).sum()),
                             bias.value, bias.error, scatter.value, scatter.error))
        return figures(rows, ["read-out", "instrument", "sources", "bias", "bias error",
                              "scatter", "scatter error"])

    def tables(self):
        """Differences by read-out and, if anything was regressed, errors by target."""
        return [self.to_table(by) for by in ("readout", "target")[: 1 + bool(self.truth)]]


def _errors(error, truth):
    def statistic(rows):
        spread = ((truth[rows] - truth[rows].mean()) ** 2).mean()
        return np.array([error[rows].mean(), np.abs(error[rows]).mean(),
                         1 - (error[rows] ** 2).mean() / spread])
    return statistic
