"""Scores that need no truth: thinning and double thinning, on sources whose posterior is known."""

import numpy as np
import pytest

from stingray_align import evaluate
from stingray_align.photons import N_TIME_BINS, Photons

N_BLOCKS = 32


class Blocks:
    """Sources whose rate is constant in 32 blocks, with a Gamma prior: the posterior is exact.

    The posterior of a block's rate, given k photons in exposure T, is Gamma(a + k, b + T).
    """

    prior = 3.0, 3.0  # shape and inverse scale, in units of the mean rate

    def __init__(self, n, *, counts=60, seed=0):
        rng = np.random.default_rng(seed)
        self.level = rng.gamma(self.prior[0], 1 / self.prior[1], (n, N_BLOCKS))
        exposed = np.ones((n, N_BLOCKS), np.float32)
        exposed[:, 5:9] = 0
        exposed[::2, 20] = 0
        self.counts = counts
        number = rng.poisson(counts / N_BLOCKS * self.level * exposed)
        block = np.repeat(np.tile(np.arange(N_BLOCKS), n), number.ravel())
        phase = ((block + rng.random(len(block))) / N_BLOCKS).astype(np.float32)
        band = rng.integers(0, 19, len(block)).astype(np.uint8)
        self.photons = Photons(
            np.concatenate([[0], np.cumsum(number.sum(axis=1))]), np.minimum(phase, 0.99999), band,
            np.zeros(n), np.full(n, 1e4), np.repeat(exposed, N_TIME_BINS // N_BLOCKS, axis=1),
            np.zeros((n, 4), np.float32), np.repeat("ACIS-S", n))

    def posterior(self, width):
        def drawn_rates(photons, n_draws, seed):
            counts, exposed = photons.rebinned(N_BLOCKS)
            shape = self.prior[0] + counts
            scale = 1 / (self.prior[1] + 0.5 * self.counts / N_BLOCKS * exposed)
            drawn = np.random.default_rng(seed).gamma(shape[:, None], scale[:, None],
                                                      (len(photons), n_draws, N_BLOCKS))
            mean = (shape * scale)[:, None]
            drawn = mean + width * (drawn - mean)
            return np.repeat(drawn, N_TIME_BINS // N_BLOCKS, axis=2)
        return drawn_rates


def test_an_exact_posterior_has_tau_squared_one():
    sources = Blocks(1500)
    result = evaluate.double_thinning(
        {"exact": sources.posterior(1), "too narrow": sources.posterior(0.5)}, sources.photons,
        n_splits=2, n_draws=60, progress=False)
    exact, narrow = result.tau2("exact"), result.tau2("too narrow")
    assert exact.error < 0.15 and abs(exact.value - 1) < 3.5 * exact.error
    assert narrow.value == pytest.approx(4 * exact.value, rel=0.1)
    assert result.primary == exact
    table = result.to_table()
    assert table["sources"].sum() == 3000 and table["photons"][-1] == "all"
    assert "1500 sources" in str(result) and "±" in str(result)


def test_a_posterior_of_the_wrong_sources_has_a_large_tau_squared():
    sources, others = Blocks(300), Blocks(300, seed=5)
    right = sources.posterior(1)
    result = evaluate.double_thinning(
        lambda photons, n_draws, seed: right(others.photons, n_draws, seed), sources.photons,
        n_splits=2, n_draws=60, batch_size=300, progress=False)
    assert result.primary.value > 2


def test_finer_bins_make_the_same_windows():
    sources = Blocks(40)
    coarse = sources.posterior(1)
    one, two = (evaluate.double_thinning(model, sources.photons, n_splits=1, n_draws=20,
                                         progress=False)
                for model in (coarse, lambda *a: np.repeat(coarse(*a), 8, axis=2)))
    assert two.primary.value == pytest.approx(one.primary.value)


def test_sources_without_test_photons_say_nothing():
    sources = Blocks(20)
    keep = sources.photons.source_index >= 10
    result = evaluate.double_thinning(sources.posterior(1), sources.photons.select(keep),
                                      n_splits=1, n_draws=20, progress=False)
    assert (result.squared["model"][:10] == 0).all()
    assert np.isfinite(result.primary.value)


def truth_of(sources):
    share = np.array([6, 4, 9]) / 19
    rate = 0.5 * sources.counts / 1e4 * np.repeat(sources.level, N_TIME_BINS // N_BLOCKS, axis=1)
    return lambda photons: np.maximum(rate, 1e-12)[:, :, None] * share


def test_the_gain_of_the_truth_is_its_information():
    sources = Blocks(250, counts=400)
    rates = truth_of(sources)
    result = evaluate.thinning({"truth": rates}, sources.photons, n_splits=2,
                               rivals={"constant": evaluate.rivals.constant}, progress=False)
    exposed = sources.photons.exposed[:, ::N_TIME_BINS // N_BLOCKS]
    mean = (sources.level * exposed).sum(axis=1) / exposed.sum(axis=1)
    relative = sources.level / mean[:, None]
    expected = 0.5 * sources.counts / N_BLOCKS * sources.level * exposed * np.log(relative)
    information = expected.sum(axis=1).mean() + 3 / 2  # and the noise of three constants
    gain = result.gain["truth"].mean(axis=0)
    assert abs(gain.mean() - information) < 4 * gain.std() / np.sqrt(len(gain))
    assert (result.gain["constant"] == 0).all()
    assert result.primary.value == pytest.approx(
        result.gain["truth"].sum() / result.scored.sum())


def test_kinds_are_summed_apart_and_sources_have_errors():
    sources = Blocks(12, counts=300)
    labels = np.repeat(["one source", "field"], 6)
    result = evaluate.thinning({"truth": truth_of(sources)}, sources.photons, rivals={},
                               names=[f"s{i}" for i in range(12)], labels=labels, n_splits=4,
                               progress=False)
    summary, table = result.summary(), result.to_table()
    assert list(summary["kind"]) == ["field", "one source"] and list(summary["sources"]) == [6, 6]
    assert sorted(table["source"]) == sorted(f"s{i}" for i in range(12))
    each = result.of_source("truth", 3)
    values = result.gain["truth"][:, 3] / result.scored[:, 3]
    assert each.error == pytest.approx(values.std(ddof=1) / 2)
    assert table["truth error"].min() > 0 and "nats per photon" in str(result)


def test_one_split_has_no_error():
    sources = Blocks(3)
    with pytest.raises(ValueError, match="two splits"):
        evaluate.thinning(truth_of(sources), sources.photons, rivals={}, n_splits=1)
