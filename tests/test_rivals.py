"""The rivals: every one on the same contract, and the two with odds by independent routes."""

from math import factorial, prod

import numpy as np
import pytest
import stingray
from numpy.testing import assert_allclose
from scipy.stats import gamma

import stingray_align as sa
from stingray_align.autodecoder.markov import (
    LEVEL, Posterior, fit, matern12, matern32, mean_only)
from stingray_align.evaluate import rivals
from stingray_align.photons import Photons, exposure_in_bins

ALL = [rivals.constant, *rivals.RIVALS.values()]
#: The rivals that look at one source at a time, which PPAD does not.
ALONE = [rival for rival in ALL if isinstance(rival, rivals.Rival)]
each = pytest.mark.parametrize("rival", ALONE, ids=lambda rival: rival.name)


def make(times, gti, seed=0, zero=0.0):
    rng = np.random.default_rng(seed)
    return sa.EventList(np.sort(times) + zero, energy=rng.uniform(0.5, 7, len(times)),
                        gti=np.asarray(gti, dtype=float) + zero, instr="ACIS-S")


def thinned(rate, n, gti, seed=0):
    """Times in the GTIs, distributed as a rate of at most one."""
    rng = np.random.default_rng(seed)
    times = rng.uniform(gti[0][0], gti[-1][1], 40 * n)
    inside = np.any([(times >= a) & (times < b) for a, b in gti], axis=0)
    return times[inside & (rng.random(len(times)) < rate(times))][:n]


WHOLE = [[0.0, 8192.0]]
HALF = [[0.0, 1000.0], [2100.0, 2500.0], [4003.0, 6000.0], [7000.0, 8192.0]]


@pytest.fixture(scope="module")
def wave():
    return make(thinned(lambda t: (1 + np.sin(2 * np.pi * t / 1000.0)) / 2, 1500, HALF), HALF)


# -- what all share -------------------------------------------------------------------------------

@each
def test_the_photons_are_conserved_whatever_their_number(rival):
    few = Photons.from_events([make(np.linspace(50, 900, n), HALF) for n in (1, 2, 40)])
    none = few[0].select(np.zeros(1, bool))
    photons = Photons.concatenate([none, few])
    rates = rival.band_rates(photons)
    assert (rates > 0).all() and np.isfinite(rates).all()
    exposed = np.repeat(photons.exposed, rates.shape[1] // 512, axis=1)
    expected = np.einsum("ijk,ij->i", rates, exposed) * photons.duration / rates.shape[1]
    assert_allclose(expected, photons.n_photons + 1.5, rtol=1e-5)


@each
def test_no_photon_and_one_photon_say_next_to_nothing_about_the_shape(rival):
    # cross-validation needs two photons: with one it cannot choose a kernel
    limits = (10, 1.01) if rival is rivals.kde else (1.6, 1.5)
    one = Photons.from_events(make([3000.0], WHOLE))
    for photons, limit in zip((one, one.select(np.zeros(1, bool))), limits):
        shape = rival.band_rates(photons)[0].sum(axis=1)
        assert shape.max() / shape.min() < limit
        for drawn in rival.drawn_band_rates(photons, 3):
            assert drawn.shape == (3, len(shape), 3) and np.isfinite(drawn).all()


@each
def test_a_hundred_thousand_photons(rival):
    times = thinned(lambda t: (2 + np.sin(2 * np.pi * t / 2048)) / 3, 100_000, WHOLE)
    shape = rival.band_rates(Photons.from_events(make(times, WHOLE)))[0].sum(axis=1)
    assert np.isfinite(shape).all()
    true = 2 + np.sin(8 * np.pi * (np.arange(len(shape)) + 0.5) / len(shape))
    if rival is not rivals.constant:
        assert_allclose(shape / shape.mean(), true / 2, atol=0.2)


@each
def test_only_differences_of_time_matter(rival, wave):
    late = sa.EventList(wave.time + 2.0 ** 29, energy=wave.energy, gti=wave.gti + 2.0 ** 29,
                        instr="ACIS-S")
    times = np.linspace(0, 8192, 100)
    assert_allclose(rival(late).rate(times + 2.0 ** 29).value, rival(wave).rate(times).value)


@each
def test_gaps_are_not_variability(rival):
    """A constant source seen for half of the window is constant, as well as chance allows."""
    events = [make(thinned(np.ones_like, 600, HALF, seed), HALF) for seed in range(4)]
    shapes = np.array([estimate._rates.sum(axis=1) for estimate in rival(events)])
    assert_allclose(np.median(shapes, axis=0) / np.median(shapes), 1, atol=0.12)


@each
def test_one_list_many_lists_and_photons_agree(rival, wave):
    stock = stingray.EventList(wave.time, energy=wave.energy, gti=wave.gti, instr="ACIS-S")
    one, (two,) = rival(stock), rival([wave])
    bands = rival.band_rates(Photons.from_events(wave))[0]
    grid = (one.bin_edges[:-1] + one.bin_edges[1:]) / 2
    for band, limits in enumerate([(0.5, 1.2), (1.2, 2), (2, 7)]):
        assert_allclose(one.rate(grid, limits).value, bands[:, band])
        assert_allclose(two.rate(grid, limits).value, bands[:, band])
    assert rival([]) == []


@each
def test_result_offers_what_an_embedding_does(rival, wave):
    estimate = rival(wave)
    assert rival.name in repr(estimate)
    low, high = estimate.rate_interval([500.0, 5000.0], 0.9)
    inner, outer = estimate.rate_interval([500.0, 5000.0], 0.5)
    assert (low < inner).all() and (outer < high).all()
    counts = estimate.spectrum().flux.value @ np.diff(estimate.spectrum().spectral_axis.bin_edges
                                                      .value)
    assert_allclose(counts, 1502, rtol=1e-6)
    assert abs(len(estimate.simulate(seed=1).time) - 1502) < 200
    assert_allclose(estimate.to_lightcurve(1024).counts.sum(),
                    estimate._rates.sum() * 8192 / len(estimate._rates), rtol=1e-6)
    exposure = exposure_in_bins(wave.gti, estimate.bin_edges)
    assert estimate.log_likelihood(wave) < 0
    assert_allclose((exposure @ estimate._rates).sum(), 1502, rtol=1e-6)


@each
def test_draws_scatter_about_the_estimate(rival, wave):
    photons = Photons.from_events(wave)
    (drawn,) = rival.drawn_band_rates(photons, 400, seed=3)
    (again,) = rival.drawn_band_rates(photons, 400, seed=3)
    assert_allclose(drawn, again)
    rate, drawn = rival.band_rates(photons)[0].sum(axis=1), drawn.sum(axis=2)
    exposed = np.repeat(photons.exposed[0] > 0, len(rate) // 512)
    error = drawn.std(axis=0)
    assert (np.abs(drawn.mean(axis=0) - rate)[exposed] < 0.6 * error[exposed]).mean() > 0.9


def test_interval_of_the_constant_is_a_gamma_interval():
    estimate = rivals.constant(make(np.linspace(1, 8000, 30), WHOLE))
    ends = estimate.rate_interval(100.0, 0.9, n_draws=20_000)
    # the two bands below 2 keV and the two above have half a photon each
    expected = gamma.ppf([0.05, 0.95], 32) / 8192
    assert_allclose([end.value[0] for end in ends], expected, rtol=0.02)


def test_a_plot_names_the_rival(wave):
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots()
    rivals.log_gaussian_cox(wave).plot(ax)
    labels = ax.get_legend_handles_labels()[1]
    plt.close(fig)
    assert "log-Gaussian Cox" in labels and "not exposed" in labels


# -- Gauss-Markov processes and Laplace's approximation -------------------------------------------

def covariance(kernel, length, deviation, n):
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / length
    if kernel is matern12:
        return deviation ** 2 * np.exp(-lag)
    return deviation ** 2 * (1 + np.sqrt(3) * lag) * np.exp(-np.sqrt(3) * lag)


@pytest.mark.parametrize("kernel", [matern12, matern32])
@pytest.mark.parametrize("length", [1.5, 20.0, 300.0])
def test_fit_is_that_of_the_dense_gaussian_process(kernel, length):
    """The mode solves f = K (n - rate); evidence, variance and mean follow from dense matrices."""
    rng = np.random.default_rng(1)
    expected = np.full(60, 3.0)
    expected[20:26] = 0  # a gap
    counts = rng.poisson(expected * np.exp(np.sin(np.arange(60) / 9))).astype(float)
    process, columns = kernel(length, 0.8), mean_only(60)
    early = fit(counts, expected, process, columns)
    found = early
    for _ in range(4):  # each goes at least one step on
        found = fit(counts, expected, process, columns, found.log_rate)
    # far below the posterior's width, some 0.2
    assert_allclose(early.log_rate, found.log_rate, atol=0.04)
    assert_allclose(early.log_evidence, found.log_evidence, atol=0.05)
    prior = covariance(kernel, length, 0.8, 60) + LEVEL ** 2
    rate = expected * np.exp(found.log_rate)
    assert_allclose(prior @ (counts - rate), found.log_rate, atol=1e-3)
    evidence = (counts @ found.log_rate - (rate - expected).sum()
                - found.log_rate @ (counts - rate) / 2
                - np.linalg.slogdet(np.eye(60) + prior * rate)[1] / 2)
    assert_allclose(found.log_evidence, evidence, atol=2e-3)
    dense = np.linalg.solve(np.eye(60) + prior * rate, prior)
    posterior = Posterior(expected, process, columns, found.log_rate)
    centre = found.log_rate - dense @ (rate * np.diag(dense)) / 2
    assert_allclose(posterior.centre, centre, atol=0.02)
    drawn = posterior.drawn(20_000, np.random.default_rng(2))
    assert_allclose(np.cov(drawn.T), dense, atol=0.04 * np.diag(dense).max())


def test_laplace_against_a_numerical_integral():
    """Two cells: the posterior over their log-rates summed on a grid."""
    counts, expected = np.array([2.0, 25.0]), np.array([8.0, 15.0])
    process, columns = matern12(2.0, 2.0), mean_only(2)
    found = fit(counts, expected, process, columns)
    prior = covariance(matern12, 2.0, 2.0, 2) + LEVEL ** 2
    axis = np.linspace(-7, 3, 1001)
    eta = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    log_joint = (eta @ counts - (expected * (np.exp(eta) - 1)).sum(axis=-1)
                 - np.einsum("...i,ij,...j", eta, np.linalg.inv(prior), eta) / 2
                 - np.log(2 * np.pi) - np.linalg.slogdet(prior)[1] / 2)
    weight = np.exp(log_joint)
    assert_allclose(found.log_evidence, np.log(weight.sum() * 0.01 ** 2), atol=0.03)
    mean = np.einsum("ij,ijk->k", weight, np.exp(eta)) / weight.sum()
    posterior = Posterior(expected, process, columns, found.log_rate)
    assert_allclose(np.exp(posterior.log_mean), mean, rtol=0.02)
    # the mean of a log-normal distribution about the mode would not do
    log_normal = np.exp(found.log_rate + posterior.log_mean - posterior.centre)
    assert np.abs(log_normal / mean - 1).max() > 0.1


def test_cox_finds_the_period_across_gaps(wave):
    estimate = rivals.log_gaussian_cox(wave)
    table = estimate.kernels
    assert "periodic" in table["kernel"][0]
    assert table["period"][0].value == pytest.approx(1000, rel=0.02)
    assert estimate.probability > 0.999
    assert table["probability"].sum() == pytest.approx(1)
    times = np.arange(0, 8192, 50.0)
    true = 1 + np.sin(2 * np.pi * times / 1000)
    rate = estimate.rate(times).value
    assert np.abs(rate / rate.mean() - true).mean() < 0.12  # in the gaps too


def test_cox_resolves_what_is_shorter_than_a_time_bin():
    """Bursts of 2 s and a period of 9 s in bins of 16 s."""
    calm = thinned(np.ones_like, 200, WHOLE)
    bursts = [np.random.default_rng(k).uniform(a, a + 2, 40) for k, a in enumerate((1500, 6001))]
    estimate = rivals.log_gaussian_cox(make(np.concatenate([calm, *bursts]), WHOLE))
    first, before, second = estimate.rate([1501.0, 1496.0, 6002.0]).value
    assert first > 5 and before < 0.5 and second > 5
    fast = thinned(lambda t: (1 + np.sin(2 * np.pi * t / 9)) / 2, 1500, WHOLE)
    estimate = rivals.log_gaussian_cox(make(fast, WHOLE))
    assert estimate.kernels["period"][0].value == pytest.approx(9, rel=1e-3)
    times = 9 * (100 + np.arange(300)) + 2.25
    rate = estimate.rate(times).value / estimate.rate(times + 4.5).value
    assert np.median(rate) > 5


def test_cox_takes_constant_sources_for_constant():
    events = [make(thinned(np.ones_like, 300, WHOLE, seed), WHOLE) for seed in range(5)]
    found = [estimate.probability for estimate in rivals.log_gaussian_cox(events)]
    assert np.median(found) < 0.4


def test_borders_of_good_time_intervals_inside_time_bins_are_not_variability():
    gti = [[1000.0 * k, 1000.0 * k + 300] for k in range(40)]
    rng = np.random.default_rng(0)
    for seed in range(4):
        times = 1000 * rng.integers(0, 40, 3000) + rng.uniform(0, 300, 3000)
        found = rivals.log_gaussian_cox(make(times, gti, seed))
        assert found.probability < 0.5
        counts = found.spectrum().flux.value * np.diff(sa.photons.CHANNEL_EDGES)
        assert counts.sum() == pytest.approx(3000, rel=0.01)


def test_cox_intervals_hold_the_truth():
    times = np.arange(8, 8192, 16.0)
    held = []
    for seed in range(4):
        events = make(thinned(lambda t: np.exp(-t / 2500), 400, WHOLE, seed), WHOLE)
        true = np.exp(-times / 2500)
        true *= 400 / (true.mean() * 8192)
        low, high = rivals.log_gaussian_cox(events).rate_interval(times, 0.9)
        held.append(np.mean((low.value < true) & (true < high.value)))
    assert 0.75 < np.mean(held) <= 1


# -- Gregory & Loredo -----------------------------------------------------------------------------

def odds_by_factorials(times, m, gti):
    edges = np.linspace(0, 8192, m + 1)
    counts = np.histogram(times, edges)[0]
    share = exposure_in_bins(gti, edges)
    counts, share = counts[share > 0], share[share > 0] / share.sum()
    n, m = int(counts.sum()), len(counts)
    ways = prod(factorial(int(k)) for k in counts) * factorial(m - 1) / factorial(n + m - 1)
    return ways / np.prod(share ** counts)


@pytest.mark.parametrize("gti", [WHOLE, [[0.0, 2048.0], [4096.0, 8192.0]]])
def test_odds_are_the_reciprocal_multiplicity(gti):
    times = np.array([100.0, 300.0, 350.0, 420.0, 500.0, 610.0, 7000.0])
    estimate = rivals.gregory_loredo(make(times, gti))
    bins, chance = estimate.bin_odds
    own = np.array([odds_by_factorials(times, m, gti) for m in range(2, 513)])
    mean = np.cumsum(own) / np.arange(1, 512)
    last = np.flatnonzero(mean > mean.max() / np.sqrt(np.e))[-1]
    assert bins[-1] == last + 2
    assert 10 ** estimate.log10_odds == pytest.approx(mean[last], rel=1e-3)
    assert_allclose(chance, own[:last + 1] / own[:last + 1].sum(), rtol=2e-3)
    assert estimate.probability == pytest.approx(mean[last] / (1 + mean[last]), rel=1e-3)


def test_odds_of_a_bright_variable_source_stay_finite():
    times = thinned(lambda t: (2 + np.sin(t / 400)) / 3, 100_000, WHOLE)
    estimate = rivals.gregory_loredo(make(times, WHOLE))
    assert 1000 < estimate.log10_odds < 1e5
    assert estimate.probability == 1 and estimate.variability_index == 10


def test_constant_sources_have_low_indices_and_bursts_high_ones():
    quiet = [make(thinned(np.ones_like, 300, HALF, seed), HALF) for seed in range(10)]
    index = [estimate.variability_index for estimate in rivals.gregory_loredo(quiet)]
    assert np.median(index) == 0 and max(index) <= 6
    burst = np.concatenate([thinned(np.ones_like, 100, WHOLE), np.linspace(4000, 4100, 40)])
    estimate = rivals.gregory_loredo(make(burst, WHOLE))
    assert estimate.variability_index >= 8
    assert estimate.fractions[0] < 1
    assert rivals.gregory_loredo(make([3000.0], WHOLE)).variability_index == 0


@pytest.mark.parametrize("log10_odds, within, index", [
    (-3, (1, 1), 0), (0, (0.9, 0.9), 0), (0.1, (0.998, 1), 1), (0.1, (0.997, 1), 3),
    (0.1, (0.998, 0.999), 3), (0.2, (0.9, 1), 4), (0.5, (1, 1), 2), (0.5, (0.9, 1), 5),
    (0.96, (1, 1), 6), (1.99, (0, 0), 6), (2, (1, 1), 7), (4, (1, 1), 8), (10, (1, 1), 9),
    (30, (1, 1), 10), (4000, (1, 1), 10)])
def test_variability_index_by_the_catalogue_s_table(log10_odds, within, index):
    assert rivals.variability_index(log10_odds, *within) == index


def test_average_light_curve_is_the_mean_over_divisions_and_the_constant(wave):
    curve = rivals.gregory_loredo(wave)._curve
    drawn = curve.drawn(3000, np.random.default_rng(0))
    assert_allclose(drawn.mean(axis=0), curve.shape, atol=0.05)


# -- Bayesian blocks ------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [200, 800])
@pytest.mark.parametrize("first, last", [(500.0, 1000.0), (0.0, 500.0)])
def test_blocks_see_exposure_without_photons_at_the_ends(n, first, last):
    times = np.random.default_rng(n).uniform(first, last, n)
    rate = rivals.bayesian_blocks(make(times, [[0, 1000]])).rate([100.0, 450.0, 550.0, 900.0]).value
    there = np.array([100, 450, 550, 900]) > 500
    there = there if first else ~there
    assert_allclose(rate[there], n / 500, rtol=0.05)
    assert (rate[~there] < 0.03 * n / 500).all()


def test_blocks_find_a_burst_within_one_bin():
    times = 5000 + np.random.default_rng(1).uniform(0, 1e-3, 10_000)
    found = rivals.bayesian_blocks(make(times, [[0, 10_000]]))
    rate = found.rate([4900.0, 5000.0005, 5100.0]).value
    assert rate[1] > 400 and (rate[[0, 2]] < 0.01).all()


def test_no_kernel_is_left_out_of_a_faint_sources_average():
    """Some fifty kernels share its probability, each with less than a fiftieth of it."""
    times = np.random.default_rng(5).uniform(0, 1000, 5)
    found = rivals.log_gaussian_cox(make(times, [[0, 1000]]))
    log_posterior = found._curve._log_posterior
    constant = np.exp(log_posterior[0] - np.logaddexp.reduce(log_posterior))
    assert found.probability == pytest.approx(1 - constant, abs=2e-3)
    assert 0.2 < found.probability < 0.6
    assert found.kernels["probability"].sum() == pytest.approx(1)
