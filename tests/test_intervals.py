"""Mixtures of Gaussians, and the quantiles and draws that follow from them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import gamma, norm, spearmanr
from small_sources import sources

from stingray_align import PoissonAutodecoder
from stingray_align.autodecoder.batch import fine_counts, make_batch
from stingray_align.autodecoder.decoder import Shape
from stingray_align.autodecoder import draws
from stingray_align.autodecoder.draws import drawn_log_rates
from stingray_align.autodecoder.experts import in_bins
from stingray_align.autodecoder.intervals import (
    N_COMPONENTS, mixture, mixture_loss, mixture_quantiles)
from stingray_align.autodecoder.mixtures import quantiles_of_mixtures
from stingray_align.autodecoder.likelihood import total_log_rate

LEVELS = np.array([0.01, 0.16, 0.5, 0.84, 0.99])


def raw_mixtures(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 3 * N_COMPONENTS, generator=generator)


def by_hand(raw):
    """Weights, means and spreads of one mixture."""
    weight, mean, log_sd = raw.double().numpy().reshape(3, N_COMPONENTS)
    sd = np.exp(np.clip(log_sd + [-0.5, -1.5, 0.3], -4.5, 2.0))
    return np.exp(weight - logsumexp(weight)), mean, sd


def fitted(n_latent=6, seed=0):
    """A model with random weights, every output of which depends on the photons."""
    model = PoissonAutodecoder(n_latent=n_latent, n_hidden=32, n_rank=2, seed=seed)
    model.networks_ = model._build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part, head, size in (("experts", "intervals", 0.1), ("quantities", "of_source", 0.3),
                                 ("refinement", "correction", 0.3)):
            layer = getattr(model.networks_[part], head)
            weight = getattr(layer, "outputs", layer).weight
            weight.copy_(size * torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model():
    return fitted()


# -- the mixtures ---------------------------------------------------------------------------------

def test_quantiles_invert_the_distribution_function():
    raw = raw_mixtures(20)
    levels = torch.tensor(LEVELS, dtype=torch.float32).expand(20, -1)
    found = mixture_quantiles(mixture(raw), levels)
    for i in range(20):
        weight, mean, sd = by_hand(raw[i])
        for level, value in zip(LEVELS, found[i]):
            exact = brentq(lambda x: weight @ norm.cdf((x - mean) / sd) - level, -60, 60)
            assert_allclose(value, exact, atol=1e-3)


def test_quantiles_never_fall():
    """Narrow peaks far apart, where the tolerance is wider than they are."""
    rng = np.random.default_rng(0)
    mean, sd = 300 * rng.normal(size=(200, 3)), 10.0 ** rng.uniform(-6, 2, size=(200, 3))
    levels = np.tile(np.linspace(0.001, 0.999, 999), (200, 1))
    found = quantiles_of_mixtures(rng.dirichlet(np.ones(3), 200), mean, sd, levels)
    assert (np.diff(found, axis=1) >= 0).all()


def test_quantiles_of_one_gaussian_whose_spread_is_at_its_limits():
    raw = torch.zeros(2, 3 * N_COMPONENTS)
    raw[0, -N_COMPONENTS:], raw[1, -N_COMPONENTS:] = 50.0, -50.0
    found = mixture_quantiles(mixture(raw), torch.tensor([[0.1, 0.9]]).expand(2, -1))
    assert_allclose(found[0], np.exp(2.0) * norm.ppf([0.1, 0.9]), rtol=1e-3)
    assert_allclose(found[1], np.exp(-4.5) * norm.ppf([0.1, 0.9]), rtol=1e-3)


def test_quantiles_rise_with_their_level():
    levels = torch.linspace(0.001, 0.999, 200).expand(50, -1)
    assert (mixture_quantiles(mixture(3 * raw_mixtures(50)), levels).diff(dim=1) >= 0).all()


def test_loss_is_minus_the_log_density():
    raw = raw_mixtures(30, 4)
    truth = 2 * torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    found = mixture_loss(mixture(raw), truth)
    for i in np.ndindex(30, 4):
        weight, mean, sd = by_hand(raw[i])
        exact = logsumexp(norm.logpdf(truth[i].item(), mean, sd), b=weight)
        assert_allclose(found[i], -exact, rtol=1e-4, atol=1e-4)


def test_an_unknown_truth_costs_and_teaches_nothing():
    raw = raw_mixtures(2).requires_grad_()
    loss = mixture_loss(mixture(raw), torch.tensor([0.3, torch.nan]))
    assert loss[1] == 0 and loss[0] != 0
    loss.sum().backward()
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad[1] == 0).all() and (raw.grad[0] != 0).any()


def test_components_start_at_measurements_in_units_of_their_errors():
    centre, width = torch.tensor([[0.2, -1.0, 3.0]]), torch.tensor([[1e-3, 0.1, 2.0]])
    raw = torch.tensor([[0.0, 1.0, 2.0, 0.0, 2.0, -1.0, 0.0, -0.5, 9.0]])
    log_weight, mean, log_sd = mixture(raw, centre, width)
    assert_allclose(log_weight, torch.log_softmax(raw[:, :3], dim=1))
    assert_allclose(mean, [[0.2, -0.8, 1.0]], rtol=1e-6)
    assert_allclose(log_sd, np.log([[1e-3, 0.1 * np.exp(-0.5), 2 * np.exp(2.0)]]), rtol=1e-5)


# -- draws of the rate ----------------------------------------------------------------------------

def drawn(n=3, n_draws=400, seed=0):
    """Draws of some sources, with the shapes of the draws and what the marginals say."""
    generator = torch.Generator().manual_seed(seed)
    batch = make_batch(sources(n, background=True))
    flat = torch.zeros(n, 512), torch.zeros(n, 20), torch.zeros(n, 128), torch.zeros(n, 20)
    refined = SimpleNamespace(shape=Shape(*flat), log_rate_intervals=raw_mixtures(n, 128),
                              fine=torch.zeros(n, 4096))
    # One level per stretch of four bins, common to neighbouring stretches.
    level = torch.randn(n * n_draws, 16, generator=generator).repeat_interleave(32, dim=1)
    shape = Shape(level, *(x.repeat_interleave(n_draws, dim=0) for x in flat[1:]))
    many = batch.repeated(n_draws)
    return drawn_log_rates(shape, many, refined, n_draws), shape, many, batch, refined


def rescaled(scores):
    """Scores of the mixture's quantiles that stand at some scores of a draw."""
    return scores * np.minimum(0.87 + 0.18 * (scores / 1.96) ** 2, 1.05)


def test_draws_have_the_quantiles_of_the_mixtures_rescaled(monkeypatch):
    monkeypatch.setattr(draws, "MORE_PHOTONS", 1e12)  # no upper end
    rates, _, _, batch, refined = drawn()
    offset = rates - total_log_rate(refined.shape, batch)[:, None]
    assert_array_equal(offset[:, :, ::4], offset[:, :, 3::4])  # one offset in a run
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    found = torch.quantile(offset[:, :, ::4], levels, dim=1).permute(1, 2, 0)
    expected = norm.cdf(rescaled(norm.ppf(levels)))
    for i, run in np.ndindex(3, 128):
        weight, mean, sd = by_hand(refined.log_rate_intervals[i, run])
        below = norm.cdf((found[i, run, :, None].numpy() - mean) / sd) @ weight
        assert_allclose(below, expected, atol=0.03)


def test_intervals_are_narrower_in_the_middle_and_wider_in_the_tails():
    raw = torch.zeros(1, 9)
    raw[0, :3] = torch.tensor([0.0, -50.0, -50.0])  # one component, around zero
    scores = torch.tensor([[-2.4, -1.96, -0.2, 0.0, 0.2, 1.96, 2.4, -1.0, 1.0]])
    found = draws._at_scores(draws._table(raw), scores)
    as_learned = mixture_quantiles(mixture(raw), torch.special.ndtr(scores))
    assert_allclose(found[:, 3], 0, atol=1e-3)
    assert_allclose((found / as_learned)[:, [2, 4]], 0.87, atol=0.01)
    assert_allclose((found / as_learned)[:, [0, 1, 5, 6]], 1.05, atol=0.01)
    assert_allclose((found / as_learned)[:, 7:], 0.917, atol=0.01)


def test_draws_end_where_photons_would_have_been_seen():
    rates, _, _, batch, _ = drawn()
    seen = fine_counts(batch.photons).reshape(3, 128, 32).sum(dim=2)
    exposed = batch.exposed.reshape(3, 128, 4).sum(dim=2)
    expected = (batch.n_photons + 0.5)[:, None] * exposed / exposed.sum(dim=1, keepdim=True)
    highest = torch.log((seen + 3 * seen.sqrt() + draws.MORE_PHOTONS) / expected)
    highest = highest.repeat_interleave(4, dim=1)  # infinite in gaps
    assert (rates <= highest[:, None] + 1e-5).all()
    assert (rates > highest[:, None] - 1e-5).any()


def test_quantiles_end_where_photons_would_have_been_seen():
    """A flash may fill one cell of a run, where a draw has the same rate in all of them."""
    _, _, _, batch, refined = drawn()
    refined.log_rate_intervals[:, :, 3:6] = 20.0
    rate = draws.rate_quantiles(batch, refined, [0.5, 0.9])
    cells = fine_counts(batch.photons).reshape(3, 128, 32).amax(dim=2)
    mean = (batch.n_photons + 0.5) / (batch.exposed.mean(dim=1) * 4096)
    exposed = batch.exposed.reshape(3, 128, 4).mean(dim=2)
    highest = (cells + draws.MORE_PHOTONS) / (mean[:, None] * exposed.clamp(min=1e-6)) * (
        (batch.n_photons + 0.5) / batch.exposure)[:, None]
    assert_allclose(rate[:, ::4], highest[:, :, None].expand(-1, -1, 2), rtol=1e-4)
    # Where nothing was exposed, there is no such end.
    assert (exposed == 0).any()
    assert (rate[:, ::4][exposed == 0] > 1e4 * rate[:, ::4][exposed > 0.5].max()).all()


def test_draws_have_the_ranks_of_the_latents_draws(monkeypatch):
    monkeypatch.setattr(draws, "_common", torch.ones_like)  # no short noise
    monkeypatch.setattr(draws, "MORE_PHOTONS", 1e12)  # no upper end
    rates, shape, many, _, _ = drawn(n=2)
    own = total_log_rate(shape, many).reshape(2, -1, 512)
    for i in range(2):
        for t in (2, 150, 500):
            assert spearmanr(rates[i, :, t], own[i, :, t]).statistic > 0.999
        assert spearmanr(rates[i, :, 2], rates[i, :, 30]).statistic > 0.999  # move together
        assert abs(spearmanr(rates[i, :, 2], rates[i, :, 500]).statistic) < 0.3


def test_part_of_the_scatter_is_short():
    rates, _, _, batch, refined = drawn(n=1)
    offset = (rates - total_log_rate(refined.shape, batch)[:, None])[0, :, ::4]
    scores = norm.ppf((offset.argsort(dim=0).argsort(dim=0) + 0.5) / len(offset))
    # The latents' level here is common to eight runs.
    apart = [np.mean([np.corrcoef(scores[:, 8 * k], scores[:, 8 * k + j])[0, 1]
                      for k in range(16)]) for j in (1, 4)]
    common = float(draws._common(batch.n_photons[0]))
    assert common < 0.5
    memory = float(draws._memory(batch.n_photons[0]))
    expected = [common + (1 - common) * memory ** j for j in (1, 4)]
    assert_allclose(apart, expected, atol=0.06)


def test_bright_sources_have_less_in_common():
    common = draws._common(torch.tensor([0.0, draws.COMMON_UP_TO, 1e4]))
    assert_allclose(common, [draws.COMMON, draws.COMMON / 2, 0], atol=1e-3)


def test_runs_of_bright_sources_have_more_in_common_with_the_next():
    n_photons = torch.tensor([0.0, draws.MEMORY_UP_TO, 1e6])
    memory = draws._memory(n_photons)
    assert_allclose(memory, [draws.MEMORY[0], np.mean(draws.MEMORY), draws.MEMORY[1]], atol=1e-3)
    noise = draws._short_noise(n_photons, 128, 400)
    assert_allclose(noise.std(dim=(1, 2)), 1, atol=0.02)
    for one, kept in zip(noise, memory):
        found = [(one[j:] * one[:128 - j]).mean() for j in (1, 2)]
        assert_allclose(found, [kept, kept**2], atol=0.04)


def test_without_calibrated_marginals_the_latents_draws_are_the_draws():
    _, shape, many, _, refined = drawn(n=2, n_draws=5)
    refined.log_rate_intervals = None
    assert_allclose(drawn_log_rates(shape, many, refined, 5).reshape(10, 512),
                    total_log_rate(shape, many), atol=1e-5)


def test_draws_of_a_model_are_reproducible_and_each_source_its_own(model):
    photons = sources(5)
    rates = model.drawn_rates(photons, 20, seed=3)
    assert rates.shape == (5, 20, 512) and np.isfinite(rates).all() and (rates > 0).all()
    assert_array_equal(model.drawn_rates(photons, 20, seed=3), rates)
    assert (model.drawn_rates(photons, 20, seed=4) != rates).any()
    # Each source's draws lie around its own rate, not around another one's.
    batch = model.infer(photons)
    refined = model.refine(batch)
    middle = np.median(np.log(rates), axis=1) - total_log_rate(refined.shape, batch.batch).numpy()
    middle -= in_bins(refined.fine).numpy()
    of_rate = mixture(refined.log_rate_intervals)
    exact = mixture_quantiles(of_rate, torch.full((5, 128, 1), 0.5))[:, :, 0]
    width = np.diff(mixture_quantiles(of_rate,
                                      torch.tensor([0.3, 0.7]).expand(5, 128, 2)))[:, :, 0]
    assert (np.abs(middle[:, ::4] - exact.numpy()) < width).mean() > 0.95


# -- quantiles of a model -------------------------------------------------------------------------

def test_quantiles_are_finite_ordered_and_in_their_range(model):
    photons = sources(6, background=True)
    found = model.quantiles(photons, LEVELS)
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {"rate": (6, 512, 5), "mean_rate": (6, 5), "hardness": (6, 5),
                      "fractional_variability": (6, 5), "spectrum": (6, 20, 5)}
    for value in found.values():
        assert np.isfinite(value).all() and (np.diff(value, axis=-1) >= 0).all()
    assert (found["rate"] > 0).all() and (np.abs(found["hardness"]) <= 1).all()


def test_the_mean_rate_has_the_gamma_posterior(model):
    photons = sources(6)
    exact = gamma.ppf(LEVELS, photons.n_photons[:, None] + 0.5) / photons.exposure[:, None]
    assert_allclose(model.quantiles(photons, LEVELS)["mean_rate"], exact, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_no_photons_leave_wide_intervals(model, count):
    photons = sources(3, n_photons=(count, count + 1)).replace(
        exposed=np.ones((3, 512), np.float32))
    found = model.quantiles(photons, [0.05, 0.5, 0.95])
    for value in found.values():
        assert np.isfinite(value).all()
    seen = photons.n_photons[:, None]
    assert_allclose(found["mean_rate"], gamma.ppf([0.05, 0.5, 0.95], seen + 0.5) / 2e4, rtol=1e-6)
    # At any one time at least as wide as the mean: a factor of ten and more.
    assert (found["rate"][:, :, 2] > 10 * found["rate"][:, :, 0]).all()
    levels = (np.arange(2000) + 0.5) / 2000
    mean = model.quantiles(photons[:1], levels)["mean_rate"].mean()
    assert_allclose(mean, (seen[0, 0] + 0.5) / 2e4, rtol=0.02)


def test_the_rate_at_a_time_adds_both_uncertainties(model):
    """Quantiles of the product of an independent shape and amplitude, by sampling."""
    photons = sources(1, n_photons=(4, 5))
    inferred = model.infer(photons)
    refined = model.refine(inferred)
    rng = np.random.default_rng(0)
    bins = 200
    weight, mean, sd = by_hand(refined.log_rate_intervals[0, bins // 4])
    part = rng.choice(N_COMPONENTS, 200_000, p=weight)
    offset = rng.normal(mean[part], sd[part])
    offset = np.quantile(offset, norm.cdf(rescaled(rng.normal(size=len(offset)))))
    amplitude = np.log(rng.gamma(photons.n_photons[0] + 0.5, size=len(offset)))
    levels = [0.16, 0.5, 0.84]
    exact = np.quantile(offset + amplitude, levels)
    found = np.log(model.quantiles(photons, levels)["rate"][0, bins])
    assert_allclose(np.diff(found), np.diff(exact), rtol=0.05)
