import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from stingray_align import PoissonAutodecoder
from stingray_align._files import read_tensors, write_tensors
from stingray_align.autodecoder.batch import Cells, make_batch
from stingray_align.autodecoder.decoder import Decoder
from stingray_align.autodecoder.inference import (
    KERNELS, N_FEATURES, Inference, LocalMixture, _kernels, photon_features, smoothed)
from stingray_align.autodecoder.model import cell_rates
from stingray_align.autodecoder.likelihood import log_density, log_likelihood
from stingray_align.autodecoder.training import augment, fit_networks
from stingray_align.errors import ModelFileError
from stingray_align.photons import N_CHANNELS, N_TIME_BINS, Photons


def sources(n=24, seed=0, n_photons=(0, 400), background=False):
    """Sinusoids with a gap in every third window."""
    rng = np.random.default_rng(seed)
    count = rng.integers(*n_photons, n)
    offsets = np.concatenate([[0], np.cumsum(count)])
    phase = rng.random(offsets[-1])
    of = np.repeat(np.arange(n), count)
    wave = 1 + 0.9 * np.sin(2 * np.pi * (3 * phase + of / n))
    phase = np.where(rng.random(len(phase)) < wave / 1.9, phase, rng.random(len(phase)))
    exposed = np.ones((n, N_TIME_BINS), dtype=np.float32)
    exposed[::3, 100:200] = 0
    keep = exposed[of, np.minimum((phase * N_TIME_BINS).astype(int), N_TIME_BINS - 1)] > 0
    whole = Photons(
        offsets, phase.astype(np.float32), rng.integers(0, 20, offsets[-1]).astype(np.uint8),
        np.zeros(n), np.full(n, 2e4), exposed,
        (rng.uniform(0, 20, (n, 4)) * background).astype(np.float32), np.full(n, "ACIS-S"))
    return whole.select(keep)


@pytest.fixture(scope="module")
def shape_and_batch():
    torch.manual_seed(0)
    photons = sources(background=True)
    shape = Decoder(8, 32)(torch.randn(len(photons), 8))
    return shape, make_batch(photons), photons


def every_cell(n):
    flat = torch.arange(n * N_TIME_BINS * N_CHANNELS)
    in_time, channel = flat // N_CHANNELS, flat % N_CHANNELS
    source = in_time // N_TIME_BINS
    return Cells(source, in_time, in_time // 4 * N_CHANNELS + channel,
                 source * N_CHANNELS + channel, torch.ones(len(flat)))


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
    for (curve,), (width, _) in zip(curves.relative, KERNELS):
        assert_allclose(curve[exposed[0] > 0][:90], relative[0, 0], rtol=0.05)
        far = 256 - 3 * max(width, 1)
        if far > 190:
            assert_allclose(curve[190:int(far)], relative[0, 0], rtol=0.05)
    constant = smoothed(exposed * 0, exposed)
    assert_array_equal(constant.scores, 0)


def test_mixture_of_equal_curves_is_that_curve():
    torch.manual_seed(0)
    batch = make_batch(sources(3))
    curves = smoothed(batch.per_bin, batch.exposed)
    same = curves._replace(logs=[torch.zeros(3, N_TIME_BINS)] * len(KERNELS))
    mixed = LocalMixture(16)(torch.zeros(3, N_TIME_BINS), torch.randn(3, 16), same)
    assert_allclose(mixed.detach(), 0, atol=1e-6)
    high = curves._replace(logs=[torch.ones(3, N_TIME_BINS)] * len(KERNELS))
    mixed = LocalMixture(16)(torch.ones(3, N_TIME_BINS), torch.randn(3, 16), high)
    assert ((mixed > 0) & (mixed < 1)).all()  # the constant keeps its share


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


def test_posterior_covariance_matches_its_draws():
    torch.manual_seed(1)
    inference = Inference(6, 32, 2)
    torch.nn.init.normal_(inference.spread_factor.weight, std=0.3)
    photons = sources(1, n_photons=(100, 101))
    batch = make_batch(photons)
    latent, hidden = inference.first_guess(batch, smoothed(batch.per_bin, batch.exposed))
    with torch.no_grad():
        posterior = inference.posterior(latent, hidden, batch)
        many = type(posterior)(*(x.expand(40_000, *x.shape[1:]) for x in posterior))
        draws = many.draw(torch.Generator().manual_seed(0)).numpy()
    truth = posterior.covariance()[0].numpy()
    assert_allclose(np.cov(draws.T), truth, atol=0.04 * np.abs(truth).max())
    assert_allclose(draws.mean(axis=0), latent[0].detach(), atol=0.03 * truth.max() ** 0.5)


def test_augmentation_moves_photons_and_exposure_together():
    photons = sources(40)
    moved = augment(photons, np.random.default_rng(3))
    assert_array_equal(moved.n_photons, photons.n_photons)
    assert_allclose(moved.exposure, photons.exposure)
    assert not np.array_equal(moved.phase, photons.phase)
    in_gap = moved.exposed[moved.source_index, moved.time_bin] == 0
    assert in_gap.mean() < 0.002  # rounding at a border only


@pytest.fixture(scope="module")
def small():
    return dict(n_latent=8, n_hidden=32, n_rank=2, n_steps=40, n_posterior_steps=20,
                batch_size=16, seed=3)


@pytest.fixture(scope="module")
def fitted(small):
    return PoissonAutodecoder(**small).fit(sources(60), progress=False)


def test_training_lowers_the_loss(small):
    model = PoissonAutodecoder(**small | dict(n_steps=300, n_posterior_steps=5))
    model.fit(sources(300, n_photons=(300, 400)), progress=False)
    before = model._build()
    from stingray_align.autodecoder.training import held_out_gain

    test = sources(60, seed=9, n_photons=(300, 400))
    start = held_out_gain(before, before.state_dict(), test)
    end = held_out_gain(model.networks_, model.networks_.state_dict(), test)
    assert end > start + 0.01 and end > 0


def test_fit_works_after_a_pass_of_inference(small, fitted):
    _kernels.cache_clear()
    fitted.infer(sources(2))
    PoissonAutodecoder(**small | dict(n_steps=2, n_posterior_steps=2)).fit(
        sources(20), progress=False)


def test_fit_is_the_same_for_the_same_seed(small, fitted):
    again = PoissonAutodecoder(**small).fit(sources(60), progress=False)
    for name, value in fitted.networks_.state_dict().items():
        assert torch.equal(value, again.networks_.state_dict()[name])


@pytest.mark.parametrize("stop_at", [20, 40, 50])
def test_an_interrupted_training_ends_where_an_undisturbed_one_does(
        small, fitted, tmp_path, monkeypatch, stop_at):
    from stingray_align.autodecoder import training

    monkeypatch.setattr(training, "EVERY", 10)
    checkpoint = tmp_path / "run.safetensors"
    advance = training._Run.advance

    def interrupted(run, photons):
        if run.step == stop_at:
            raise KeyboardInterrupt
        advance(run, photons)

    monkeypatch.setattr(training._Run, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_networks(PoissonAutodecoder(**small), sources(60), checkpoint, False)
    monkeypatch.setattr(training._Run, "advance", advance)
    assert read_tensors(checkpoint, kind="checkpoint", version=1)[1]["step"] == stop_at
    networks, _ = fit_networks(PoissonAutodecoder(**small), sources(60), checkpoint, False)
    for name, value in fitted.networks_.state_dict().items():
        assert_allclose(networks.state_dict()[name], value, atol=1e-6)
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_training_is_refused(small, tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    write_tensors(checkpoint, {"now.x": np.zeros(1)}, kind="checkpoint", version=1,
                  about={"parameters": {}, "n_sources": 1, "step": 5, "curve": []})
    with pytest.raises(ModelFileError, match="other parameters"):
        PoissonAutodecoder(**small).fit(sources(60), checkpoint=checkpoint, progress=False)


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


def test_rates_integrate_to_the_photons_that_were_seen(fitted):
    photons = sources(10, seed=5, background=True)
    inferred = fitted.infer(photons)
    seconds = photons.exposed * photons.duration[:, None] / N_TIME_BINS
    expected = np.einsum("nte,nt->n", cell_rates(inferred), seconds)
    assert_allclose(expected, photons.n_photons + 0.5, rtol=1e-3)


@pytest.mark.parametrize("damage, message", [
    (lambda p: p.write_bytes(b"not a model"), "readable"),
    (lambda p: p.write_bytes(p.read_bytes()[:2000]), "readable"),
    (lambda p: write_tensors(p, {"x": np.zeros(1)}, kind="autodecoder", version=0, about={}),
     "version"),
    (lambda p: write_tensors(p, {"x": np.zeros(1)}, kind="autodecoder", version=1, about={}),
     "promises"),
    (lambda p: write_tensors(p, {"x": np.zeros(1)}, kind="aligner", version=1, about={}),
     "not a stingray-align autodecoder"),
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
