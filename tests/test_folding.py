"""Folded light curves: what repeats is found, what does not is left alone."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from stingray_align.autodecoder import folding
from stingray_align.autodecoder.folding import FOLDS, folded
from stingray_align.photons import N_TIME_BINS

AT = (np.arange(N_TIME_BINS) + 0.5) / N_TIME_BINS


def drawn(rate, exposed=None, n=1, seed=0):
    """Poisson counts of a rate per bin, shape (n, 512), and the exposure."""
    exposed = np.ones(N_TIME_BINS) if exposed is None else exposed
    counts = np.random.default_rng(seed).poisson(np.broadcast_to(rate * exposed, (n, N_TIME_BINS)))
    return (torch.tensor(counts, dtype=torch.float32),
            torch.tensor(exposed, dtype=torch.float32).expand(n, -1))


def pulses(frequency, width=0.06, floor=0.1):
    """A Gaussian pulse in each cycle; mean one."""
    distance = (frequency * AT) % 1 - 0.5
    rate = floor + np.exp(-0.5 * (distance / width) ** 2)
    return rate / rate.mean()


@pytest.fixture
def gaps():
    exposed = np.ones(N_TIME_BINS)
    exposed[60:160] = exposed[300:330] = 0
    return exposed


@pytest.mark.parametrize("frequency", [2.25, 7.0, 13.5, 40.0, 90.0])
def test_frequency_of_a_sinusoid_is_found(frequency, gaps):
    rate = 8 * (1 + 0.8 * np.sin(2 * np.pi * frequency * AT))
    for exposed in (None, gaps):
        found = folded(*drawn(rate, exposed))
        assert abs(found.frequency[0, 0] - frequency) <= 0.25
        assert found.power[0, 0] > 100


@pytest.mark.parametrize("frequency", [3.0, 11.25, 25.0])
def test_frequency_of_narrow_pulses_is_found_by_their_harmonics(frequency, gaps):
    for exposed in (None, gaps):
        found = folded(*drawn(8 * pulses(frequency), exposed))
        assert abs(found.frequency[0, 1] - frequency) <= 0.25
        # Three harmonics have more power than one.
        assert found.power[0, 1] > found.power[0, 0] > 100


def test_the_folded_curve_is_the_profile(gaps):
    rate = pulses(11.0, width=0.1)
    for exposed in (np.ones(N_TIME_BINS), gaps):
        found = folded(*drawn(200 * rate, exposed))
        true = np.log(rate / (rate * exposed).sum() * exposed.sum())
        narrow = found.logs.reshape(2, -1, N_TIME_BINS)[1, 0].numpy()
        assert found.logs.shape == (1, FOLDS, N_TIME_BINS)
        assert_allclose(found.frequency[0, 1], 11.0)
        # Within what smoothing in phase does, also in gaps.
        assert np.corrcoef(narrow, true)[0, 1] > 0.95
        assert np.abs(np.exp(narrow) - np.exp(true)).mean() < 0.2
        assert_allclose((np.exp(narrow) * exposed).sum() / exposed.sum(), 1, rtol=0.05)


def test_the_wider_smoothing_gives_the_smoother_curve():
    found = folded(*drawn(200 * pulses(11.0)))
    narrow, wide = np.exp(found.logs.numpy()).reshape(2, 2, N_TIME_BINS)[1]
    assert narrow.max() > 1.2 * wide.max()


def test_power_at_any_one_frequency_is_one_for_constant_sources(monkeypatch, gaps):
    for cycles in (10, 33):  # the only frequency that is tried
        monkeypatch.setattr(folding, "LOWEST", cycles * folding.STEPS)
        monkeypatch.setattr(folding, "HIGHEST", cycles * folding.STEPS)
        single, triple = folded(*drawn(4.0, n=2000)).power.T
        assert_allclose(single.mean(), 1, atol=0.1)
        assert_allclose(triple.mean(), 1 + 0.9 + 0.8, atol=0.2)
        single, triple = folded(*drawn(4.0, gaps, n=2000)).power.T
        assert_allclose(single.mean(), 1, atol=0.12)


def test_gaps_do_not_make_a_period():
    """The strongest power of constant sources is as without gaps, however regular these are."""
    regular = (np.floor(AT * 16) % 2 == 0).astype(float)
    without, within = (folded(*drawn(6.0, exposed, n=300)).power for exposed in (None, regular))
    assert without[:, 0].median() < 9 and within[:, 0].median() < 9
    assert within[:, 0].max() < 25


def test_constant_sources_have_a_flat_curve(gaps):
    found = folded(*drawn(200.0, gaps, n=20))
    assert found.logs.abs().max() < 0.2


@pytest.mark.parametrize("counts", [0, 1])
def test_next_to_no_photons_give_next_to_no_structure(counts, gaps):
    seen = torch.zeros(2, N_TIME_BINS)
    seen[:, 5] = counts
    found = folded(seen, torch.tensor(gaps, dtype=torch.float32).expand(2, -1))
    assert torch.isfinite(found.logs).all() and torch.isfinite(found.power).all()
    assert (found.frequency >= 1.5).all() and (found.frequency <= 96).all()


def test_each_source_is_folded_on_its_own():
    counts = torch.cat([drawn(8 * pulses(f), seed=int(f))[0] for f in (5.0, 17.0)])
    exposed = torch.ones(2, N_TIME_BINS)
    both = folded(counts, exposed)
    for i in range(2):
        alone = folded(counts[i:i + 1], exposed[:1])
        for together, one in zip(both, alone):
            assert_allclose(together[i], one[0], rtol=1e-4, atol=1e-5)
