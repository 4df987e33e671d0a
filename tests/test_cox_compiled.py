"""The compiled loops behind the Cox process, against the same by arrays or one after the other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from stingray_align.autodecoder._compiled import compiled
from stingray_align.autodecoder.exponential import exp
from stingray_align.autodecoder.harmonics import Harmonics, add_power
from stingray_align.autodecoder.markov import (Columns, fit, fit_kernels, matern12, matern32,
                                               mean_only)


@compiled
def all_of(x):
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = exp(x[i])
    return out


def test_exponential_is_right_to_the_last_places():
    x = np.concatenate([np.linspace(-707, 708, 100_001), [0.0]])
    assert_allclose(all_of(x), np.exp(x), rtol=5e-16)
    assert_allclose(all_of(np.array([-1e9, -np.inf])), 0, atol=1e-300)
    assert (all_of(np.array([1e9, np.inf])) > 1e307).all()


@pytest.mark.parametrize("n_models", [4, 14, 35])
def test_kernels_together_are_kernels_one_by_one(n_models):
    rng = np.random.default_rng(n_models)
    expected = np.full(512, 3.0)
    expected[200:260] = 0  # a gap
    counts = rng.poisson(expected * np.exp(np.sin(np.arange(512) / 20))).astype(float)
    counts[300] = 200.0  # a burst, at which full Newton steps would overshoot
    kernels = [(matern12, matern32)[k % 2](1.5 * 1.2**k, 0.3 + 0.05 * k) for k in range(n_models)]
    starts = rng.normal(0, 0.1, (n_models, 512))
    found = fit_kernels(counts, expected, kernels, starts)
    for kernel, start, together in zip(kernels, starts, found, strict=True):
        alone = fit(counts, expected, kernel, mean_only(512), start)
        assert_allclose(together.log_rate, alone.log_rate, atol=1e-9)
        assert_allclose(together.log_evidence, alone.log_evidence, atol=1e-9)


def test_harmonics_times_slow_cosines():
    matrix = Harmonics(37.3, 4, 2, 512).matrix
    time = (np.arange(512) + 0.5) / 512
    columns = [np.ones(512)]
    for order in range(1, 5):
        for wave in (np.cos, np.sin):
            for k in range(3):
                slow = np.cos(np.pi * k * time) * (np.sqrt(2) if k else 1)
                columns.append(wave(2 * np.pi * 37.3 * order * time) * slow)
    assert_allclose(matrix, np.stack(columns, axis=1), atol=1e-11)


@pytest.mark.parametrize("number, changes", [(1, 0), (4, 0), (1, 2), (3, 1), (8, 2)])
def test_fit_of_harmonics_is_that_of_their_columns(number, changes):
    rng = np.random.default_rng(number)
    waves = Harmonics(21.7, number, changes, 1024)
    expected = np.full(1024, 2.0)
    expected[500:600] = 0  # a gap
    time = (np.arange(1024) + 0.5) / 1024
    counts = rng.poisson(expected * np.exp(np.cos(2 * np.pi * 21.7 * time) * time)).astype(float)
    precision = rng.uniform(0.3, 3, waves.matrix.shape[1])
    start = rng.normal(0, 0.1, 1024)
    found = fit(counts, expected, None, Columns(waves, precision), start)
    by_columns = fit(counts, expected, None, Columns(waves.matrix, precision), start)
    assert_allclose(found.log_rate, by_columns.log_rate, atol=1e-9)
    assert_allclose(found.log_evidence, by_columns.log_evidence, atol=1e-9)


@pytest.mark.parametrize("harmonic", [1, 2, 3, 8])
def test_power_of_harmonics_as_far_as_it_is_known(harmonic):
    power = np.random.default_rng(0).exponential(size=101)
    total = np.zeros(60)
    add_power(total, power, 12, harmonic)
    multiples = harmonic * (12 + np.arange(60))
    expected = np.where(multiples < 101, power[multiples.clip(max=100)] - 1, 0)
    assert_allclose(total, expected)
