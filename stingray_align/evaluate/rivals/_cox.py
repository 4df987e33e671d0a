"""A log-Gaussian Cox process for each source, see `stingray_align.autodecoder.cox`.

The autodecoder's refinement weighs such a process against its own curve; here it stands alone.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ...autodecoder.cox import cox_processes
from ...photons import N_TIME_BINS
from ._rival import Rival, RivalEstimate

__all__ = ["LogGaussianCoxEstimate", "log_gaussian_cox", "log_gaussian_cox_512"]

#: Some fifty kernels share the probability of a faint source: one alone may have little of it.
NEGLIGIBLE = 1e-4


class LogGaussianCoxEstimate(RivalEstimate):
    """Rate of one source as a log-Gaussian Cox process; made by calling `log_gaussian_cox`."""

    @property
    def probability(self):
        """Probability of variability: that of all kernels but the constant."""
        return 1 - sum(p for model, p in zip(self._curve.models, self._curve.chance)
                       if model.kernel == "constant")

    @property
    def kernels(self):
        """Posterior over kernels.

        Returns
        -------
        `~astropy.table.QTable`
            The kernels with more than 0.01 % probability, the most probable first: ``kernel``,
            ``length`` (correlation length), ``deviation`` (of the log-rate), ``period``,
            ``harmonics``, ``log_evidence`` (over the photons at a constant rate), ``probability``.
        """
        import astropy.units as u
        from astropy.table import QTable

        window = float(self.photons.duration[0])
        order = np.argsort(-self._curve.chance)
        rows = [(m.kernel, m.length * window / N_TIME_BINS, m.deviation,
                 window / m.cycles if m.cycles else np.nan, m.harmonics, m.fit.log_evidence,
                 self._curve.chance[i])
                for i in order for m in [self._curve.models[i]]]
        return QTable(rows=rows, names=["kernel", "length", "deviation", "period", "harmonics",
                                        "log_evidence", "probability"],
                      units={"length": u.s, "period": u.s})


#: Log-Gaussian Cox process with Matern and quasi-periodic kernels, averaged by their evidence.
log_gaussian_cox = Rival("log-Gaussian Cox", partial(cox_processes, negligible=NEGLIGIBLE),
                         LogGaussianCoxEstimate)

#: The same on the 512 time bins alone, as such processes are usually run on a light curve.
log_gaussian_cox_512 = Rival("log-Gaussian Cox, 512 bins", partial(
    cox_processes, fine=False, negligible=NEGLIGIBLE), LogGaussianCoxEstimate)
