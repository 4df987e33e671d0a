"""What a careful astronomer would do without a trained model: the rivals of the autodecoder.

Every rival is one object and used in one way. Called with an event list it returns a
`~stingray_align.rates.RateEstimate`, as `stingray_align.embed` does; its ``band_rates(photons)``
and ``drawn_band_rates(photons, n, seed)`` give the rates of many sources to the evaluators.

All but PPAD see one source at a time. They share one spectral model: a curve over time, common to
all energies, times a spectrum that does not change.

Examples
--------
>>> import numpy as np
>>> import stingray_align as sa
>>> from stingray_align.evaluate import rivals
>>> times = np.random.default_rng(0).uniform(0, 1000, 200)
>>> events = sa.EventList(np.sort(times), energy=np.full(200, 1.0), gti=[[0, 1000]])
>>> rivals.gregory_loredo(events)
<Gregory-Loredo: 200 photons in 1000 s of unknown instrument>
"""

from ._blocks import bayesian_blocks
from ._constant import constant
from ._cox import LogGaussianCoxEstimate, log_gaussian_cox, log_gaussian_cox_512
from ._gregory_loredo import GregoryLoredoEstimate, gregory_loredo, variability_index
from ._kde import kde
from ._rival import Rival, RivalEstimate

__all__ = ["RIVALS", "GregoryLoredoEstimate", "LogGaussianCoxEstimate", "Rival", "RivalEstimate",
           "bayesian_blocks", "constant", "gregory_loredo", "kde", "log_gaussian_cox",
           "log_gaussian_cox_512", "variability_index"]

#: The rivals shown by default beside every model; the constant is the zero of the scale.
RIVALS = {rival.name: rival for rival in (
    bayesian_blocks, kde, gregory_loredo, log_gaussian_cox_512, log_gaussian_cox)}
