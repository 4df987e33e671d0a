"""The fraction of the oracle gain, and the rivals, against sources whose truth is simple."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from stingray_align import evaluate
from stingray_align.evaluate import rivals
from stingray_align.evaluate._reconstruction import log_likelihood
from stingray_align.photons import N_TIME_BINS, Photons


class Sources:
    """Photons of sinusoids ``1 + a sin`` (or constants, a = 0), with the truth of a population."""

    shares = np.array([0.5, 0.2, 0.3])

    def __init__(self, n, *, amplitude, counts, cycles=3, gap=None, seed=0):
        rng = np.random.default_rng(seed)
        phase = (np.arange(N_TIME_BINS) + 0.5) / N_TIME_BINS
        exposed = np.ones(N_TIME_BINS, np.float32)
        if gap is not None:
            exposed[gap] = 0
        self.shape = 1 + amplitude * np.sin(2 * np.pi * cycles * phase)
        self.expected = counts * self.shape[:, None] * self.shares * exposed[:, None] / N_TIME_BINS
        self.width = 1e4 / N_TIME_BINS
        parts = []
        for _ in range(n):
            number = rng.poisson(self.expected)
            bins, band = (np.repeat(i, number.ravel()) for i in
                          np.indices(number.shape).reshape(2, -1))
            parts.append(Photons(
                offsets=np.array([0, len(bins)]),
                phase=((bins + rng.random(len(bins))) / N_TIME_BINS).astype(np.float32),
                channel=np.array([2, 7, 12], np.uint8)[band], start=np.array([5e8]),
                duration=np.array([1e4]), exposed=exposed[None],
                background=np.zeros((1, 4), np.float32), instrument=np.array(["ACIS-S"])))
        self.photons = Photons.concatenate(parts)
        self.truth = {"time_shape": np.repeat("sinusoid" if amplitude else "constant", n)}
        self.rates = counts * self.shape[:, None] * self.shares / 1e4

    def true_counts_grid(self, rows):
        return np.repeat(self.expected[None], len(rows), axis=0)

    def true_log_rates(self, photons):
        band = np.searchsorted([6, 10], photons.channel, side="right")
        return np.log(self.rates[photons.time_bin, band])

    def half_the_truth(self, photons):
        return np.repeat(0.5 * self.rates[None], len(photons), axis=0)


def test_likelihood_of_a_constant_is_that_of_a_poisson_number():
    sources = Sources(1, amplitude=0, counts=50, gap=slice(100, 200))
    rate = np.broadcast_to([0.003, 0.001, 0.002], (1, N_TIME_BINS, 3))
    numbers = np.bincount(np.searchsorted([6, 10], sources.photons.channel, side="right"))
    exposure = sources.photons.exposure[0]
    expected = (numbers * np.log(rate[0, 0])).sum() - rate[0, 0].sum() * exposure
    assert log_likelihood(sources.photons, rate)[0] == pytest.approx(expected)


def test_hard_photons_above_7_keV_are_not_scored():
    one = Sources(1, amplitude=0, counts=30).photons
    top = Photons(one.offsets + [0, 1], np.append(one.phase, np.float32(0.5)),
                  np.append(one.channel, np.uint8(19)), one.start, one.duration, one.exposed,
                  one.background, one.instrument)
    rate = np.full((1, N_TIME_BINS, 3), 0.002)
    assert log_likelihood(top, rate) == log_likelihood(one, rate)


@pytest.mark.parametrize("fraction", [0.3, 0.5])
def test_the_truth_scores_one_and_the_constant_zero(fraction):
    sources = Sources(60, amplitude=0.9, counts=300, gap=slice(50, 90))
    result = evaluate.reconstruction(
        {"truth": lambda p: fraction * 2 * sources.half_the_truth(p),
         "constant": rivals.constant},
        sources, rivals={}, fraction=fraction, progress=False, batch_size=25)
    assert result.fraction("truth").value == pytest.approx(1)
    assert result.fraction("constant").value == pytest.approx(0, abs=1e-9)
    assert result.fraction("truth in 512 bins").value == pytest.approx(1)


def test_the_oracle_gain_of_a_sinusoid_is_its_information():
    """Gain per photon is the Kullback-Leibler divergence of the shape, plus 3/2 x chi2 noise."""
    sources = Sources(300, amplitude=0.8, counts=1000)
    result = evaluate.reconstruction(sources.half_the_truth, sources, rivals={}, progress=False)
    information = 500 * np.mean(sources.shape * np.log(sources.shape))
    # the constant's three rates are estimated from as many photons as they are tested on
    expected = information + 3 / 2
    error = result.gain["oracle"].std() / np.sqrt(300)
    assert abs(result.gain["oracle"].mean() - expected) < 4 * error
    assert 0.5 * error < 0.05 * expected


def test_constant_sources_leave_next_to_nothing_to_gain():
    sources = Sources(300, amplitude=0, counts=400)
    result = evaluate.reconstruction(sources.half_the_truth, sources, rivals={}, progress=False)
    assert result.gain["oracle"].mean() == pytest.approx(1.5, abs=0.35)


SIMPLE = {"Bayesian blocks": rivals.bayesian_blocks, "cross-validated KDE": rivals.kde}


def test_rivals_find_a_strong_sinusoid_and_keep_quiet_on_constants():
    strong = evaluate.reconstruction(rivals.kde, Sources(25, amplitude=1, counts=800),
                                     rivals=SIMPLE, progress=False)
    assert strong.fraction("cross-validated KDE").value > 0.9
    assert strong.fraction("Bayesian blocks").value > 0.6
    quiet = evaluate.reconstruction(rivals.kde, Sources(25, amplitude=0, counts=800),
                                    rivals=SIMPLE, progress=False)
    for name in quiet.rivals:
        assert abs(quiet.gain[name].mean()) < 0.5


@pytest.mark.parametrize("rival", [rivals.constant, rivals.bayesian_blocks, rivals.kde])
def test_rivals_conserve_the_photons_and_survive_few(rival):
    sources = Sources(30, amplitude=0.7, counts=60, gap=slice(0, 40)).photons
    few = [sources.select(np.arange(len(sources.phase)) % 40 == k) for k in range(2)]
    none = sources[:1].select(np.zeros(sources.n_photons[0], bool))
    photons = Photons.concatenate([sources, *few, none])
    rates = rival.band_rates(photons)
    assert rates.shape == (len(photons), N_TIME_BINS, 3)
    assert (rates > 0).all() and np.isfinite(rates).all()
    seconds = photons.exposed * photons.duration[:, None] / N_TIME_BINS
    expected = np.einsum("ijk,ij->i", rates, seconds)
    np.testing.assert_allclose(expected, photons.n_photons + 1.5, rtol=1e-5)


def test_kde_sees_no_edge_at_a_gap():
    """Half the window unobserved: what remains of a constant source is still constant."""
    sources = Sources(20, amplitude=0, counts=1500, gap=slice(128, 384), seed=4)
    shape = rivals.kde.band_rates(sources.photons).sum(axis=2)
    shape /= shape.mean(axis=1, keepdims=True)
    assert np.abs(shape - 1).mean() < 0.06


def test_blocks_find_a_step_where_it_is():
    sources = Sources(1, amplitude=0, counts=4000)
    later = sources.photons.phase > 0.3
    thinned = sources.photons.select(later | (np.arange(len(later)) % 8 == 0))
    rate = rivals.bayesian_blocks.band_rates(thinned)[0].sum(axis=1)
    assert rate[200:].mean() / rate[:140].mean() == pytest.approx(8, rel=0.2)
    assert abs(np.argmax(rate > rate.mean()) - 0.3 * N_TIME_BINS) < 5


@pytest.mark.parametrize("factor", [2, 8])
def test_finer_time_bins_score_the_same(factor):
    sources = Sources(20, amplitude=0.8, counts=150, gap=slice(30, 60))
    rates = sources.half_the_truth(sources.photons)
    np.testing.assert_allclose(log_likelihood(sources.photons, np.repeat(rates, factor, axis=1)),
                               log_likelihood(sources.photons, rates))


def test_structure_inside_a_time_bin_is_scored():
    """All photons in the first half of their time bin: ln 2 to be gained for each."""
    sources = Sources(10, amplitude=0, counts=200)
    bins = sources.photons.time_bin
    early = sources.photons.replace(
        phase=((bins + 0.5 * np.linspace(0, 1, len(bins), endpoint=False)) / N_TIME_BINS
               ).astype(np.float32))
    rates = sources.half_the_truth(early)
    fine = np.repeat(rates, 2, axis=1) * np.tile([2 - 1e-6, 1e-6], N_TIME_BINS)[:, None]
    gain = log_likelihood(early, fine) - log_likelihood(early, rates)
    np.testing.assert_allclose(gain, early.n_photons * np.log(2), rtol=1e-4)


def test_the_lead_is_paired_and_tables_are_complete():
    sources = Sources(80, amplitude=0.8, counts=200, cycles=6)
    result = evaluate.reconstruction({"truth": sources.half_the_truth}, sources, rivals=SIMPLE,
                                     progress=False)
    lead = result.lead("truth", over="cross-validated KDE")
    assert lead.value == pytest.approx(1 - result.fraction("cross-validated KDE").value)
    assert lead.error > 0
    table = result.to_table()
    assert list(table["model"]) == ["truth", "Bayesian blocks", "cross-validated KDE",
                                    "truth in 512 bins"]
    assert result.to_table("counts")["sources"].sum() == 80
    assert list(result.to_table("time_shape")["time_shape"]) == ["sinusoid"]
    assert "80 sources" in str(result) and "gap ratio" in str(result) and "±" in str(result)
    assert max(map(len, str(result).splitlines())) < 130
    assert result.primary == result.fraction("truth")


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_gap_ratio_is_that_of_the_gaps(share):
    """A model that misses a known share of what a rival misses, source by source."""
    rng = np.random.default_rng(0)
    oracle, missed = rng.gamma(5, 10, 400), rng.gamma(2, 3, 400)
    gain = {"oracle": oracle, "rival": oracle - missed,
            "model": oracle - share * missed + rng.normal(0, 0.5, 400),
            "truth in 512 bins": oracle}
    result = evaluate.ReconstructionResult(
        names=("model",), rivals=("rival",), gain=gain, counts=np.arange(400) + 1,
        time_shape=np.repeat("constant", 400), fraction_seen=0.5, seed=0, n_resamples=400)
    ratio, margin = result.gap_ratio("model", over="rival")
    assert abs(ratio.value - share) < 4 * ratio.error < 0.1
    assert margin.value == pytest.approx((0.8 - share) * missed.sum() / oracle.sum(), abs=0.002)
    assert (margin.value > 3 * margin.error) is (share == 0.5)
    assert result.to_table()["gap ratio"][1] == ratio.value


def test_same_seed_same_result():
    sources = Sources(10, amplitude=0.8, counts=100)
    one, two, three = (evaluate.reconstruction(rivals.kde, sources, rivals={}, seed=seed,
                                               progress=False) for seed in (1, 1, 2))
    assert np.array_equal(one.gain["model"], two.gain["model"])
    assert not np.array_equal(one.gain["model"], three.gain["model"])


def test_a_model_with_the_autodecoders_interface_is_accepted():
    class Model:
        band_rates = staticmethod(rivals.constant.band_rates)

    result = evaluate.reconstruction(Model(), Sources(5, amplitude=0.5, counts=50), rivals={},
                                     progress=False)
    assert result.primary.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rates, message", [
    (np.ones((5, 256, 3)), "shape"), (np.full((5, 512, 3), np.nan), "finite"),
    (np.full((5, 512, 3), -1.0), "negative"), (np.zeros((5, 512, 3)), "pedestal")])
def test_impossible_rates_are_refused(rates, message):
    with pytest.raises(ValueError, match=message):
        evaluate.reconstruction(lambda photons: rates, Sources(5, amplitude=0.5, counts=50),
                                rivals={}, progress=False)


def test_a_truth_of_zero_is_refused():
    sources = Sources(5, amplitude=0.5, counts=50)
    sources.rates = np.zeros_like(sources.rates)
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match="true rate is zero"):
        evaluate.reconstruction(rivals.kde, sources, rivals={}, progress=False)


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="fraction"):
        evaluate.reconstruction(rivals.kde, Sources(2, amplitude=0, counts=50),
                                fraction=fraction, progress=False)


def test_fine_rates_cannot_follow_the_border_of_a_good_time_interval():
    rng = np.random.default_rng(0)
    exposed = np.ones((1, N_TIME_BINS), np.float32)
    exposed[0, 100] = 0.5
    phase = np.sort(rng.random(3000)).astype(np.float32)
    phase = phase[~((phase * N_TIME_BINS >= 100.5) & (phase * N_TIME_BINS < 101))]
    photons = Photons(np.array([0, len(phase)]), phase, np.zeros(len(phase), np.uint8), np.zeros(1),
                      np.full(1, 1e4), exposed, np.zeros((1, 4), np.float32), np.array(["ACIS-S"]))
    flat = np.full((1, 8 * N_TIME_BINS, 3), 0.1)
    bordered = flat.copy()
    bordered[0, 800:804], bordered[0, 804:808] = 0.19, 0.01
    assert_allclose(log_likelihood(photons, bordered), log_likelihood(photons, flat))
    elsewhere = flat.copy()
    elsewhere[0, 1600:1604], elsewhere[0, 1604:1608] = 0.19, 0.01
    assert log_likelihood(photons, elsewhere) != log_likelihood(photons, flat)
