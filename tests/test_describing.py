"""Descriptors from everything that the first pass found, and how they are learned."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_sources import sources

import stingray_align as sa
from stingray_align.autodecoder import describing
from stingray_align.autodecoder.batch import make_batch
from stingray_align.autodecoder.describing import Described, Describer, energies, examples
from stingray_align.autodecoder.descriptors import (
    DESCRIPTORS, N_DESCRIPTORS, TIME_SHAPES, descriptor_loss, descriptors)
from stingray_align.autodecoder.readouts import N_READOUTS, feature_names, readouts
from stingray_align.datasets.stream import TARGETS, simulate_with_truth
from stingray_align.photons import N_CHANNELS


@pytest.fixture(scope="module")
def model():
    model = sa.PoissonAutodecoder(n_latent=6, n_hidden=32, n_rank=2)
    model.networks_ = model._build().eval()
    return model


def test_untrained_it_knows_the_population_and_no_more(model):
    inferred = model.infer(sources(4))
    found = dict(zip(DESCRIPTORS, model.describe(inferred, readouts(inferred)).T.numpy()))
    assert_allclose(found["estimated_photon_index"], 1.8)
    assert_allclose(found["spread_log_n_h"], 0)
    assert_allclose(found["log_probability_eclipses"], -np.log(len(TIME_SHAPES)), rtol=1e-6)


def test_energies_are_shares_of_photons_area_and_background():
    batch = make_batch(sources(3, n_photons=(200, 300), background=True))
    shares, unfolded, area, background = energies(batch).split(N_CHANNELS, dim=1)
    assert_allclose((shares**2 / 9).sum(dim=1), 1, rtol=1e-5)
    assert_array_equal(area, batch.log_area)
    assert_allclose((background**2 / 9).sum(dim=1), batch.background_fraction, rtol=1e-5)
    source_spectrum = torch.exp(unfolded + area)
    assert_allclose(source_spectrum.sum(dim=1), 1, rtol=1e-5)


def test_vectors_hold_its_descriptors_and_draws_the_same_ones():
    model = sa.PoissonAutodecoder.pretrained()
    photons = sources(3)
    inferred = model.infer(photons)
    own = model.describe(inferred, readouts(inferred)).numpy()
    assert np.abs(own - descriptors(inferred.guessed).numpy()).max() > 0.05
    at = [feature_names(model.n_latent).index(name) for name in DESCRIPTORS]
    assert_allclose(sa.autodecoder.embed_vectors(photons, model)[:, at], own, atol=1e-4)
    draws = sa.autodecoder.draw_vectors(photons, 2, model)
    assert_allclose(draws[:, 0][:, at], own, atol=1e-4)
    assert_allclose(draws[:, 1][:, at], own, atol=1e-4)


def test_examples_are_what_it_reads_and_what_is_true(model):
    photons, truth = simulate_with_truth(11, 0)
    photons, truth = photons[:20], truth[np.arange(20)]
    inferred = model.infer(photons)
    made = examples(inferred, truth)
    assert made["readouts"].shape == (20, N_READOUTS)
    given = [torch.as_tensor(made[name].astype(np.float32))
             for name in ("hidden", "energies", "readouts")]
    with torch.no_grad():
        again = descriptors(model.networks_["describer"](*given))
    assert_allclose(again, model.describe(inferred, readouts(inferred)), atol=1e-2)
    assert_array_equal(made["targets"], truth.targets)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_weighs_each_number_by_its_variance(beta):
    """The gradient of a mean is its error over the variance to the power of one minus beta."""
    raw = torch.zeros(2, N_DESCRIPTORS)
    raw[:, 7] = torch.tensor([0.3, -1.2])  # log spreads of the first parameter
    raw.requires_grad_()
    targets = torch.full((2, len(TARGETS)), torch.nan)
    targets[:, 0] = descriptors(torch.zeros(2, N_DESCRIPTORS))[:, 0] + 0.8 * 0.5
    descriptor_loss(raw, targets, torch.zeros(2, dtype=torch.int64), beta).backward()
    variance = torch.exp(2 * raw[:, 7].detach())
    assert_allclose(raw.grad[:, 0], -0.5 / variance ** (1 - beta) / 2, rtol=1e-5)


def test_it_learns_what_can_be_known():
    """Absorption is told by the energies, the kind of variability by nothing."""
    rng = np.random.default_rng(0)
    n, at = 3000, list(TARGETS).index("n_h")

    def make(model, number):
        made = {"hidden": rng.normal(size=(n, 16)), "energies": rng.normal(size=(n, 80)),
                "readouts": 50 + 1000 * rng.normal(size=(n, N_READOUTS))}
        made = {name: array.astype(np.float16) for name, array in made.items()}
        targets = np.full((n, len(TARGETS)), np.nan, np.float32)
        targets[:, at] = -0.8 + 0.8 * made["energies"][:, 3]
        return made | {"targets": targets, "time_shape": rng.integers(0, 2, n).astype(np.uint8)}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        describer = Describer(16)
    learned = Described(sa.PoissonAutodecoder(), torch.nn.ModuleDict(), make, 5, None, False)
    learned.start(describer)
    assert_allclose(describer.standardised.centre, 50, atol=150)
    assert_allclose(describer.standardised.spread, 1000, rtol=0.1)
    before = learned.gain(describer)
    assert before == 0
    optimiser = torch.optim.Adam(describer.parameters(), lr=3e-3)
    for step in range(400):
        optimiser.zero_grad()
        learned.loss(describer, learned.draw(256, np.random.default_rng(step))).backward()
        optimiser.step()
    # All there is to learn of the kind is that two of thirteen occur.
    of_kind = np.log(len(TIME_SHAPES) / 2)
    assert of_kind + 1 < learned.gain(describer) < of_kind + 5
    assert describing.BETA == 0.5


def test_both_views_of_a_source_are_learned_from_or_neither():
    def make(model, number):
        return {"readouts": np.arange(58).repeat(2)[:, None]}

    learned = Described(sa.PoissonAutodecoder(), torch.nn.ModuleDict(), make, 5, None, False)
    trained = set(learned.arrays["readouts"][:learned.n_trained, 0])
    held_out = {int(x) for one in learned.held_out(7) for x in one["readouts"][:, 0]}
    assert held_out and not trained & held_out and len(trained | held_out) == 58
