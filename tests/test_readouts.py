"""Read-outs of light curves that are known exactly."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from stingray_align.autodecoder.batch import make_batch
from stingray_align.autodecoder.decoder import Shape
from stingray_align.autodecoder.periods import fast_search, folded, slow_search
from stingray_align.autodecoder.descriptors import N_DESCRIPTORS
from stingray_align.autodecoder.readouts import (
    feature_names, feature_units, feature_vectors, readouts)
from stingray_align.photons import N_CHANNELS, N_TIME_BINS, Photons

DURATION = 5e4
BIN = DURATION / N_TIME_BINS
TIME = (np.arange(N_TIME_BINS) + 0.5) * BIN
N_LATENT = 3


def observed(rates, n_photons, *, exposed=None, seed=0, hardening=None):
    """Read-outs, by name, of photons drawn from rates (n, 512) that are also what was decoded."""
    rng = np.random.default_rng(seed)
    rates = np.atleast_2d(rates).copy()
    n = len(rates)
    exposed = np.broadcast_to(1.0 if exposed is None else exposed, rates.shape)
    seen = rates * exposed
    phase = [np.sort((np.repeat(np.arange(N_TIME_BINS), rng.multinomial(n_photons, p / p.sum()))
                      + rng.random(n_photons)) / N_TIME_BINS) for p in seen]
    photons = Photons(
        offsets=n_photons * np.arange(n + 1), phase=np.concatenate(phase).astype(np.float32),
        channel=rng.integers(0, N_CHANNELS, n * n_photons).astype(np.uint8), start=np.zeros(n),
        duration=np.full(n, DURATION), exposed=exposed.astype(np.float32),
        background=np.zeros((n, 4), dtype=np.float32), instrument=np.full(n, "ACIS-S"))
    u = torch.zeros(n, 128) if hardening is None else torch.as_tensor(hardening).float()
    v = torch.linspace(-1, 1, N_CHANNELS).repeat(n, 1)
    shape = Shape(torch.log(torch.as_tensor(rates).float()), torch.zeros(n, N_CHANNELS), u, v)
    found = readouts(SimpleNamespace(batch=make_batch(photons), shape=shape))
    vectors = feature_vectors(found, torch.zeros(n, N_LATENT), torch.zeros(n, N_DESCRIPTORS))
    return dict(zip(feature_names(N_LATENT), vectors.T, strict=True))


def flare(start, decay, height=20.0):
    return 1 + height * np.where(TIME > start, np.exp(-(TIME - start) / decay), 0.0)


def test_names_and_units_fit_the_vector():
    names = feature_names(N_LATENT)
    found = observed(np.ones(N_TIME_BINS), 50)
    assert list(found) == list(names) and len(set(names)) == len(names)
    units = dict(zip(names, feature_units(names), strict=True))
    assert units["period"] == units["flare_decay_time"] == "dex(s)"
    assert units["log_rate"] == "dex(ct / s)" and units["latent_0"] == ""


@pytest.mark.parametrize("n_photons", [0, 1, 2])
def test_no_photons_or_hardly_any_give_finite_numbers(n_photons):
    for values in observed(np.ones((2, N_TIME_BINS)), n_photons).values():
        assert np.isfinite(values).all()


@pytest.mark.parametrize("cycles", [1.7, 5.3, 40.2, 110.0])
def test_period_of_a_sinusoid_is_recovered(cycles):
    rate = 1 + 0.7 * np.sin(2 * np.pi * cycles * TIME / DURATION)
    found = observed(rate, 3000)
    assert_allclose(10 ** found["period"], DURATION / cycles, rtol=0.13 / cycles)
    # H of a sinusoid is N a² / 2, with a scatter of twice its root
    assert abs(10 ** found["period_strength"] - 3000 * 0.7**2 / 2) < 180


@pytest.mark.parametrize("cycles", [5.25, 20.5])
def test_folded_sinusoid_is_a_sinusoid(cycles):
    found = observed(1 + 0.7 * np.sin(2 * np.pi * cycles * TIME / DURATION), 3000)
    assert_allclose(10 ** found["decoded_folded_maximum"], 1.7, rtol=0.05)
    assert_allclose(10 ** found["decoded_folded_rms"], 0.7 / np.sqrt(2) + 0.02, rtol=0.08)
    assert abs(found["decoded_folded_skewness"]) < 0.1
    assert abs(found["decoded_folded_asymmetry"]) < 0.1


def test_period_faster_than_the_time_bins_is_found():
    rng = np.random.default_rng(1)
    cycles = 900
    phase = rng.random(8000)
    phase = phase[rng.random(8000) < 0.5 * (1 + np.cos(2 * np.pi * cycles * phase))]
    photons = Photons(
        offsets=np.array([0, len(phase)]), phase=np.sort(phase).astype(np.float32),
        channel=np.zeros(len(phase), dtype=np.uint8), start=np.zeros(1),
        duration=np.array([DURATION]), exposed=np.ones((1, N_TIME_BINS), dtype=np.float32),
        background=np.zeros((1, 4), dtype=np.float32), instrument=np.array(["ACIS-S"]))
    expected = np.full((1, N_TIME_BINS), len(phase) / N_TIME_BINS, dtype=np.float32)
    fast = fast_search(photons, expected)
    assert fast.frequency.item() == cycles
    assert fast.power > 0.5 * len(phase) / 2
    assert fast.octaves.argmax() == 9  # 512 to 1023 cycles


def test_powers_of_a_constant_source_are_those_of_noise():
    found = observed(np.ones((200, N_TIME_BINS)), 500)
    for k in (64, 256, 1024):
        assert abs(np.sinh(found[f"power_{k}"]).mean()) < 4 / np.sqrt(200)
    # the strongest of about 1000 trials with four harmonics
    assert 14 < np.median(10 ** found["period_strength"]) < 26


def test_gaps_are_no_period_and_no_dips():
    """Orbits of which half is lost, around a constant source."""
    exposed = np.where(np.arange(N_TIME_BINS) % 32 < 16, 1.0, 0.0)
    rate = np.where(exposed > 0, 1.0, 1e-3)  # whatever was decoded in the gaps does not count
    found = observed(rate, 3000, exposed=exposed)
    assert 10 ** found["period_strength"] < 30 and 10 ** found["fast_period_power"] < 35
    assert abs(found["decoded_minimum"]) < 1e-3 and abs(found["decoded_level_02"]) < 1e-3
    assert 10 ** found["folded_maximum"] < 1.2
    gapless = observed(np.ones(N_TIME_BINS), 3000)
    assert abs(found["decoded_rms"] - gapless["decoded_rms"]) < 1e-3


def test_times_of_a_flare_are_recovered():
    found = observed(flare(1e4, 3e3), 2000)
    assert_allclose(10 ** found["flare_decay_time"], 3e3, atol=1.5 * BIN)
    assert 10 ** found["flare_rise_time"] < 1.5 * BIN
    assert found["excursions"] == 1 and found["steepest_rise"] > 2.5
    assert found["decoded_skewness"] > 1
    inside = 3e3 * 20 * (1 - 1 / np.e) + 3e3
    assert_allclose(found["flare_fraction"], inside / (5e4 + 20 * 3e3), rtol=0.1)
    backwards = observed(flare(1e4, 3e3)[::-1], 2000)
    assert_allclose(backwards["flare_rise_time"], found["flare_decay_time"], atol=1e-4)


def test_two_flares_are_told_from_one():
    two = observed(flare(1e4, 1e3) + flare(3e4, 1e3) - 1, 1000)
    one = observed(flare(1e4, 1e3), 1000)
    assert two["excursions"] > one["excursions"]
    assert two["second_peak"] > -0.1 and one["second_peak"] < -0.3


def test_length_of_an_eclipse_is_recovered():
    rate = np.where((TIME > 2e4) & (TIME < 2.6e4), 0.05, 1.0)
    found = observed(rate, 1000)
    assert_allclose(10 ** found["dip_duration"], 6e3, atol=2.5 * BIN)
    assert found["low_excursions"] == 1 and found["excursions"] == 0
    assert found["steepest_fall"] > 2.5 and found["decoded_skewness"] < -1


def test_slope_and_sense_of_a_trend():
    found = observed(np.exp(np.linspace(-1, 1, N_TIME_BINS)), 1000)
    assert_allclose(found["trend_slope"], 2, rtol=0.01)
    assert found["trend_share"] > 0.95 and found["trend_correlation"] > 0.95


def test_a_shift_in_the_window_changes_nothing():
    """Circular shifts of one curve; photons drawn anew, so only what is decoded is exact."""
    curve = flare(1.5e4, 2e3) + 0.3 * np.sin(2 * np.pi * 8 * TIME / DURATION)
    found = observed(np.stack([np.roll(curve, k) for k in (0, 64, 128)]), 2000)
    exact = ("decoded_rms", "decoded_skewness", "decoded_maximum", "decoded_minimum",
             "flare_rise_time", "flare_decay_time", "excursions", "steepest_rise",
             "decoded_strongest_frequency", "decoded_level_50", "decoded_level_98")
    for name in exact:
        assert_allclose(found[name], found[name][0], atol=2e-3, err_msg=name)
    statistical = ("period_strength", "kuiper_statistic", "power_4", "flare_significance")
    for name in statistical:
        assert_allclose(found[name], found[name][0], atol=0.6, err_msg=name)


def test_colour_follows_the_rate_or_not():
    """Flare that is harder than the rest, softer, and alike."""
    curve = flare(1e4, 5e3)
    u = np.log(curve.reshape(128, 4).mean(axis=1))
    found = observed(np.stack([curve] * 3), 500, hardening=np.stack([u, -u, 0 * u]))
    assert found["decoded_hardness_rate_correlation"][0] > 0.5
    assert_allclose(found["decoded_hardness_rate_correlation"][1],
                    -found["decoded_hardness_rate_correlation"][0], atol=0.05)
    assert_allclose(found["decoded_hardness_change"][2], 0, atol=1e-5)
    assert found["decoded_hardness_change"][0] > 0.1 > -0.1 > found["decoded_hardness_change"][1]
    assert_allclose(found["decoded_hardness_rms"][2], -3, atol=0.01)


def test_decoded_spectrum_is_that_before_the_mirror():
    found = observed(np.ones(N_TIME_BINS), 100)
    names = [name for name in found if name.startswith("decoded_spectrum")]
    share = np.exp([found[name][0] for name in names])
    assert_allclose(share.sum(), 1, rtol=1e-5)
    # flat in counts means many photons where the mirror collects few: at both ends
    assert share[0] > share[8] < share[-1]


def test_h_statistic_equals_its_definition():
    rng = np.random.default_rng(2)
    counts = rng.poisson(2.0, (3, N_TIME_BINS)).astype(np.float32)
    counts += 4 * (np.arange(N_TIME_BINS) % 50 < 5)  # narrow pulses: harmonics matter
    n = counts.sum(axis=1)
    excess = counts - n[:, None] / N_TIME_BINS
    slow = slow_search(np.fft.rfft(excess, n=4 * N_TIME_BINS), n)
    assert_allclose(slow.frequency, N_TIME_BINS / 50, atol=0.13)
    for i, frequency in enumerate(slow.frequency):
        wave = [(excess[i] * np.exp(2j * np.pi * k * frequency * TIME / DURATION)).sum()
                for k in range(1, 5)]
        z2 = np.cumsum(2 / n[i] * np.abs(wave) ** 2 * [1, 0.9, 0.8, 0.7])
        assert_allclose(slow.strength[i], max(z2[0], z2[1] - 4, z2[3] - 12), rtol=1e-3)


def test_folding_equals_a_histogram_of_phases():
    counts = np.random.default_rng(3).poisson(30.0, N_TIME_BINS).astype(np.float32)
    expected = np.full(N_TIME_BINS, 30.0, dtype=np.float32)
    for frequency in (4.0, 7.3):
        profile = folded(counts, expected, np.float32(frequency))
        phase = frequency * TIME / DURATION % 1
        seen, mean = (np.histogram(phase, 16, (0, 1), weights=w)[0] for w in (counts, expected))
        seen, mean = (x + 0.5 * (np.roll(x, 1) + np.roll(x, -1)) for x in (seen, mean))
        assert_allclose(profile, (seen + 0.5) / (mean + 0.5), rtol=1e-4)
