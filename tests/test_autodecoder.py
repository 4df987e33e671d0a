import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_sources import every_cell, sources

from stingray_align import PoissonAutodecoder
from stingray_align._files import write_tensors
from stingray_align.autodecoder.batch import Cells, make_batch
from stingray_align.autodecoder.decoder import Decoder, Shape
from stingray_align.autodecoder.inference import (
    KERNELS, N_FEATURES, LocalMixture, photon_features, run_means, smoothed)
from stingray_align.autodecoder.likelihood import log_density, log_likelihood
from stingray_align.autodecoder.model import VERSION
from stingray_align.errors import ModelFileError
from stingray_align.photons import N_CHANNELS, N_TIME_BINS, Photons


@pytest.fixture(scope="module")
def shape_and_batch():
    torch.manual_seed(0)
    photons = sources(background=True)
    batch = make_batch(photons)
    shape = Decoder(8, 32)(torch.randn(len(photons), 8), batch.log_area)
    return shape, batch, photons


def test_density_sums_to_one_over_the_exposed_cells(shape_and_batch):
    shape, batch, photons = shape_and_batch
    total, share = log_density(shape, batch, every_cell(len(photons)))
    total = total.exp().reshape(len(photons), N_TIME_BINS, N_CHANNELS).detach()
    assert_allclose(total.sum(dim=(1, 2)), 1, rtol=1e-4)
    assert total[0, 100:200].sum() < 1e-12  # no photon can arrive in a gap
    assert ((share >= 0) & (share <= 1 + 1e-6)).all()


def test_likelihood_equals_the_sum_over_single_photons(shape_and_batch):
    shape, batch, photons = shape_and_batch
    whole = log_likelihood(shape, batch, batch.cells)
    dense, _ = log_density(shape, batch, every_cell(len(photons)))
    dense = dense.reshape(len(photons), N_TIME_BINS, N_CHANNELS)
    by_hand = [dense[i, p.time_bin, p.channel.astype(int)].sum().item()
               for i in range(len(photons)) for p in [photons[i]]]
    assert_allclose(whole.detach(), by_hand, rtol=1e-4, atol=1e-3)


def test_gathered_cells_of_bright_sources_hold_the_same_photons():
    faint = sources(2, n_photons=(50, 60))
    bright = Photons(faint.offsets * 100, np.tile(faint.phase, 100), np.tile(faint.channel, 100),
                     faint.start, faint.duration, faint.exposed, faint.background,
                     faint.instrument)
    cells = Cells.from_photons(bright)
    assert len(cells.counts) < len(bright.phase)  # gathered
    dense = torch.zeros(2 * N_TIME_BINS).index_add(0, cells.in_time, cells.counts)
    assert_array_equal(dense.reshape(2, -1), bright.counts().sum(axis=2))


def test_kernel_estimates_follow_a_step_and_ignore_gaps():
    exposed = torch.ones(1, N_TIME_BINS)
    exposed[:, 100:180] = 0
    rate = torch.ones(1, N_TIME_BINS) * 10
    rate[:, 256:] = 40
    curves = smoothed(rate * exposed, exposed)
    relative = rate / ((rate * exposed).sum() / exposed.sum())
    for curve, width in zip(curves.logs[0].exp(), KERNELS):
        assert_allclose(curve[exposed[0] > 0][:90], relative[0, 0], rtol=0.05)
        far = 256 - 3 * max(width, 1)
        if far > 190:
            assert_allclose(curve[190:int(far)], relative[0, 0], rtol=0.05)
    constant = smoothed(exposed * 0, exposed)
    assert_array_equal(constant.scores, 0)


def test_kernel_estimates_equal_plain_convolutions():
    from scipy.ndimage import convolve1d

    def gathered(x, width):
        lag = np.arange(-5 * N_TIME_BINS // 4, 5 * N_TIME_BINS // 4 + 1)
        kernel = np.exp(-0.5 * (lag / width) ** 2)
        return torch.as_tensor(convolve1d(x.double().numpy(), kernel, mode="constant"))

    rng = np.random.default_rng(0)
    exposed = torch.as_tensor(rng.choice([0.0, 0.3, 1.0], (3, N_TIME_BINS), p=[0.1, 0.1, 0.8]))
    exposed[0] = 1
    counts = torch.as_tensor(rng.poisson(0.4, (3, N_TIME_BINS))) * (exposed > 0)
    counts, exposed = counts.float(), exposed.float()
    curves = smoothed(counts, exposed)
    total = exposed.sum(dim=1, keepdim=True)
    scale = total / counts.sum(dim=1, keepdim=True)
    for k in range(1, len(KERNELS)):
        near, within = (gathered(x, KERNELS[k]) for x in (counts, exposed))
        rate = (near * scale + 0.02) / (within + 0.02)
        norm = (rate * exposed).sum(dim=1, keepdim=True) / total
        assert_allclose(curves.logs[:, k], torch.log(rate / norm), atol=2e-3)
        assert_allclose(curves.in_runs[:, k], run_means(torch.log(rate / norm)), atol=2e-3)
        assert_allclose(curves.in_runs[:, len(KERNELS) + k], torch.log1p(run_means(near)),
                        atol=2e-3)
        others = torch.log(((near - 1) * scale + 0.02).clamp(min=0.01) / (within + 0.02) / norm)
        assert_allclose(curves.scores[:, k], (counts * others).sum(dim=1), rtol=1e-3, atol=0.02)


def test_mixture_of_equal_curves_is_that_curve():
    torch.manual_seed(0)
    batch = make_batch(sources(3))
    curves = smoothed(batch.per_bin, batch.exposed)
    same = curves._replace(logs=torch.zeros(3, len(KERNELS), N_TIME_BINS))
    mixed = LocalMixture(16)(torch.zeros(3, N_TIME_BINS), torch.randn(3, 16), same)
    assert_allclose(mixed.detach(), 0, atol=1e-6)
    high = curves._replace(logs=torch.ones(3, len(KERNELS), N_TIME_BINS))
    mixed = LocalMixture(16)(torch.ones(3, N_TIME_BINS), torch.randn(3, 16), high)
    assert ((mixed > 0) & (mixed < 1)).all()  # the constant keeps its share


def test_mixture_without_gradients_is_the_same():
    torch.manual_seed(1)
    batch = make_batch(sources(3))
    exposed = batch.exposed.clone()
    exposed[0, 100:180] = 0
    curves = smoothed(batch.per_bin * (exposed > 0), exposed)
    shape = Shape(torch.randn(3, N_TIME_BINS), None, None, None)
    shape.g[0, 120] = 90  # in the gap, where it says nothing
    mixture, hidden = LocalMixture(16), torch.randn(3, 16)
    with torch.inference_mode():
        log_rate = shape.log_relative_rate(exposed)
        assert_allclose(mixture.offset(shape, exposed, hidden, curves),
                        mixture(log_rate, hidden, curves) - log_rate, atol=1e-4)


def test_background_takes_its_share_of_the_photons():
    photons = sources(4, n_photons=(200, 201), background=True)
    batch = make_batch(photons)
    expected = photons.background.sum(axis=1) / photons.n_photons
    assert_allclose(batch.background_fraction, expected, atol=0.02)
    assert (make_batch(sources(4)).background_fraction == 0).all()


def test_features_are_finite_for_any_number_of_photons():
    for count in (0, 1, 2, 5000):
        batch = make_batch(sources(3, n_photons=(count, count + 1)))
        features = photon_features(batch, smoothed(batch.per_bin, batch.exposed))
        assert features.shape == (3, N_FEATURES)
        assert torch.isfinite(features).all()


@pytest.fixture(scope="module")
def fitted():
    model = PoissonAutodecoder(n_latent=8, n_hidden=32, n_rank=2, n_steps=20, batch_size=16,
                               n_refinement_steps=4, n_posterior_steps=4, seed=3)
    return model.fit(sources(60), progress=False)


def test_saved_model_gives_the_same_rates_up_to_half_precision(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = PoissonAutodecoder.load(tmp_path / "model.safetensors")
    assert loaded.get_params() == fitted.get_params()
    assert loaded.training_["n_sources"] == 60
    photons = sources(10, seed=5)
    assert_allclose(loaded.band_rates(photons), fitted.band_rates(photons), rtol=0.02)
    loaded.save(tmp_path / "again.safetensors")
    again = PoissonAutodecoder.load(tmp_path / "again.safetensors")
    assert_array_equal(again.band_rates(photons), loaded.band_rates(photons))


@pytest.mark.parametrize("simulated", [False, True])
def test_no_source_has_no_quantiles_of_the_usual_names_and_shapes(fitted, simulated):
    model = PoissonAutodecoder.pretrained() if simulated else fitted
    photons = sources(1)
    some, nothing = (model.quantiles(p, [0.1, 0.5, 0.9]) for p in (photons, photons[:0]))
    assert list(nothing) == list(some)
    for name, values in some.items():
        assert nothing[name].shape == (0, *values.shape[1:])


@pytest.mark.parametrize("damage, message", [
    (lambda p: p.write_bytes(b"not a model"), "readable"),
    (lambda p: p.write_bytes(p.read_bytes()[:2000]), "readable"),
    (lambda p: write_tensors(p, {"x": np.zeros(1)}, kind="autodecoder", version=0, about={}),
     "version"),
    (lambda p: write_tensors(p, {"x": np.zeros(1)}, kind="autodecoder", version=VERSION, about={}),
     "promises"),
    (lambda p: write_tensors(p, {"x": np.zeros(1)}, kind="aligner", version=1, about={}),
     "not a stingray-align autodecoder"),
    (lambda p: p.write_bytes(p.read_bytes()[:-200] + 200 * b"\xff"), "promises|checksum"),
])
def test_a_file_that_is_no_model_says_so(fitted, tmp_path, damage, message):
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    damage(path)
    with pytest.raises(ModelFileError, match=message):
        PoissonAutodecoder.load(path)


def test_unfitted_and_unknown_models_say_what_to_do(tmp_path):
    with pytest.raises(ModelFileError, match="call fit"):
        PoissonAutodecoder().save(tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match="no bundled model"):
        PoissonAutodecoder.pretrained("nonesuch")
    with pytest.raises(FileNotFoundError):
        PoissonAutodecoder.load(tmp_path / "missing.safetensors")
