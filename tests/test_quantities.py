"""Hardness ratio, variability, spectrum and parameters from several measurements of each."""

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
from stingray_align.autodecoder.model import cell_rates
from stingray_align.autodecoder.readouts import readouts
from stingray_align.autodecoder.quantities import (
    N_ABOUT, N_IN_CHANNEL, PARAMETERS, Measured, Measurements, Posteriors, Quantities,
    _counted_hardness, _scatter, examples, hardness_quantiles, measured, parameter_quantiles,
    spectrum_at_ranks, spectrum_quantiles, variability_quantiles)
from stingray_align.datasets import simulate_population
from stingray_align.datasets.stream import TARGETS
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
    refined = model.refine(inferred)
    found = measured(inferred.batch, refined, descriptors)
    assert found.centre.shape == found.width.shape == (4, 6, 3)
    assert found.about.shape == (4, N_ABOUT)
    assert found.roots.shape == (4, 20, 3) and found.in_channel.shape == (4, 20, N_IN_CHANNEL)
    assert all(torch.isfinite(x).all() for x in found) and (found.width > 0).all()
    columns = dict(zip(DESCRIPTORS, descriptors.T))
    guess, spread = estimated(descriptors, "hardness")
    assert_array_equal(guess, columns["estimated_hardness"])
    assert_allclose(torch.tanh(found.centre[:, 0, 1]), guess, atol=1e-5)
    assert_allclose(spread, 0.5 * torch.exp(columns["spread_hardness"]), rtol=1e-6)
    assert_array_equal(found.centre[:, 1, 0], columns["estimated_log_fractional_variability"])
    for k, name in enumerate(("photon_index", "log_kT", "log_n_h", "log_timescale"), 2):
        guess, spread = estimated(descriptors, name)
        assert_array_equal(found.centre[:, k], np.tile(guess[:, None], 3))
        assert_allclose(found.width[:, k], spread[:, None] * torch.tensor([0.5, 1.0, 2.0]))
    rates = cell_rates(inferred.batch, refined.shape)
    rates = rates * torch.exp(refined.fine).reshape(4, 512, 8).mean(dim=2)[:, :, None]
    seconds = photons.exposed * photons.duration[:, None] / 512
    assert_allclose(found.roots[:, :, 0]**2, np.einsum("nte,nt->ne", rates, seconds), rtol=1e-3)
    assert_allclose((found.roots[:, :, 1]**2).sum(dim=1), photons.n_photons + 0.5, rtol=1e-3)
    assert_allclose(found.roots[:, :, 2]**2, photons.counts().sum(axis=1) + 0.25, rtol=1e-5)


# -- the posteriors -------------------------------------------------------------------------------

def empty(n):
    return Measured(torch.zeros(n, 6, 3), torch.full((n, 6, 3), 0.01), torch.zeros(n, N_ABOUT),
                    torch.zeros(n, 20, 3), torch.zeros(n, 20, N_IN_CHANNEL))


def test_untrained_each_measurement_counts_the_same():
    centre = torch.arange(18.0).reshape(1, 6, 3)
    roots = torch.arange(60.0).reshape(1, 20, 3)
    found = Quantities()(empty(1)._replace(centre=centre, roots=roots))
    assert_allclose(found.hardness.log_weight.detach().exp(), 1 / 3, atol=0.02)
    assert_allclose(found.hardness.mean.detach(), centre[:, 0], atol=1e-3)
    assert_allclose(found.variability.mean.detach(), centre[:, 1], atol=1e-3)
    assert_allclose(found.timescale.mean.detach(), centre[:, 5], atol=1e-3)
    assert_allclose(found.roots.mean.detach(), roots, atol=1e-2)
    assert_allclose(found.roots.log_sd.detach().exp(), torch.tensor([[[0.2, 0.2, 0.5]]]).expand(
        1, 20, 3), rtol=0.02)


def one_gaussian(mean, sd=0.1):
    """The same for all quantities."""
    def of(*shape):
        weight = torch.tensor([0.0, -50.0, -50.0]).expand(*shape, 3)
        return Mixture(weight, torch.full((*shape, 3), mean),
                       torch.full((*shape, 3), float(np.log(sd))))

    return Posteriors(*[of(1)] * 6, of(1, 20))


def test_quantiles_are_those_of_the_quantities():
    levels = [0.025, 0.5, 0.975]
    scores = np.array([-0.196, 0, 0.196])
    assert_allclose(hardness_quantiles(one_gaussian(0.5), levels)[0], np.tanh(0.5 + scores),
                    atol=1e-4)
    assert_allclose(variability_quantiles(one_gaussian(-1.0), levels)[0], 10 ** (scores - 1),
                    rtol=1e-3)
    parameters = parameter_quantiles(one_gaussian(1.5), levels)
    assert list(parameters) == list(PARAMETERS)
    assert_allclose(parameters["photon_index"][0], 1.5 + scores, rtol=1e-4)
    for name in ("kT", "n_h", "timescale"):  # known in dex
        assert_allclose(parameters[name][0], 10 ** (1.5 + scores), rtol=1e-3)
    spectrum = spectrum_quantiles(one_gaussian(3.0), levels)
    assert spectrum.shape == (1, 20, 3)
    assert_allclose(spectrum[0, 7], (3 + scores) ** 2, rtol=1e-3)
    assert spectrum_quantiles(one_gaussian(-1.0), levels).max() == 0
    # A hardness ratio next to one is not told from it.
    assert hardness_quantiles(one_gaussian(4.9), levels)[0, 2] == 1
    assert hardness_quantiles(one_gaussian(-4.9), levels)[0, 0] == -1


def test_draws_of_a_spectrum_keep_their_ranks():
    drawn = np.random.default_rng(0).gamma(3, size=(500, 20))
    found = spectrum_at_ranks(one_gaussian(5.0, sd=0.3), drawn)
    assert found.shape == (500, 20)
    assert_array_equal(found.argsort(axis=0), drawn.argsort(axis=0))
    assert_allclose(np.sqrt(found).mean(axis=0), 5, atol=0.01)
    assert_allclose(np.sqrt(found).std(axis=0), 0.3, atol=0.01)


def test_it_learns_which_measurement_is_right():
    """The first of three is right where a number says so, else the second."""
    rng = np.random.default_rng(0)

    def make(model, number):
        n = 400
        true = rng.normal(size=(6, n))
        spectrum = rng.gamma(5, 5, size=(n, 20))
        about = rng.normal(size=(n, N_ABOUT)).astype(np.float32)
        centre, roots = rng.normal(size=(n, 6, 3)), rng.uniform(1, 9, size=(n, 20, 3))
        first = about[:, 7] > 0
        for where, k in ((first, 0), (~first, 1)):
            centre[where, :, k] = true[:, where].T
            roots[where, :, k] = np.sqrt(spectrum[where])
        found = Measured(*map(torch.as_tensor, (
            centre, np.full_like(centre, 0.1), about, roots, rng.normal(size=(n, 20, 9)))))
        names = ("hardness", "fractional_variability", *PARAMETERS)
        made = examples(found, dict(zip(names, (np.tanh(true[0]), *true[1:]))), spectrum)
        return {name: x.astype(np.float32) for name, x in made.items()}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Quantities()
    learned = Measurements(sa.PoissonAutodecoder(), torch.nn.ModuleDict(), make, 3000, None, False)
    learned.start(network)
    assert learned.gain(network) == pytest.approx(0, abs=0.05)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(150):
        optimiser.zero_grad()
        learned.loss(network, learned.draw(256, np.random.default_rng(step))).backward()
        optimiser.step()
    # Of each quantity a factor of three in the weight, and narrower peaks.
    assert learned.gain(network) > 7 * np.log(3)


def test_the_effective_area_counts():
    """What a column density is told by the spectrum and the area of the camera alone."""
    found = empty(2)
    area = found.in_channel.clone()
    area[1, :, 8] = torch.linspace(-2, 0, 20)
    network = Quantities()
    torch.nn.init.normal_(network.of_source.outputs.weight)
    with torch.no_grad():
        found = network(found._replace(in_channel=area))
    assert not torch.allclose(found.n_h.mean[0], found.n_h.mean[1])


def test_examples_hold_the_truth_on_the_scale_of_the_posterior():
    targets = {name: np.array([-1.0, 0.5, 1.0]) for name in TARGETS}
    made = examples(empty(3), targets | {"kT": np.array([-3.0, np.nan, 0.2])},
                    np.full((3, 20), 4.0))
    assert_allclose(made["true_hardness"], [-4.95, np.arctanh(0.5), 4.95], atol=0.01)
    assert_allclose(made["true_variability"], [-1.0, 0.5, 1.0])
    assert_allclose(made["true_kT"], [-3.0, np.nan, 0.2])
    assert_array_equal(made["true_roots"], 2)
    assert all(x.dtype == np.float32 for x in made.values())


def test_an_unknown_truth_is_not_learned_from():
    unknown = {f"true_{name}": torch.full((2,), torch.nan) for name in Posteriors._fields}
    unknown["true_roots"] = torch.full((2, 20), torch.nan)
    assert Measurements.loss(None, Quantities(), empty(2)._asdict() | unknown) == 0


# -- the bundled model ----------------------------------------------------------------------------

@pytest.mark.parametrize("n", [2_000, 100_000])
def test_many_photons_over_a_known_background_give_the_hardness_of_counts(model, n):
    """Within twice the error of Poisson statistics, and about as sure.

    Somewhat surer, since the spectrum in twenty channels tells more than two bands.
    """
    missed, widths = [], []
    for seed in range(8):
        photons = observed(np.full(512, n / 512), 0.3, n / 10, seed)
        low, middle, high = model.quantiles(photons, [0.16, 0.5, 0.84])["hardness"][0]
        error = 2 * np.sqrt(0.3 * 0.7 / n) * 1.15  # and that of the background
        missed.append((middle - (0.3 - 0.7)) / error)
        widths.append((high - low) / 2 / error)
    assert np.sqrt(np.mean(np.square(missed))) < 1.7
    assert 0.65 < np.mean(widths) < 1.8


def test_intervals_of_the_hardness_of_many_photons_hold_it(model):
    population = simulate_population(400, seed=12, counts=(1000, 3000), summaries=0)
    truth = np.asarray(population.truth["hardness"], float)
    low, lower, upper, high = model.quantiles(
        population.photons, [0.025, 0.16, 0.84, 0.975])["hardness"].T
    known = np.isfinite(truth)
    inside = [np.mean((a <= truth)[known] & (truth <= b)[known])
              for a, b in ((lower, upper), (low, high))]
    assert 0.61 < inside[0] < 0.75 and inside[1] > 0.92  # three errors


def test_an_embedding_says_what_the_model_does(model):
    events = simulate_population(2, seed=8, counts="bright", summaries=0,
                                 instruments=["ACIS-S"]).event_lists
    found = model.quantiles(Photons.from_events(events), [0.16, 0.5, 0.84])
    for i, one in enumerate(events):
        embedding = sa.embed(one)
        for name in ("hardness", "fractional_variability"):
            middle, low, high = getattr(embedding, name)()
            assert_allclose([low, middle, high], found[name][i], rtol=1e-3, atol=1e-5)
        low, high = np.quantile(embedding._drawn_spectra(300, 0), [0.16, 0.84], axis=0)
        assert_allclose(np.sqrt([low, high]), np.sqrt(found["spectrum"][i, :, [0, 2]]), atol=0.02)


def test_next_to_no_photons_leave_the_hardness_open(model):
    low, high = model.quantiles(observed(np.zeros(512), 0.3), [0.025, 0.975])["hardness"][0]
    assert high - low > 1


def test_the_spectrum_of_many_photons_is_known_as_their_counts_say(model):
    population = simulate_population(12, seed=4, counts=(2e4, 5e4), summaries=0)
    low, middle, high = np.moveaxis(model.quantiles(population.photons, [0.16, 0.5, 0.84])[
        "spectrum"], 2, 0)
    truth = population.true_spectra()
    bright = truth > 500
    missed = np.abs(np.sqrt(middle) - np.sqrt(truth))[bright]
    assert np.sqrt(np.mean(missed**2)) < 0.6  # Poisson noise is a half
    assert 0.5 < ((low < truth) & (truth < high))[bright].mean() < 0.85


def test_the_rate_in_an_energy_range_is_as_uncertain_as_the_spectrum(model):
    events = simulate_population(1, seed=9, counts=(200, 300), summaries=0,
                                 instruments=["ACIS-S"]).event_lists[0]
    embedding = sa.embed(events)
    hard = np.zeros(20)
    hard[10:19] = 1
    seconds = np.repeat(embedding.photons.exposed[0] * embedding.photons.duration[0] / 4096, 8)
    in_time = embedding._drawn_rates(300, 0, hard) @ seconds
    in_energy = embedding._drawn_spectra(300, 0) @ hard
    assert np.corrcoef(in_time, in_energy)[0, 1] > 0.8
    assert 0.7 < np.log(in_time).std() / np.log(in_energy).std() < 1.4
