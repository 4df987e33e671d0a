"""Evaluators that run a model: here a tiny one, trained for a few steps only."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import beta

import stingray_align as sa
from stingray_align import evaluate
from stingray_align.datasets import simulate_photons, simulate_population
from stingray_align.evaluate import _interval_rivals as simple
from stingray_align.evaluate._autodecoder_calibration import PROBABILITIES
from stingray_align.photons import Photons


@pytest.fixture(scope="module")
def model():
    tiny = sa.PoissonAutodecoder(n_latent=4, n_hidden=16, n_rank=2, n_steps=3,
                                 n_refinement_steps=4, n_posterior_steps=4, batch_size=16)
    return tiny.fit(simulate_photons(64, seed=1, counts=(20, 200)), progress=False)


class Measured:
    """A posterior that is exact by construction: the truth plus Gaussian noise of known size."""

    errors = {"mean_rate": 0.1, "rate": 2.0, "spectrum": 0.02, "hardness": 0.05,
              "fractional_variability": 1e-4}

    def __init__(self, population, width=1.0):
        truth, rng = population.truth, np.random.default_rng(0)
        seconds = (population.photons.exposed * population.photons.duration[:, None] / 512)
        counts = population.true_counts_grid(np.arange(len(population))).sum(axis=2)
        mean = ((truth["source_counts"] + truth["background_counts"]) / truth["exposure"]).value
        spectra = population.true_spectra()
        true = {"mean_rate": mean, "rate": counts / np.maximum(seconds, 1e-9), "spectrum": spectra,
                "hardness": np.asarray(truth["hardness"]),
                "fractional_variability": np.asarray(truth["fractional_variability"])}
        self.row = {start: i for i, start in enumerate(population.photons.start)}
        scale = {"mean_rate": mean, "rate": mean[:, None], "spectrum": spectra}
        self.error = {key: error * np.asarray(scale.get(key, 1.0)) * np.ones_like(true[key])
                      for key, error in self.errors.items()}
        self.value = {key: value + self.error[key] * rng.normal(size=value.shape)
                      for key, value in true.items()}
        self.width = width

    def quantiles(self, photons, probabilities):
        rows = [self.row[start] for start in photons.start]
        return {key: self.value[key][rows][..., None]
                + self.width * self.error[key][rows][..., None] * ndtri(probabilities)
                for key in self.value}


@pytest.fixture(scope="module")
def faint():
    return simulate_population(300, seed=3, counts=(10, 150), summaries=0)


def test_an_exact_posterior_is_found_calibrated(faint):
    results = evaluate.autodecoder_calibration(faint, Measured(faint), rivals=False, n_times=4,
                                               batch_size=128, progress=False)
    assert set(results) == {"log mean rate", "rate at random times", "counts in channels",
                            "hardness ratio", "log fractional variability"}
    for what, result in results.items():
        for level, estimate in result.coverage.items():
            # the rate is that of an instant, not of the time bin, which matters in short bursts
            slack = 0.02 if what == "rate at random times" else 0
            assert abs(estimate.value - level) < 4 * estimate.error + slack, what
    assert (results["rate at random times"].known == 4).all()
    assert (results["counts in channels"].known == 20).all()
    instruments = set(results["counts in channels"].to_table("label")["kind"])
    assert instruments == {*np.unique(faint.truth["instrument"]).tolist(), "all"}
    shapes = set(results["log mean rate"].to_table("label")["kind"])
    assert shapes == {*np.unique(faint.truth["time_shape"]).tolist(), "all"}


def test_an_overconfident_posterior_is_found_out(faint):
    results = evaluate.autodecoder_calibration(faint, Measured(faint, width=0.4), rivals=False,
                                               progress=False)
    for result in results.values():
        assert result.coverage[0.68].value < 0.5 and result.coverage[0.95].value < 0.8


def test_calibration_shows_rivals_and_is_drawn(tmp_path):
    from matplotlib import pyplot as plt

    few = simulate_population(8, seed=3, counts=(10, 50), summaries=0)
    results = evaluate.autodecoder_calibration(few, Measured(few), n_times=2, progress=False)
    assert [r.rivals for r in results.values()] == [
        ("Gamma",), ("Cox process",), ("Gamma of the channel",), ("Beta",), ("excess variance",)]
    # an error of 10 % on the mean rate is less than 50 photons allow
    assert results["log mean rate"].score_ratio("Gamma").value < 0.9
    assert np.isfinite(results["rate at random times"].score["Cox process"]).all()
    for i, figure in enumerate((evaluate.plot_coverage(results), evaluate.plot_sharpness(results),
                                evaluate.plot_coverage(results, by="label"))):
        figure.savefig(tmp_path / f"{i}.png", dpi=50)
        plt.close(figure)
    assert "CRPS / Cox process" in str(results) and "Coverage of hardness ratio" in str(results)


def test_what_a_model_does_not_give_is_not_tested(faint):
    class Fewer(Measured):
        def quantiles(self, photons, probabilities):
            return {"hardness": super().quantiles(photons, probabilities)["hardness"]}

    results = evaluate.autodecoder_calibration(faint, Fewer(faint), rivals=False, progress=False)
    assert set(results) == {"hardness ratio"}


def test_a_posterior_that_says_constant_holds_a_constant_light_curve(faint):
    class Constant(Measured):
        def quantiles(self, photons, probabilities):
            # Nine in ten that there is none, as single precision says it.
            low = np.full((len(photons), len(probabilities)), 1e-3, np.float32)
            return {"fractional_variability": np.where(probabilities > 0.9, np.float32(0.2), low)}

    result = evaluate.autodecoder_calibration(faint, Constant(faint), rivals=False,
                                              progress=False)["log fractional variability"]
    constant = np.flatnonzero(faint.truth["fractional_variability"] < 0.03)
    # Of the nine tenths, 0.16 to 0.84 lie in the 68 % interval.
    assert result.coverage_of("ours", constant)[0.68].value == pytest.approx(0.68 / 0.9, abs=0.01)


def test_parameters_are_tested_on_sources_that_have_them_beside_the_population(faint):
    class Knowing(Measured):
        def quantiles(self, photons, probabilities):
            rows = [self.row[start] for start in photons.start]
            index = np.asarray(faint.truth["photon_index"], float)[rows]
            noise = 0.1 * np.random.default_rng(rows[0]).normal(size=len(rows))
            value = np.nan_to_num(index + noise)
            return {"photon_index": value[:, None] + 0.1 * ndtri(probabilities)}

    results = evaluate.autodecoder_calibration(faint, Knowing(faint), progress=False, n_times=1)
    assert set(results) == {"photon index"}
    found = results["photon index"]
    assert found.rivals == ("population",)
    has_one = np.isfinite(np.asarray(faint.truth["photon_index"], float))
    assert (found.known == has_one).all() and 50 < found.known.sum() < 250
    for level, estimate in found.coverage.items():
        assert abs(estimate.value - level) < 4 * estimate.error
    # Quantiles of the population hold exactly what they say of the population itself.
    assert found.coverage_of("population")[0.68].value == pytest.approx(0.68, abs=0.02)
    assert found.score_ratio("population").value < 0.4


def test_gamma_quantiles_of_counts_in_channels_are_those_of_each(faint):
    quantiles = simple._spectrum(faint.photons, np.array([0.5]))[:, :, 0]
    counts = faint.photons.counts().sum(axis=1)
    assert quantiles.shape == counts.shape == (300, 20)
    np.testing.assert_allclose(quantiles[counts > 5], counts[counts > 5] + 1 / 3, atol=0.2)


def test_gamma_quantiles_of_the_mean_rate_are_calibrated(faint):
    p = np.array([0.025, 0.16, 0.84, 0.975])
    quantiles = simple._mean_rate(faint.photons, p)
    truth = ((faint.truth["source_counts"] + faint.truth["background_counts"])
             / faint.truth["exposure"]).value
    for low, high, level in ((0, 3, 0.95), (1, 2, 0.68)):
        inside = (quantiles[:, low] < truth) & (truth < quantiles[:, high])
        assert abs(inside.mean() - level) < 4 * np.sqrt(level * (1 - level) / 300)


def test_rivals_say_something_about_any_photons(faint):
    photons = faint.photons[:4]
    photons = Photons.concatenate([
        photons, photons[:1].select(np.zeros(photons.n_photons[0], bool)),
        photons[:1].select(np.arange(photons.n_photons[0]) == 0)])
    quantiles = simple.rival_quantiles(photons, PROBABILITIES, n_draws=20)
    assert quantiles["rate"].shape == (6, 512, len(PROBABILITIES))
    for values in quantiles.values():
        assert (np.diff(values, axis=-1) >= 0).all() and np.isfinite(values).all()


def photons_of(soft, hard, background=(0, 0), phase=None):
    n = soft + hard
    phase = (np.arange(n) + 0.5) / n if phase is None else phase
    return Photons(np.array([0, n]), phase.astype(np.float32),
                   np.repeat([3, 12], [soft, hard]).astype(np.uint8), np.zeros(1), np.full(1, 1e4),
                   np.ones((1, 512), np.float32),
                   np.array([[background[0], 0, background[1], 0]], np.float32), np.array([""]))


def test_hardness_without_background_is_a_beta_distribution():
    p = np.linspace(0.1, 0.9, 9)
    found = simple._hardness(photons_of(12, 5), p, np.random.default_rng(0))[0]
    np.testing.assert_allclose(found, 2 * beta.ppf(p, 5.5, 12.5) - 1, atol=0.03)


def test_hardness_over_a_background_is_that_on_a_grid():
    soft_n, hard_n, soft_b, hard_b = 9, 6, 3.0, 4.0
    s = (np.arange(1200) + 0.5) * 0.03
    soft, hard = (np.exp(n * np.log(s + b) - s) / np.sqrt(s)
                  for n, b in ((soft_n, soft_b), (hard_n, hard_b)))
    joint = np.outer(soft, hard).ravel() / (soft.sum() * hard.sum())
    ratio = ((s - s[:, None]) / (s + s[:, None])).ravel()
    order = np.argsort(ratio)
    p = np.array([0.05, 0.16, 0.5, 0.84, 0.95])
    expected = np.interp(p, np.cumsum(joint[order]), ratio[order])
    found = simple._hardness(photons_of(soft_n, hard_n, (soft_b, hard_b)), p,
                             np.random.default_rng(0))
    np.testing.assert_allclose(found[0], expected, atol=0.05)


def test_excess_variance_of_a_sinusoid_and_of_a_constant():
    rng = np.random.default_rng(4)
    phase = rng.random(40_000)
    wavy = np.sort(phase[rng.random(40_000) < (1 + 0.8 * np.sin(6 * np.pi * phase)) / 2])
    p = np.array([0.025, 0.5, 0.975])
    low, middle, high = simple._excess_variance(
        photons_of(len(wavy) - 5000, 5000, phase=wavy), p)[0]
    assert low < 0.8 / np.sqrt(2) < high and high - low < 0.05
    flat = simple._excess_variance(photons_of(300, 200, phase=np.sort(rng.random(500))), p)
    assert flat[0, 0] == 0
    # half of the photons are background: the source varies twice as much
    diluted = simple._excess_variance(
        photons_of(len(wavy) - 5000, 5000, (len(wavy) / 2, 0), phase=wavy), p)
    np.testing.assert_allclose(diluted[0, 1], 2 * middle, rtol=1e-5)


def test_the_autodecoders_posterior_is_evaluated(model, faint):
    results = evaluate.autodecoder_calibration(faint, model, rivals=False, n_times=2,
                                               progress=False)
    for level, estimate in results["log mean rate"].coverage.items():
        assert abs(estimate.value - level) < 5 * np.sqrt(level * (1 - level) / 300)
    assert all(np.isfinite(r.score["ours"]).all() for r in results.values())


def test_cost_is_measured(model):
    result = evaluate.cost(model, n_sources=20, n_single=3, n_training_steps=3)
    assert {name for name in result.milliseconds if not name.endswith(" threads")} == {
        "first pass, in a batch", "latent and rate alone, in a batch",
        "refined rates, in a batch", "first pass, one",
        "one, refined, with posterior", "read the M82 file", "embed the M82 file",
        *(f"rival: {name}" for name in evaluate.rivals.RIVALS)}
    assert all((times > 0).all() for times in result.milliseconds.values())
    assert result.primary < np.median(result.milliseconds["first pass, one"])
    assert result.peak_memory > 50 and set(result.training) == {"10^4 sources", "10^5 photons"}
    assert "MiB" in str(result) and "Training:" in str(result)


def test_the_autodecoder_is_evaluated_as_it_is(model):
    population = simulate_population(20, seed=4, counts=(20, 300), summaries=0)
    result = evaluate.reconstruction({"autodecoder": model, "first pass": model.first_pass_rates},
                                     population, rivals={}, progress=False)
    assert result.names == ("autodecoder", "first pass")
    assert np.isfinite(result.gain["autodecoder"]).all()
    assert result.fraction("truth in 512 bins").value > 0.8
