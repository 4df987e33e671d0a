"""What is measured directly from the photons of one source, without any model."""

import math
from dataclasses import dataclass

import numpy as np

from ..photons import BAND_OF_CHANNEL

__all__ = ["Measured", "measure"]

#: Fewer photons than this say nothing about variability.
FEWEST_FOR_VARIABILITY = 40


@dataclass(frozen=True)
class Measured:
    """Counts, brightness, hardness and variability of one observation (0.5-8 keV).

    Attributes
    ----------
    counts : int
        Photons in the aperture, background included.
    background : float or None
        Counts expected from the background among them; None if not known.
    exposure, duration : float
        Exposed time and length of the window in s.
    rate, rate_interval : float, (float, float)
        Photons per exposed second with 68 % Poisson interval, background included.
    hardness, hardness_interval : float, (float, float)
        (H - S)/(H + S) of the counts in 2-7 and 0.5-2 keV with 68 % Beta interval (Jeffreys
        prior), background included; NaN without photons.
    excess_variance, excess_variance_error : float
        Normalised excess variance of the light curve in bins of equal exposure
        (`stingray.utils.excess_variance`, Vaughan et al. 2003) and its error; NaN where it cannot
        be measured.
    n_bins : int
        Bins of that light curve.
    detectable_rms : float
        Fractional rms that would have shown at three standard deviations; NaN likewise.
    instrument : str
        Canonical instrument name or "".
    """

    counts: int
    background: float | None
    exposure: float
    duration: float
    rate: float
    rate_interval: tuple
    hardness: float
    hardness_interval: tuple
    excess_variance: float
    excess_variance_error: float
    n_bins: int
    detectable_rms: float
    instrument: str


def measure(photons):
    """Measure a set of photons that holds one source.

    Parameters
    ----------
    photons : stingray_align.photons.Photons
        With exactly one source.

    Returns
    -------
    Measured
    """
    from astropy.stats import poisson_conf_interval
    from scipy.stats import beta

    if len(photons) != 1:
        raise ValueError(f"one source is measured at a time, not {len(photons)}")
    counts, exposure = int(photons.n_photons[0]), float(photons.exposure[0])
    low, high = poisson_conf_interval(counts, interval="frequentist-confidence")
    band = BAND_OF_CHANNEL[photons.channel]
    soft, hard = int((band <= 1).sum()), int((band == 2).sum())
    hardness, hardness_interval = math.nan, (math.nan, math.nan)
    if soft + hard:
        hardness = (hard - soft) / (hard + soft)
        share = beta.ppf([0.16, 0.84], hard + 0.5, soft + 0.5)
        hardness_interval = tuple(float(2 * p - 1) for p in share)
    variance, error, n_bins, detectable = _variability(photons, counts)
    background = float(photons.background[0].sum())
    return Measured(
        counts=counts, background=background if background > 0 else None, exposure=exposure,
        duration=float(photons.duration[0]), rate=counts / exposure,
        rate_interval=(float(low) / exposure, float(high) / exposure), hardness=hardness,
        hardness_interval=hardness_interval, excess_variance=variance,
        excess_variance_error=error, n_bins=n_bins, detectable_rms=detectable,
        instrument=str(photons.instrument[0]),
    )


def _variability(photons, counts):
    nothing = (math.nan, math.nan, 0, math.nan)
    if counts < FEWEST_FOR_VARIABILITY:
        return nothing
    from stingray import Lightcurve
    from stingray.utils import excess_variance

    # A bin of five photons is enough, since the noise is taken from the mean and not from the bin.
    wanted = int(np.clip(2 ** int(math.log2(counts / 5)), 8, 64))
    # In bins of equal exposure, so that gaps cost none.
    of_each = photons.exposed[0].astype(float)
    passed = np.cumsum(of_each) - of_each / 2
    place = np.minimum((passed / of_each.sum() * wanted).astype(int), wanted - 1)
    exposed = np.bincount(place, of_each, wanted) * wanted / of_each.sum()
    in_bin = np.bincount(place[photons.time_bin], minlength=wanted)
    good = exposed > 0.5
    n_bins, exposed, in_bin = int(good.sum()), exposed[good], in_bin[good]
    if n_bins < 4 or in_bin.sum() < FEWEST_FOR_VARIABILITY:
        return nothing
    mean = in_bin.sum() / exposed.sum()  # photons of a bin of the usual exposure
    dt = float(photons.exposure[0]) / wanted
    curve = Lightcurve((np.arange(n_bins) + 0.5) * dt, in_bin / exposed,
                       err=np.sqrt(mean / exposed), dt=dt, gti=[[0, n_bins * dt]],
                       skip_checks=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # an excess below zero has no root
        value, error = (float(x) for x in excess_variance(curve, normalization="norm_xs"))
    noise = math.sqrt(2 / n_bins) * float(np.mean(1 / exposed)) / mean
    return value, error if math.isfinite(error) else noise, n_bins, math.sqrt(3 * noise)
