"""The vector that alignment consumes: amplitude, latent, and read-outs of the decoded rate.

The latent tells *when* things happen; classes of variability do not care when. So the vector also
holds statistics of the decoded rate that do not change with a shift of the window, the decoded
spectrum, and plain photon statistics, each under its name.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from ..instruments import effective_area
from ..photons import CHANNEL_EDGES, N_CHANNELS, N_TIME_BINS

__all__ = ["feature_names", "feature_units", "feature_vectors"]

#: Frequencies in cycles per window, in groups of growing width.
FREQUENCY_EDGES = np.unique(np.round(np.geomspace(1, N_TIME_BINS // 2 + 1, 40)).astype(int))
BANDS = {"soft": slice(0, 6), "medium": slice(6, 10), "hard": slice(10, 19)}
RATIOS = (("hard", "soft"), ("hard", "medium"), ("medium", "soft"))
SCALES = (8, 32, 128)  # time bins of the excess variance


@cache
def feature_names(n_latent):
    """Names of the entries of `feature_vectors`."""
    channels = [f"{low:.2f}-{high:.2f}keV"
                for low, high in zip(CHANNEL_EDGES[:-1], CHANNEL_EDGES[1:])]
    return (
        "log_counts", "log_duration", "log_exposure", "log_rate", "background_fraction",
        "soft_area", "hard_area",
        *(f"latent_{i}" for i in range(n_latent)),
        *(f"decoded_spectrum_{c}" for c in channels),
        *(f"decoded_hardness_{a}_{b}" for a, b in RATIOS),
        *(f"counts_hardness_{a}_{b}" for a, b in RATIOS),
        "decoded_rms", "decoded_maximum", "decoded_minimum", "decoded_skewness",
        "decoded_roughness", "decoded_high_fraction", "decoded_hardness_rms",
        "decoded_hardness_rate_correlation",
        *(f"decoded_power_{low}-{high - 1}" for low, high in
          zip(FREQUENCY_EDGES[:-1], FREQUENCY_EDGES[1:])),
        "decoded_strongest_frequency", "decoded_strongest_share",
        *(f"excess_variance_{n}" for n in SCALES), "kuiper_statistic",
    )


def feature_units(names):
    """Unit of each feature, as a string; decimal logarithms have that of their argument."""
    units = {"log_duration": "dex(s)", "log_exposure": "dex(s)", "log_rate": "dex(ct / s)",
             "log_counts": "dex(ct)", "decoded_strongest_frequency": "dex"}
    return tuple(units.get(name, "") for name in names)


_FIRST, _SECOND = ([list(BANDS).index(pair[k]) for pair in RATIOS] for k in (0, 1))


@cache
@torch.inference_mode(False)
def _in_bands():
    """Which channels make up each band, shape (20, 3)."""
    member = torch.zeros(N_CHANNELS, len(BANDS))
    for k, band in enumerate(BANDS.values()):
        member[band, k] = 1
    return member


@cache
def _area_ratios(instrument):
    """Logarithms of soft over medium and hard over medium effective area.

    Colours mean different spectra behind different mirrors; unknown ones count as ACIS-S.
    """
    soft, medium, hard = effective_area(instrument or "ACIS-S", np.array([0.8, 1.6, 4.5]))
    return float(np.log10(soft / medium)), float(np.log10(hard / medium))


def _contrast(a, b):
    return (a - b) / (a + b)


@torch.inference_mode()
def feature_vectors(inferred):
    """One vector for each source.

    Parameters
    ----------
    inferred : `~stingray_align.autodecoder.model.Inferred`

    Returns
    -------
    ndarray of float32, shape (n, n_features)
        See `feature_names`.
    """
    batch, shape, latent = inferred.batch, inferred.shape, inferred.latent
    n = batch.n_photons
    log_counts = torch.log10(n + 0.5)
    area = torch.tensor([_area_ratios(name) for name in batch.instrument]).reshape(-1, 2)

    rate = torch.exp(shape.log_relative_rate(batch.exposed))
    weight = batch.exposed / batch.exposed.sum(dim=1, keepdim=True)
    energy = torch.exp(shape.log_energy)
    coarse_share = (weight * rate).reshape(len(n), energy.shape[1], -1).sum(dim=2)
    spectrum = (coarse_share[:, None, :] @ energy)[:, 0]
    per_channel = batch.colours.sum(dim=1)
    expected = n[:, None] * batch.background_fraction[:, None] * batch.background
    net = (per_channel - expected).clamp(min=0)
    bands = torch.stack([spectrum, net], dim=1) @ _in_bands()
    bands[:, 1] += 0.5
    ratios = _contrast(bands[:, :, _FIRST], bands[:, :, _SECOND]).flatten(1)

    rate = rate.clamp(max=1e4)
    deviation = rate - 1
    variance = (weight * deviation**2).sum(dim=1)
    skewness = (weight * deviation**3).sum(dim=1) / (variance + 1e-3) ** 1.5
    roughness = (weight[:, 1:] * (rate[:, 1:] - rate[:, :-1]) ** 2).sum(dim=1) / (variance + 1e-3)
    unseen = torch.where(batch.exposed > 0, 0.0, torch.inf)
    hardness = _contrast(energy[:, :, BANDS["hard"]].sum(dim=2),
                         energy[:, :, BANDS["soft"]].sum(dim=2))
    hardness = hardness - (coarse_share * hardness).sum(dim=1, keepdim=True)
    hardness_variance = (coarse_share * hardness**2).sum(dim=1)
    coarse_rate = deviation.reshape(len(n), energy.shape[1], -1).mean(dim=2)
    correlation = ((coarse_share * hardness * coarse_rate).sum(dim=1)
                   / torch.sqrt(hardness_variance * variance + 1e-6))

    wave = torch.fft.rfft(weight * deviation, dim=1)[:, 1:]
    power = wave.real**2 + wave.imag**2
    total = torch.nn.functional.pad(torch.cumsum(power.double(), dim=1), (1, 0))
    in_groups = torch.diff(total[:, FREQUENCY_EDGES - 1]).float().clamp(min=0)
    strongest = power.argmax(dim=1)
    strongest_share = power.max(dim=1).values / (power.sum(dim=1) + 1e-6)

    predicted = n[:, None] * weight
    excess = []
    for scale in SCALES:
        seen = batch.per_bin.reshape(len(n), scale, -1).sum(dim=2)
        mean = predicted.reshape(len(n), scale, -1).sum(dim=2)
        excess.append(((seen - mean) ** 2 - mean).sum(dim=1)
                      / (mean**2).sum(dim=1).clamp(min=1e-6) * 3)
    drift = torch.cumsum(batch.per_bin - predicted, dim=1) / torch.sqrt(n + 1)[:, None]
    kuiper = drift.max(dim=1).values - drift.min(dim=1).values

    scalars = [
        log_counts, batch.log_duration, torch.log10(batch.exposure),
        log_counts - torch.log10(batch.exposure), batch.background_fraction]
    statistics = [
        torch.log10(torch.sqrt(variance) + 0.01),
        torch.log10((rate - unseen).max(dim=1).values.clamp(min=1e-3)),
        torch.log10((rate + unseen).min(dim=1).values.clamp(min=1e-3)),
        torch.asinh(skewness), torch.log10(roughness + 1e-4),
        (weight * (rate > 2)).sum(dim=1), torch.sqrt(hardness_variance), correlation]
    last = [torch.log10(strongest + 1.0), strongest_share]
    tests = torch.asinh(torch.stack([*excess, kuiper], dim=1))
    return torch.cat([
        torch.stack(scalars, dim=1), area, latent, torch.log(spectrum + 1e-6),
        ratios, torch.stack(statistics, dim=1), torch.log10(in_groups + 1e-7),
        torch.stack(last, dim=1), tests], dim=1).numpy()
