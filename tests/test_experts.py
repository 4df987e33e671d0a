"""The experts: what each sees, how they are weighed, and a spectrum that follows the rate."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_sources import sources

from stingray_align import PoissonAutodecoder
from stingray_align.autodecoder import experts, prepared
from stingray_align.autodecoder.batch import make_batch
from stingray_align.autodecoder.cox import N_SUMMARY, CoxProcess
from stingray_align.autodecoder.decoder import Shape
from stingray_align.autodecoder.experts import (
    Evidence, Experts, gather_evidence, in_bins, on_fine, split)
from stingray_align.autodecoder.likelihood import total_log_rate
from stingray_align.autodecoder.prepared import Weighed, examples, experts_loss
from stingray_align.autodecoder.spectrum import spectrum_with_rate


@pytest.fixture(scope="module")
def model():
    model = PoissonAutodecoder(n_latent=6, n_hidden=32, n_rank=2)
    model.networks_ = model._build().eval()
    return model


@pytest.fixture(scope="module")
def photons():
    return sources(5, n_photons=(20, 300), background=True)


@pytest.fixture(scope="module")
def evidence(model, photons):
    inferred = model.infer(photons)
    found = gather_evidence(inferred, model.encode(inferred), model.networks_["refinement"])[1]
    return Evidence(*(x.clone() for x in found))


def mean_over_exposure(log_rate, exposed):
    rate = torch.exp(log_rate).unflatten(-1, (512, 8)).mean(dim=-1)
    return (rate * exposed).sum(dim=-1) / exposed.sum(dim=-1)


# -- the Cox process as an expert -----------------------------------------------------------------

def cox(rate, n, seed=0):
    rng = np.random.default_rng(seed)
    at = (np.arange(4096) + 0.5) / 4096
    expected = rate(at) * np.ones(4096)
    return CoxProcess(rng.poisson(n * expected / expected.sum()).astype(float), np.ones(512))


def test_the_summary_tells_kinds_of_variability_apart():
    constant = cox(lambda t: 1.0, 500, seed=1)
    flare = cox(lambda t: 1 + 8 * np.exp(-0.5 * ((t - 0.4) / 0.05) ** 2), 500)
    pulsed = cox(lambda t: 1 + 0.9 * np.sin(2 * np.pi * 311 * t), 500)
    summaries = [fit.summary for fit in (constant, flare, pulsed)]
    assert all(len(s) == N_SUMMARY and np.isfinite(s).all() for s in summaries)
    assert [np.argmax(s[:4]) for s in summaries] == [0, 1, 3]
    assert summaries[2][-1] == pytest.approx(np.log1p(311), abs=0.01)


def test_without_periods_nothing_is_periodic():
    fit = cox(lambda t: 1 + 0.9 * np.sin(2 * np.pi * 311 * t), 2000)
    swing = np.ptp(np.log(fit.shape).reshape(512, 8), axis=1).mean()
    assert swing > 1.5 and np.ptp(np.log(fit.aperiodic).reshape(512, 8), axis=1).mean() < 0.8
    assert_allclose([fit.shape.mean(), fit.aperiodic.mean()], 1)


def test_the_deviation_is_that_of_its_draws():
    fit = cox(lambda t: 1 + 5 * (t > 0.5), 300)
    drawn = np.log(fit.drawn(3000, np.random.default_rng(0))).reshape(3000, 512, 8).mean(axis=2)
    # Draws are over their mean, which the deviation is not.
    assert_allclose(fit.deviation[50:450], drawn.std(axis=0)[50:450], rtol=0.3)
    assert (cox(lambda t: 1 + 5 * (t > 0.5), 5000).deviation[::50] < fit.deviation[::50]).all()


# -- how they are weighed -------------------------------------------------------------------------

def test_every_estimate_has_a_mean_of_one(evidence):
    found = mean_over_exposure(evidence.curves, evidence.exposed[:, None])
    assert_allclose(found, torch.ones(5, 6), rtol=1e-4)


def test_inside_bins_exposed_in_part_every_estimate_is_even(evidence):
    part = evidence.exposed < 0.999
    assert part.any() and not part.all()
    bins = evidence.curves.unflatten(2, (512, 8)).transpose(1, 2)[part]
    assert_allclose(bins, bins[:, :, :1].expand_as(bins), atol=1e-5)


def test_equal_estimates_are_the_result(evidence):
    torch.manual_seed(0)
    network = Experts(32)
    torch.nn.init.normal_(network.weights.outputs.weight, std=0.3)
    with torch.no_grad():
        network.weights.outputs.bias.view(experts.N_POOLS, -1)[:, 0] = -50  # no constant
        one = evidence.curves[:, 3:4]
        log_rate, _ = network(evidence._replace(curves=one.expand(-1, 6, -1)))
        assert_allclose(log_rate, one[:, 0], atol=1e-3)
        log_rate, intervals = network(evidence)
    assert_allclose(mean_over_exposure(log_rate, evidence.exposed), torch.ones(5), rtol=1e-4)
    low, high = evidence.curves.aminmax(dim=1)
    offset = log_rate - torch.minimum(low, torch.zeros(()))
    assert offset.min() > -2 and (log_rate - high.clamp(min=0)).max() < 2
    assert intervals.shape == (5, 128, 9)


def test_splitting_keeps_the_total_rate(photons):
    batch = make_batch(photons)
    flat = Shape(torch.zeros(5, 512), torch.zeros(5, 20), torch.zeros(5, 128), torch.zeros(5, 20))
    log_rate = 0.1 * torch.randn(5, 4096, generator=torch.Generator().manual_seed(0))
    log_rate = experts._mean_one(log_rate, batch.exposed)
    shape, fine = split(log_rate, flat, batch)
    assert_allclose(total_log_rate(shape, batch), in_bins(log_rate), atol=1e-4)
    assert_allclose(on_fine(total_log_rate(shape, batch)) + fine, log_rate, atol=1e-4)
    # Also below a background that is known, where the source keeps a little.
    deep = torch.where(torch.arange(4096) < 1000, -6.0, log_rate)
    shape, fine = split(deep, flat, batch)
    assert (shape.g > -12).all()
    assert_allclose(on_fine(total_log_rate(shape, batch)) + fine, deep, atol=1e-4)


# -- a spectrum that follows the rate -------------------------------------------------------------

def coloured(n_photons, hard_in_flare, seed=0):
    """One source with a flare; how hard its photons are depends on whether it flares."""
    rng = np.random.default_rng(seed)
    photons = sources(1).replace(exposed=np.ones((1, 512), np.float32),
                                 offsets=np.array([0, n_photons]))
    flare = rng.random(n_photons) < 0.5
    phase = np.where(flare, rng.uniform(0.4, 0.45, n_photons), rng.random(n_photons))
    hard = rng.random(n_photons) < np.where(flare, hard_in_flare, 0.5)
    channel = np.where(hard, rng.integers(10, 19, n_photons), rng.integers(0, 6, n_photons))
    photons = photons.replace(phase=phase.astype(np.float32), channel=channel.astype(np.uint8))
    batch = make_batch(photons)
    rate = torch.full((1, 512), 0.5)
    rate[:, 205:230] = 10.0
    spectrum = torch.log(torch.tensor([6 * [0.5 / 6] + 4 * [1e-6] + 9 * [0.5 / 9] + [1e-6]]))
    shape = Shape(torch.log(rate), spectrum, torch.zeros(1, 128), torch.zeros(1, 20))
    found = spectrum_with_rate(shape, torch.zeros(1, 4096), batch)
    share = torch.exp(found.log_energy)[0, :, 10:19].sum(dim=1)
    return share[54].item(), share[10].item()


def test_a_spectrum_follows_the_rate_as_far_as_the_photons_ask_for_it():
    flare, quiet = coloured(4000, 0.8)
    assert flare == pytest.approx(0.77, abs=0.05) and quiet == pytest.approx(0.5, abs=0.06)
    flare, quiet = coloured(4000, 0.5)
    assert flare == pytest.approx(0.5, abs=0.04) and quiet == pytest.approx(0.5, abs=0.04)
    flare, _ = coloured(3, 1.0)
    assert abs(flare - 0.5) < 0.06  # three photons ask for nothing


# -- training -------------------------------------------------------------------------------------

def test_prepared_sources_are_made_once(model, photons, tmp_path):
    calls = []

    def make(model, number):
        calls.append(number)
        shown, others = photons.thin(0.5, np.random.default_rng(number))
        return examples(model, shown, others, None)

    settings = model, model.networks_, make, 5, tmp_path / "prepared", False
    first, again = Weighed(*settings), Weighed(*settings)
    assert calls == [0]
    for name, array in first.arrays.items():
        assert_array_equal(array, again.arrays[name])
    assert (first.arrays["importance"] == 1).all()  # without truth there is one kind
    assert np.isfinite(first.gain(model.networks_["experts"]))


def test_rare_kinds_weigh_more_in_the_intervals(model, photons):
    kind = np.repeat(np.arange(2, dtype=np.uint8), (90, 10))
    weight = prepared._importance(kind)
    assert weight.mean() == pytest.approx(1)
    assert weight[-1] / weight[0] == pytest.approx(9 ** prepared.BALANCE)
    shown, others = photons.thin(0.5, np.random.default_rng(0))
    one = {name: torch.as_tensor(array.astype(np.float32)) for name, array in
           examples(model, shown, others, None).items()}
    one["true"] = torch.zeros_like(one["true"])  # the first source is missed by more than the rest
    one["true"][0] = 3.0

    def loss(of_first):
        importance = torch.ones(5)
        importance[0] = of_first
        return experts_loss(lambda _: (torch.zeros(5, 4096), torch.zeros(5, 128, 9)),
                            one | {"importance": importance})
    assert loss(2.0) > loss(1.0) > loss(0.5)


def test_the_loss_is_least_for_the_truth(model, photons):
    shown, others = photons.thin(0.5, np.random.default_rng(0))
    one = {name: torch.as_tensor(array.astype(np.float32)) for name, array in
           examples(model, shown, others, None).items()} | {"importance": torch.ones(5)}
    truth = torch.log(one["target"] / one["exposed"].clamp(min=1e-3) + 1e-3)
    truth = experts._mean_one(on_fine(truth), one["exposed"])
    one["others"] *= 0  # inside the bins nothing is known

    def loss(curve):
        def network(_):
            return curve, torch.zeros(len(curve), 128, 9)
        return experts_loss(network, one)

    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        other = truth + 0.2 * on_fine(torch.randn(5, 512, generator=generator))
        assert loss(truth) < loss(experts._mean_one(other, one["exposed"]))
