"""The compiled loops behind the final rate, against the same by arrays or by an optimiser."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from stingray_align.autodecoder.comparing import compared
from stingray_align.autodecoder.excess import excess, under_kernel
from stingray_align.autodecoder.tilts import tilts
from stingray_align.autodecoder.triangular import cholesky, solve_lower, solve_lower_transposed

FLOOR, PRIOR = 0.01, 8.0
WIDTHS = np.array([48.0, 12.0, 3.0])


@pytest.mark.parametrize("width", [1.5, 6.0, 48.0])
def test_sums_under_a_kernel_are_those_of_a_dense_matrix(width):
    x = np.random.default_rng(0).poisson(3.0, 512).astype(float)
    lag = np.subtract.outer(np.arange(512), np.arange(512))
    assert_allclose(under_kernel(x, width), np.exp(-0.5 * (lag / width) ** 2) @ x, rtol=1e-6)


def test_photons_as_expected_ask_for_no_change():
    expected = np.random.default_rng(1).uniform(5, 20, (2, 512))
    change = excess(expected, expected, np.ones((2, 512)), WIDTHS, FLOOR, PRIOR)
    assert_allclose(change, 0, atol=1e-9)


def test_photons_bring_a_missed_flare_back_and_their_noise_nothing():
    rng = np.random.default_rng(2)
    true = np.ones((2, 512))
    true[0, 200:260] = 3.0
    counts = rng.poisson(100.0 * true).astype(float)
    expected = np.repeat(counts.mean(axis=1, keepdims=True), 512, axis=1)
    flare, constant = excess(counts, expected, np.ones((2, 512)), WIDTHS, FLOOR, PRIOR)
    assert_allclose(flare[210:250].mean() - flare[300:].mean(), np.log(3.0), atol=0.03)
    assert constant.std() < 0.02  # of 0.1 in the counts


def test_comparing_is_what_arrays_give():
    rng = np.random.default_rng(3)
    curves, exposed = rng.normal(0, 0.5, (2, 3, 128)), rng.choice([0.0, 0.4, 1.0], (2, 16))
    in_bins = np.repeat(logsumexp(curves.reshape(2, 3, 16, 8), axis=3) - np.log(8), 8, axis=2)
    weight = np.repeat(exposed, 8, axis=1)[:, None]
    even = np.where(weight > 0.999, curves, in_bins)
    even -= np.log((np.exp(even) * weight).sum(axis=2) / weight.sum(axis=2))[:, :, None]
    means, inside, apart = compared(curves, exposed, 4, 1)
    assert_allclose(curves, even)  # in place
    runs = even.reshape(2, 3, 4, 32)
    assert_allclose(means, runs.mean(axis=3), atol=1e-12)
    assert_allclose(inside, runs.std(axis=3, ddof=1))
    assert_allclose(apart, np.sqrt(((runs - runs[:, 1:2]) ** 2).mean(axis=3)), atol=1e-12)


def test_tilts_are_the_most_probable_ones():
    rng = np.random.default_rng(4)
    counted, x = rng.poisson(2.0, (2, 30, 3)).astype(float), rng.normal(0, 1, (2, 30))
    decoded = log_softmax(rng.normal(0, 1, (2, 30, 3)), axis=2)
    precision = np.array([0.1, 0.15]) ** -2.0
    found = tilts(counted, decoded, x, precision)
    for i in range(2):
        def minus_log_posterior(flat):
            a, v = flat.reshape(2, 3)
            share = log_softmax(decoded[i] + a + v * x[i, :, None], axis=1)
            return -(counted[i] * share).sum() + (precision @ flat.reshape(2, 3) ** 2).sum() / 2

        best = minimize(minus_log_posterior, np.zeros(6), tol=1e-10).x.reshape(2, 3)
        assert_allclose(found[i], best, atol=1e-4)


def test_small_systems_are_solved():
    rng = np.random.default_rng(5)
    half, right = rng.normal(size=(6, 9)), rng.normal(size=(6, 2))
    matrix = half @ half.T
    root, found = matrix.copy(), right.copy()
    cholesky(root)
    assert_allclose(np.tril(root) @ np.tril(root).T, matrix)
    solve_lower(root, found)
    assert_allclose(found, np.linalg.solve(np.tril(root), right))
    solve_lower_transposed(root, found)
    assert_allclose(matrix @ found, right)
