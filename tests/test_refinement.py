"""The refinement: what it may change, what it must keep, and what it reads from the photons."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_sources import every_cell, sources

from stingray_align import PoissonAutodecoder
from stingray_align.autodecoder.batch import fine_counts, make_batch
from stingray_align.autodecoder.decoder import Decoder
from stingray_align.autodecoder.likelihood import log_density, log_likelihood
from stingray_align.autodecoder.model import cell_rates
from stingray_align.autodecoder.refinement import SUB, Refined, Spread, SubBins, _likelihood_scores
from stingray_align.photons import N_FINE_BINS, N_TIME_BINS


def randomised(network, scale=0.3, seed=0):
    """Give every weight that starts at zero, or next to it, something to do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.abs().max() < 0.02:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def model():
    model = PoissonAutodecoder(n_latent=6, n_hidden=32, n_rank=2)
    model.networks_ = randomised(model._build(), 0.1).eval()
    return model


@pytest.fixture(scope="module")
def photons():
    return sources(9, background=True)


# -- inside a time bin ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def sub_bins():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomised(SubBins())


def test_fine_counts_are_the_photons(photons):
    fine = fine_counts(photons)
    assert fine.shape == (9, N_FINE_BINS)
    assert_array_equal(fine.reshape(9, N_TIME_BINS, SUB).sum(dim=2),
                       photons.counts().sum(axis=2))


def test_sub_bins_keep_the_mean_of_their_bin_and_leave_empty_ones_alone(sub_bins, photons):
    fine = fine_counts(photons)
    with torch.no_grad():
        logs = sub_bins(fine, torch.randn(9, N_TIME_BINS), torch.randn(9))
    density = logs.exp().reshape(9, N_TIME_BINS, SUB)
    assert_allclose(density.mean(dim=2), 1, rtol=1e-5)
    occupied = fine.reshape(density.shape).sum(dim=2) > 0
    around = torch.nn.functional.max_pool1d(occupied[:, None].float(), 3, 1, 1)[:, 0] > 0
    assert (logs.reshape(density.shape)[~around] == 0).all() and (~around).any()
    assert density[occupied].std() > 0.05


def test_sub_bins_start_flat_and_see_the_neighbours_only():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = SubBins()
    fine = torch.zeros(1, N_FINE_BINS)
    fine[0, [80, 83, 2000]] = 2
    rate, mean = torch.zeros(1, N_TIME_BINS), torch.zeros(1)
    with torch.no_grad():
        assert fresh(fine, rate, mean).abs().max() < 1e-6
        network = randomised(fresh)
        before = network(fine, rate, mean)
        fine[0, 2010] += 5  # in the bin after that of 2000
        after = network(fine, rate, mean)
    moved = (before != after).reshape(N_TIME_BINS, SUB).any(dim=1).nonzero()[:, 0]
    assert moved.min() >= 2000 // SUB - 1 and moved.max() <= 2010 // SUB + 1
    assert 2000 // SUB in moved


def test_sub_bins_of_no_photons_at_all(sub_bins):
    with torch.no_grad():
        logs = sub_bins(torch.zeros(2, N_FINE_BINS), torch.zeros(2, N_TIME_BINS), torch.zeros(2))
    assert_array_equal(logs, torch.zeros(2, N_FINE_BINS))


# -- what the refinement reads --------------------------------------------------------------------

@pytest.fixture(scope="module")
def decoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomised(Decoder(6, 32))


@torch.no_grad()
def with_expected_photons(batch, shape):
    """The same observations with exactly the photons that a shape expects in each cell."""
    cells = every_cell(len(batch.exposed))
    density = log_density(shape, batch, cells)[0].exp()
    counts = density * batch.n_photons[cells.source]
    return replace(batch, cells=replace(cells, counts=counts))


def test_scores_of_the_likelihood_vanish_at_the_truth(decoder):
    batch = make_batch(sources(6, n_photons=(200, 400), background=True))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        true, other = (decoder(torch.randn(6, 6, generator=generator), batch.log_area)
                       for _ in range(2))
    expected = with_expected_photons(batch, true)
    assert _likelihood_scores(true, expected)[:, :-1].abs().max() < 2e-3
    assert _likelihood_scores(other, expected)[:, :-1].abs().max() > 1


def test_scores_are_the_gradient_of_the_likelihood(decoder):
    """Signs and places, by automatic differentiation in the decoder's outputs."""
    batch = make_batch(sources(4, n_photons=(200, 400)))  # no background: source share one
    shape = decoder(torch.randn(4, 6), batch.log_area)
    for head in (shape.g, shape.s, shape.u, shape.v):
        head.retain_grad()
    log_likelihood(shape, batch, batch.cells).sum().backward()
    scores = _likelihood_scores(shape, batch)
    in_time, along_v, spectrum, along_u, _ = scores.split([256, 64, 20, 20, 1], dim=1)
    with torch.no_grad():
        expected = shape.log_time(batch.exposed).exp() * batch.n_photons[:, None]
        coarse = batch.per_bin.reshape(4, 64, -1).sum(dim=2)
        noise = torch.sqrt(batch.n_photons + 1)[:, None]
        g = shape.g.grad.reshape(4, 256, -1).sum(dim=2)
        g = g / torch.sqrt(expected.reshape(4, 256, -1).sum(dim=2) + 1)
        u = shape.u.grad.reshape(4, 64, -1).sum(dim=2) / torch.sqrt(coarse + 1)
    for found, exact in ((in_time, g), (along_v, u), (spectrum, shape.s.grad / noise),
                         (along_u, shape.v.grad / noise)):
        assert_allclose(found.sinh(), exact, rtol=1e-3, atol=1e-3)


# -- what it gives --------------------------------------------------------------------------------

def test_shapes_of_what_it_finds(model, photons):
    inferred = model.infer(photons)
    refined = model.refine(inferred)
    assert isinstance(refined, Refined)
    assert refined.latent.shape == (9, 6)
    assert refined.shape.g.shape == refined.decoded.g.shape == (9, N_TIME_BINS)
    assert refined.log_rate_intervals.shape == (9, N_TIME_BINS // 4, 9)
    assert refined.fine.shape == (9, N_FINE_BINS)
    assert model.band_rates(photons).shape == (9, N_FINE_BINS, 3)
    assert model.first_pass_rates(photons).shape == (9, N_TIME_BINS, 3)
    assert (refined.shape.g != refined.decoded.g).any()


@pytest.mark.parametrize("passes", ["first", "refined"])
def test_rates_integrate_to_the_photons(model, photons, passes):
    inferred = model.infer(photons)
    if passes == "first":
        rates = cell_rates(inferred.batch, inferred.shape).double().numpy()
    else:
        refined = model.refine(inferred)
        rates = cell_rates(inferred.batch, refined.shape,
                           model.quantities(inferred, refined)).double().numpy()
    seconds = photons.exposed * photons.duration[:, None] / N_TIME_BINS
    assert_allclose(np.einsum("nte,nt->n", rates, seconds), photons.n_photons + 0.5, rtol=1e-3)
    bands = model.first_pass_rates(photons) if passes == "first" else model.band_rates(photons)
    below_7_kev = np.einsum("nte,nt->n", rates[:, :, :19], seconds)
    finer = bands.shape[1] // N_TIME_BINS
    seconds = np.repeat(seconds / finer, finer, axis=1)
    # Pulsations keep the total, not the total of each band.
    rtol = 1e-4 if passes == "first" else 0.1
    assert_allclose(np.einsum("ntb,nt->n", bands, seconds), below_7_kev, rtol=rtol)


def test_rates_do_not_depend_on_the_other_sources(model, photons):
    together = model.band_rates(photons)
    for i in (0, 4):
        assert_allclose(model.band_rates(photons[i]), together[i:i + 1], rtol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 100_000])
def test_any_number_of_photons_gives_finite_rates(model, count):
    photons = sources(3, n_photons=(count, count + 1), background=True)
    rates = model.band_rates(photons)
    assert np.isfinite(rates).all() and (rates > 0).all()


def test_the_same_latent_through_two_instruments_has_spectra_in_the_ratio_of_the_areas(decoder):
    first, second = (make_batch(sources(2, instrument=name)) for name in ("ACIS-S", "EPIC-pn"))
    z = torch.randn(2, 6)
    with torch.no_grad():
        one, other = decoder(z, first.log_area), decoder(z, second.log_area)
    ratio = (other.log_energy - one.log_energy).exp()
    area = (second.log_area - first.log_area).exp()[:, None]
    assert area.max() > 1.5 * area.min()
    relative = ratio / area
    assert_allclose(relative / relative[:, :, :1], 1, rtol=1e-4)
    assert_array_equal(one.g, other.g)
    assert_allclose(first.log_area.exp().mean(dim=1), 1, rtol=1e-5)


# -- the latent's posterior -----------------------------------------------------------------------

def test_covariance_of_the_posterior_is_that_of_its_draws(model):
    photons = sources(1, n_photons=(100, 101))
    inferred = model.infer(photons)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        spread = Spread(6, 32, 2).eval()
        torch.nn.init.normal_(spread.factor.weight, std=0.3)
    with torch.no_grad():
        posterior = spread(model.refine(inferred), inferred.batch)
    many = type(posterior)(*(x.expand(40_000, *x.shape[1:]) for x in posterior))
    draws = many.draw(torch.Generator().manual_seed(0)).numpy()
    exact = posterior.covariance()[0].numpy()
    assert np.linalg.eigvalsh(exact).min() > 0
    assert_allclose(np.cov(draws.T), exact, atol=0.04 * np.abs(exact).max())
    assert_allclose(draws.mean(axis=0), posterior.mean[0], atol=0.03 * exact.max() ** 0.5)


# -- the bundled model, for its sanity only -------------------------------------------------------

def test_the_bundled_model_is_sane(photons):
    model = PoissonAutodecoder.pretrained()
    rates = model.band_rates(photons)
    assert np.isfinite(rates).all() and (rates > 0).all()
    found = model.quantiles(photons, [0.16, 0.5, 0.84])
    for value in found.values():
        assert np.isfinite(value).all() and (np.diff(value, axis=-1) > 0).all()
