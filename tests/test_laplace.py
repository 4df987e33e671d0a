"""The autodecoder without an encoder, and the Laplace posterior of its latents."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small_sources import sources

from stingray_align import PoissonAutodecoder, embed
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
