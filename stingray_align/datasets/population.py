"""A simulated population of X-ray sources with known truth.

One simulator serves training, tests, documentation and benchmarks. Each source belongs to one of
28 physical classes (`CLASSES`, with ranges and references), is seen by one of six instruments
through a window of 100 s to 500 ks with the gaps that instrument has, over a background, and has
a truth to compare results with: physical parameters, flags that describe its light curve, and the
rate itself.

What is approximate: effective areas and energy response (see `stingray_align.instruments`), the
line emission of plasmas, and time behaviour faster than 1/4096 of the window, which is averaged
out. What is left out: pile-up (such sources are flagged), vignetting, background flares under a
source, and redshift (temperatures and energies are as observed).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..instruments import INSTRUMENTS
from ..photons import Photons
from . import _simulate
from ._classes import CLASSES
from ._sources import COLUMNS, Plan, SimulatedSources, _pack

__all__ = ["CLASSES", "Population", "simulate_photons", "simulate_population",
           "simulate_through"]


def simulate_population(n, seed, *, counts="csc", classes=None, instruments=None, duration=None,
                        summaries=1, wording="training"):
    """Simulate observations of a population, with the truth and summaries in prose.

    Parameters
    ----------
    n : int
        Number of sources.
    seed : int
        Everything is reproducible from the arguments; the first sources do not depend on ``n`` in
        steps of 512.
    counts : {"csc", "bright", "training"} or (low, high)
        Expected photons of 0.5-8 keV, background included: as in the windows of the Chandra
        Source Catalog (5, 50, 95 % at 13, 41, 297 and a tail to 1e5), log-uniform between 20 and
        3000, the mixture used for training (down to one photon, up to 1e5), or log-uniform
        between two numbers.
    classes : str, sequence of str or None
        Restrict to some of the `CLASSES`; all are equally frequent.
    instruments : str, sequence of str, dict or None
        Instruments to use, or their weights; by default 60 % Chandra ACIS.
    duration : (low, high) or None
        Windows log-uniform between two lengths in s, bright or not; by default as the instruments
        are used, mostly 1-200 ks, and long enough for the camera to cope with bright sources.
        In a low orbit (NICER, XRT) the last visit may end up to two orbits earlier.
    summaries : int
        Summaries to write for each source.
    wording : {"training", "held-out", "all"}
        Which part of the phrase stock the summaries use.

    Returns
    -------
    Population

    Raises
    ------
    ValueError
        If an argument names an unknown class, instrument or distribution.

    Examples
    --------
    >>> from stingray_align.datasets import simulate_population
    >>> population = simulate_population(5, seed=1, counts="bright", classes="polar")
    >>> len(population), str(population.truth["class"][0]), population.truth["flux"].unit
    (5, 'polar', Unit("erg / (s cm2)"))
    >>> rate = population.true_rate(0, population.photons.start[0] + [10.0, 20.0])
    >>> rate.shape
    (2, 3)
    """
    return Population(n, seed, counts=counts, classes=classes, instruments=instruments,
                      duration=duration, summaries=summaries, wording=wording)


def simulate_photons(n, seed, counts="training", *, classes=None, instruments=None,
                     duration=None):
    """Photons of a simulated population and nothing else: the fast way to training data.

    Parameters
    ----------
    n, seed, counts, classes, instruments, duration
        As in `simulate_population`, which gives the same photons.

    Returns
    -------
    Photons

    Examples
    --------
    >>> from stingray_align.datasets import simulate_photons
    >>> len(simulate_photons(30, seed=1, counts=(20, 100)))
    30
    """
    plan = _plan(n, seed, counts, classes, instruments, duration)
    return Photons.concatenate(_pack(plan.chunk(number)) for number in range(plan.n_chunks))


def simulate_through(n, seed, instruments=tuple(INSTRUMENTS), *, counts="bright", classes=None,
                     duration=None):
    """The same sources seen through several instruments, with no gaps.

    Spectrum, absorption, light curve and window of a source are the same for all instruments; the
    expected source counts follow from the effective areas, the background is each instrument's
    own, and photons are drawn independently. Whatever is found to depend on the instrument
    depends on it through the measurement alone.

    Parameters
    ----------
    n, seed : int
        As in `simulate_population`.
    instruments : sequence of str
        Instruments; the first one is the reference. One that is named twice observes twice: the
        second time its key is, for example, "ACIS-S again".
    counts, classes, duration
        As in `simulate_population`; counts are those of the reference. Sources that are nothing
        but background are left out.

    Returns
    -------
    dict of SimulatedSources
        By instrument. Of the truth, only ``instrument``, ``counts``, ``source_counts``,
        ``background_counts``, ``pileup`` and ``hardness`` (of the counts expected in that
        instrument) differ.

    Raises
    ------
    ValueError
        If an argument names an unknown class, instrument or distribution.

    Examples
    --------
    >>> from stingray_align.datasets import simulate_through
    >>> seen = simulate_through(4, seed=1, instruments=["ACIS-I", "EPIC-pn"])
    >>> ratio = seen["EPIC-pn"].truth["source_counts"] / seen["ACIS-I"].truth["source_counts"]
    >>> bool((ratio > 1.9).all())
    True
    """
    if isinstance(instruments, str):
        raise ValueError(f"instruments={instruments!r}: give a sequence of names")
    _simulate.instrument_weights(instruments)       # refuses unknown names
    names = [name for name in _simulate.class_names(classes) if CLASSES[name].spectrum]
    if not names:
        raise ValueError(f"classes={classes!r}: none of them is more than background")
    _check(counts, duration)
    seen = {}
    for stream, instrument in enumerate(instruments):
        simulate = partial(_simulate.simulate_through, counts=counts, classes=names,
                           instrument=instrument, reference=instruments[0], stream=stream,
                           duration=duration)
        key = instrument + " again" * list(instruments[:stream]).count(instrument)
        seen[key] = SimulatedSources(Plan(n, seed, simulate), f"SIM-{seed}", COLUMNS)
    return seen


def _plan(n, seed, counts, classes, instruments, duration):
    _check(counts, duration)
    return Plan(n, seed, partial(_simulate.simulate, counts=counts, duration=duration,
                                 classes=_simulate.class_names(classes),
                                 weights=_simulate.instrument_weights(instruments)))


def _check(counts, duration):
    _simulate.check_counts(counts)
    if duration is not None:
        _simulate.positive_range("duration", duration)


class Population(SimulatedSources):
    """Simulated sources of the 28 classes; made by `simulate_population`.

    It has what all `SimulatedSources` have, and summaries in prose. Iterating gives ``event_lists,
    truth, summaries``, so a population can be unpacked.
    """

    def __init__(self, n, seed, *, counts="csc", classes=None, instruments=None, duration=None,
                 summaries=1, wording="training"):
        if summaries < 0:
            raise ValueError(f"summaries={summaries}: give how many to write for each source")
        self.seed, self.wording, self.n_summaries = seed, wording, summaries
        self._summaries = None
        super().__init__(_plan(n, seed, counts, classes, instruments, duration), f"SIM-{seed}",
                         COLUMNS)

    def __iter__(self):
        return iter((self.event_lists, self.truth, self.summaries))

    @property
    def summaries(self):
        """Summaries in prose: a list of `Summary`, or of tuples if ``summaries`` is not one."""
        if self._summaries is None:
            self._summaries = [self._write(i) for i in range(len(self))]
        return self._summaries

    def _write(self, i):
        from .prose import write_prose

        facts = self.facts(i)
        written = tuple(
            write_prose(facts, np.random.default_rng([self.seed, i, k]), wording=self.wording)
            for k in range(self.n_summaries))
        return written[0] if self.n_summaries == 1 else written

    def facts(self, i):
        """Row ``i`` of the truth table as plain Python values, in the table's units."""
        row = self.truth[i]
        return {name: getattr(row[name], "value", row[name]).item()
                if hasattr(row[name], "dtype") else row[name] for name in self.truth.colnames}
