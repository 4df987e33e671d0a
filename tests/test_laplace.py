"""The autodecoder without an encoder, and the Laplace posterior of its latents."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small_sources import sources

from stingray_align import EventList, PoissonAutodecoder, embed
from stingray_align.autodecoder.batch import make_batch
from stingray_align.autodecoder.laplace import laplace
from stingray_align.autodecoder.latents import optimise_latents
from stingray_align.errors import ModelFileError


@pytest.fixture(scope="module")
def without_encoder():
    model = PoissonAutodecoder(n_latent=3, n_hidden=16, encoder=False, n_steps=60, batch_size=20,
                               learning_rate=1e-2)
    return model.fit(sources(40, n_photons=(200, 300)), progress=False)


def test_model_without_encoder_embeds_saves_and_loads(without_encoder, tmp_path):
    from stingray_align.datasets import simulate_population

    model = without_encoder
    assert set(model.networks_) == {"decoder"}
    model.save(tmp_path / "model.safetensors")
    loaded = PoissonAutodecoder.load(tmp_path / "model.safetensors")
    assert loaded.get_params() == model.get_params() and not loaded.encoder
    photons = sources(5, seed=4)
    rates = loaded.band_rates(photons)
    assert_allclose(rates, model.band_rates(photons), rtol=0.05)
    events = simulate_population(1, seed=2, counts="bright", summaries=0,
                                 instruments="ACIS-S").event_lists[0]
    found = embed(events, loaded)
    assert np.isfinite(found.vector).all() and found.latent.shape == (3,)
    assert np.linalg.eigvalsh(found.covariance).min() > 0
    times = np.linspace(found.start, found.stop, 30)
    low, high = found.rate_interval(times)
    assert (low < high).all() and np.isfinite(high.value).all()
    for median, lower, upper in (found.hardness(), found.fractional_variability()):
        assert lower < median < upper
    # Nobody told it the truth of anything, so it knows no physical parameters.
    assert list(found.parameters()["parameter"]) == ["hardness", "fractional_variability"]
    assert np.isfinite(found.draws(3)).all()
    with pytest.raises(ModelFileError, match="no quantiles"):
        loaded.quantiles(photons, [0.5])


def test_intervals_light_curves_and_variability_see_the_pulsations_of_the_rate(without_encoder):
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 1e4, 8000))
    wave = 1 + 0.9 * np.cos(2 * np.pi * times / 500)
    times = times[rng.random(8000) < wave / 1.9]
    found = EventList(times, energy=rng.uniform(0.5, 7, len(times)), gti=[[0, 1e4]],
                      mission="chandra", instr="ACIS-S").embed(without_encoder)
    at = np.linspace(found.start, found.stop, 4096)
    rate = found.rate(at)
    low, high = found.rate_interval(at, 0.95)
    assert rate.value.std() / rate.value.mean() == pytest.approx(0.9 / 2**0.5, rel=0.1)
    assert ((low < rate) & (rate < high)).all()
    assert found.fractional_variability()[0] == pytest.approx(0.9 / 2**0.5, rel=0.1)
    drawn = found._drawn_rates(100, 0, np.ones(20))
    assert_allclose(np.median(drawn, axis=0), found._rates.sum(axis=1), rtol=0.1)
    curve = found.to_lightcurve(50)  # as well known at the peaks as the amplitude of all
    assert (curve.counts_err < 0.2 * curve.counts).all()


def one_of(batch, i):
    return batch._rows(lambda x: x[i:i + 1])


def test_laplace_covariance_is_the_inverse_of_the_likelihoods_hessian(without_encoder):
    """At the latent that made the expected photons, the expected Hessian is exact."""
    decoder = without_encoder.networks_["decoder"].double()
    batch = make_batch(sources(2, n_photons=(250, 260)))  # the first with a gap
    latents = torch.tensor([[0.5, -1.0, 0.2], [0.0, 2.0, -0.7]])
    try:
        for i in range(2):
            exposed, area = batch.exposed[i:i + 1].double(), batch.log_area[i:i + 1].double()
            seen = (exposed > 0).nonzero()[:, 1]

            def log_density(z):
                shape = decoder(z[None], area)
                in_energy = shape.log_energy[0].repeat_interleave(4, dim=0)
                return (shape.log_time(exposed)[0, :, None] + in_energy)[seen]

            def misfit(z):
                return -(expected * log_density(z)).sum() + 0.5 * z.square().sum()

            z = latents[i].double()
            expected = batch.n_photons[i] * log_density(z).exp().detach()
            hessian = torch.autograd.functional.hessian(misfit, z)
            found = laplace(decoder.float(), latents[i:i + 1],
                            one_of(batch, i)).covariance()[0]
            decoder.double()
            assert_allclose(found, torch.linalg.inv(hessian), rtol=2e-3, atol=1e-6)
    finally:
        decoder.float()


def test_laplace_posterior_has_the_moments_of_the_sampled_one(without_encoder):
    """Importance sampling of the exact posterior of one bright source, drawn from the decoder."""
    model = without_encoder
    photons = sources(2, n_photons=(3000, 3001))[1]  # without a gap
    batch = make_batch(photons)
    shape = model.decode(torch.tensor([[0.5, -1.0, 0.2]]), batch)
    density = (shape.log_time(batch.exposed)[0, :, None]
               + shape.log_energy[0].repeat_interleave(4, dim=0)).exp().double().numpy().ravel()
    rng = np.random.default_rng(0)
    cell = np.sort(rng.choice(density.size, len(photons.phase), p=density / density.sum()))
    photons = photons.replace(phase=((cell // 20 + 0.5) / 512).astype(np.float32),
                              channel=(cell % 20).astype(np.uint8))
    batch = make_batch(photons)
    decoder = model.networks_["decoder"]
    latents = optimise_latents(decoder, photons, start=torch.zeros(3), latent_noise=0.0)
    posterior = laplace(decoder, latents, batch)
    n = 4000
    wide = torch.distributions.MultivariateNormal(
        posterior.mean[0], covariance_matrix=2 * posterior.covariance()[0])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        z = wide.sample((n,))
        in_time, in_energy = [], []
        for part in z.split(250):
            shape = model.decode(part, batch._rows(lambda x: x.expand(len(part), *x.shape[1:])))
            in_time.append(shape.log_time(batch.exposed)[:, batch.cells.in_time])
            in_energy.append(shape.log_energy.reshape(len(part), -1)[:, batch.cells.in_colour])
        value = ((torch.cat(in_time) + torch.cat(in_energy)) @ batch.cells.counts
                 - 0.5 * z.square().sum(dim=1) - wide.log_prob(z))
    weight = torch.softmax(value.double(), dim=0).numpy()
    assert 1 / (weight**2).sum() > n / 20  # enough of the samples count
    mean = weight @ z.numpy()
    covariance = np.cov(z.numpy().T, aweights=weight)
    sd = np.sqrt(np.diag(covariance))
    assert_allclose(posterior.mean[0].numpy() / sd, mean / sd, atol=0.5)
    assert_allclose(np.sqrt(np.diag(posterior.covariance()[0].numpy())), sd, rtol=0.3)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.8])
def test_a_known_background_hides_information(without_encoder, fraction):
    """Against the expected information of all cells of time and energy."""
    decoder = without_encoder.networks_["decoder"]
    batch = one_of(make_batch(sources(1, n_photons=(3000, 3001))), 0)  # with a gap
    batch.background_fraction[:] = fraction
    batch.background[:] = torch.softmax(torch.linspace(-2, 1, 20), dim=0)
    z = torch.tensor([0.5, -1.0, 0.2])

    def density(z):
        shape = decoder(z[None], batch.log_area)
        own = shape.log_time(batch.exposed)[0, :, None] + shape.log_energy[0].repeat_interleave(
            4, dim=0)
        known = (batch.exposed / batch.exposed.sum()).T * batch.background
        return ((1 - fraction) * own.exp() + fraction * known).reshape(-1)

    found = laplace(decoder, z[None], batch).covariance()[0].diagonal().sqrt()
    with torch.no_grad():
        value, slope = density(z).double(), torch.func.jacfwd(density)(z).double()
    information = batch.n_photons * slope.T @ (slope / value.clamp(min=1e-30)[:, None])
    assert_allclose(found, torch.linalg.inv(information + torch.eye(3)).diagonal().sqrt(),
                    rtol=0.01)
