"""Hardness ratio and fractional variability from several measurements of each."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_sources import sources

import stingray_align as sa
from stingray_align.autodecoder.batch import make_batch
from stingray_align.autodecoder.descriptors import DESCRIPTORS, estimated
from stingray_align.autodecoder.intervals import Mixture
from stingray_align.autodecoder.likelihood import total_log_rate
from stingray_align.autodecoder.readouts import readouts
from stingray_align.autodecoder.scalars import (
    N_ABOUT, Measured, Measurements, Scalars, _counted_hardness, _scatter, examples, measured,
    scalar_quantiles)
from stingray_align.photons import Photons


@pytest.fixture(scope="module")
def model():
    return sa.PoissonAutodecoder.pretrained()


def observed(rate, hard_share, background=0.0, seed=0, duration=2e4):
    """Photons of a rate (512,), counts per bin, with channels of 1 and 4 keV and a background."""
    rng = np.random.default_rng(seed)
    of_source, of_background = rng.poisson(rate), rng.poisson(background / 512, 512)
    bins = np.repeat(np.arange(1024) % 512, np.concatenate([of_source, of_background]))
    own = np.arange(len(bins)) < of_source.sum()
    channel = np.where(rng.random(len(bins)) < np.where(own, hard_share, 0.5), 14, 5)
    order = np.argsort(bins, kind="stable")
    phase = ((bins + rng.random(len(bins))) / 512)[order].astype(np.float32)
    in_bands = np.array([[background / 2, 0, background / 2, 0]], dtype=np.float32)
    return Photons(np.array([0, len(bins)]), phase, channel[order].astype(np.uint8), np.zeros(1),
                   np.array([duration]), np.ones((1, 512), np.float32), in_bands,
                   np.array(["ACIS-S"]))


# -- the measurements -----------------------------------------------------------------------------

@pytest.mark.parametrize("background", [0.0, 900.0])
def test_counts_give_hardness_and_error(background):
    """Over many realisations the estimate scatters around the truth as its error says."""
    found = []
    for seed in range(120):
        batch = make_batch(observed(np.full(512, 2.0), 0.3, background, seed))
        found.append(_counted_hardness(batch)[0][0].numpy())
    centre, error = np.array(found).T
    pull = (centre - 0.5 * np.log(0.3 / 0.7)) / error
    assert abs(pull.mean()) < 0.3
    assert pull.std() == pytest.approx(1, abs=0.2)


def test_without_photons_hardness_is_open():
    (centre, width), = _counted_hardness(make_batch(observed(np.zeros(512), 0.3)))[0]
    assert centre == 0 and width > 2


def test_scatter_is_that_of_the_sources_rate(model):
    """A rate with a background, and what its intervals leave open, by hand."""
    photons = sources(3, n_photons=(300, 400), background=True)
    inferred = model.infer(photons)
    refined = model.refine(inferred)
    batch = inferred.batch
    scatter, left_open, _ = _scatter(batch, refined)
    log_rate = total_log_rate(refined.shape, batch).repeat_interleave(8, dim=1) + refined.fine
    for i in range(3):
        open_ = np.repeat(photons.exposed[i] > 0, 8)
        rate = np.exp(log_rate[i].numpy().astype(float))[open_]
        rate /= rate.mean()
        own = rate - batch.background_fraction[i].item()
        own = np.maximum(own, 0.02 * rate)
        assert scatter[i] == pytest.approx(np.var(own) / own.mean() ** 2, rel=1e-3)
    sharp = refined._replace(log_rate_intervals=torch.full((3, 128, 9), -50.0))
    assert (_scatter(batch, sharp)[1] < 2e-3).all() and (left_open > 0.01).all()


@pytest.mark.parametrize("rms", [0.0, 0.5])
def test_excess_variance_is_that_of_the_rate(model, rms):
    wave = 1 + rms * np.sqrt(2) * np.sin(2 * np.pi * 2 * (np.arange(512) + 0.5) / 512)
    photons = Photons.concatenate([observed(20 * wave, 0.3, seed=seed) for seed in range(20)])
    inferred = model.infer(photons)
    found = _scatter(inferred.batch, model.refine(inferred))[2][:, 6:].mean(dim=0)
    significance, log_rms = found[::2], found[1::2]
    if rms:
        assert_allclose(log_rms[:4], np.log10(rms), atol=0.05)
        assert (significance > 3).all()
    else:
        assert (significance.abs() < 1).all() and (log_rms < -1).all()


def test_measurements_are_named_numbers_with_errors(model):
    photons = sources(4, n_photons=(50, 90), background=True)
    inferred = model.infer(photons)
    descriptors = model.describe(inferred, readouts(inferred))
    found = measured(inferred.batch, model.refine(inferred), descriptors)
    assert found.centre.shape == found.width.shape == (4, 2, 3)
    assert found.about.shape == (4, N_ABOUT)
    assert all(torch.isfinite(x).all() for x in found) and (found.width > 0).all()
    columns = dict(zip(DESCRIPTORS, descriptors.T))
    guess, spread = estimated(descriptors, "hardness")
    assert_array_equal(guess, columns["estimated_hardness"])
    assert_allclose(torch.tanh(found.centre[:, 0, 1]), guess, atol=1e-5)
    assert_allclose(spread, 0.5 * torch.exp(columns["spread_hardness"]), rtol=1e-6)
    assert_array_equal(found.centre[:, 1, 0], columns["estimated_log_fractional_variability"])


# -- the posteriors -------------------------------------------------------------------------------

def test_untrained_each_measurement_counts_the_same():
    centre = torch.tensor([[[0.0, 5.0, -5.0], [-1.0, -0.5, -3.0]]])
    found = Measured(centre, torch.full((1, 2, 3), 0.01), torch.zeros(1, N_ABOUT))
    hardness, variability = Scalars()(found)
    assert_allclose(hardness.log_weight.detach().exp(), 1 / 3, atol=0.02)
    assert_allclose(hardness.mean.detach(), centre[:, 0], atol=1e-3)
    assert_allclose(variability.mean.detach(), centre[:, 1], atol=1e-3)


def test_quantiles_of_hardness_reach_the_end_of_the_scale():
    def of(mean):
        one = Mixture(torch.tensor([[0.0, -50.0, -50.0]]), torch.full((1, 3), mean),
                      torch.full((1, 3), np.log(0.1)))
        return [one, one]

    levels = [0.025, 0.5, 0.975]
    assert_allclose(scalar_quantiles(of(0.5), "hardness", levels)[0],
                    np.tanh([0.5 - 0.196, 0.5, 0.5 + 0.196]), atol=1e-4)
    assert_allclose(scalar_quantiles(of(-1.0), "fractional_variability", levels)[0],
                    10 ** np.array([-1.196, -1, -0.804]), rtol=1e-3)
    assert scalar_quantiles(of(4.9), "hardness", levels)[0, 2] == 1
    assert scalar_quantiles(of(-4.9), "hardness", levels)[0, 0] == -1


def test_it_learns_which_measurement_is_right():
    """The first of three is right where a number says so, else the second."""
    rng = np.random.default_rng(0)

    def make(model, number):
        n = 400
        truth = rng.normal(size=(n, 2)).astype(np.float32)
        about = rng.normal(size=(n, N_ABOUT)).astype(np.float32)
        centre = rng.normal(size=(n, 2, 3)).astype(np.float32)
        first = about[:, 7] > 0
        centre[first, :, 0], centre[~first, :, 1] = truth[first], truth[~first]
        return {"centre": centre, "width": np.full_like(centre, 0.1), "about": about,
                "truth": truth}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Scalars(32)
    learned = Measurements(sa.PoissonAutodecoder(), torch.nn.ModuleDict(), make, 3000, None, False)
    learned.start(network)
    assert learned.gain(network) == pytest.approx(0, abs=0.05)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(200):
        optimiser.zero_grad()
        learned.loss(network, learned.draw(256, np.random.default_rng(step))).backward()
        optimiser.step()
    # Of each number a factor of three in the weight, and narrower peaks.
    assert learned.gain(network) > 2 * np.log(3)


def test_examples_hold_the_truth_on_the_scale_of_the_posterior():
    found = Measured(*(torch.zeros(3, 2, 3) for _ in range(2)), torch.zeros(3, N_ABOUT))
    made = examples(found, np.array([-1.0, 0.5, 1.0]), np.array([-3.0, -1.0, 0.2]))
    assert_allclose(made["truth"][:, 0], [-4.95, np.arctanh(0.5), 4.95], atol=0.01)
    assert_allclose(made["truth"][:, 1], [-3.0, -1.0, 0.2])
    assert made["truth"].dtype == np.float32


def test_an_unknown_truth_is_not_learned_from():
    one = {"centre": torch.zeros(2, 2, 3), "width": torch.ones(2, 2, 3),
           "about": torch.zeros(2, N_ABOUT), "truth": torch.full((2, 2), torch.nan)}
    assert Measurements.loss(None, Scalars(8), one) == 0


# -- the bundled model ----------------------------------------------------------------------------

@pytest.mark.parametrize("n", [2_000, 100_000])
def test_many_photons_over_a_known_background_give_the_hardness_of_counts(model, n):
    """Within twice the error of Poisson statistics, and about as sure."""
    missed, widths = [], []
    for seed in range(8):
        photons = observed(np.full(512, n / 512), 0.3, n / 10, seed)
        low, middle, high = model.quantiles(photons, [0.16, 0.5, 0.84])["hardness"][0]
        error = 2 * np.sqrt(0.3 * 0.7 / n) * 1.15  # and that of the background
        missed.append((middle - (0.3 - 0.7)) / error)
        widths.append((high - low) / 2 / error)
    assert np.sqrt(np.mean(np.square(missed))) < 1.7
    assert 0.7 < np.mean(widths) < 1.8


def test_an_embedding_says_what_the_model_does(model):
    from stingray_align.datasets import simulate_population

    events = simulate_population(2, seed=8, counts="bright", summaries=0,
                                 instruments=["ACIS-S"]).event_lists
    found = model.quantiles(Photons.from_events(events), [0.16, 0.5, 0.84])
    for i, one in enumerate(events):
        embedding = sa.embed(one)
        for name in ("hardness", "fractional_variability"):
            middle, low, high = getattr(embedding, name)()
            assert_allclose([low, middle, high], found[name][i], rtol=1e-3, atol=1e-5)


def test_next_to_no_photons_leave_the_hardness_open(model):
    low, high = model.quantiles(observed(np.zeros(512), 0.3), [0.025, 0.975])["hardness"][0]
    assert high - low > 1
