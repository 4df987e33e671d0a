import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import stingray_align as sa
from stingray_align._files import write_tensors
from stingray_align.errors import ModelFileError
from stingray_align.evaluate.rivals.ppad import Ppad, PpadEstimate, _Objective
from stingray_align.photons import BAND_OF_CHANNEL, N_TIME_BINS, Photons

SMALL = dict(n_latent=3, n_hidden=16, n_blocks=1, n_frequencies=3, n_inference_steps=60)


def constant_sources(counts, seed=0, gap=False):
    """Sources that do not change; half of each window is a gap, if asked for."""
    rng = np.random.default_rng(seed)
    counts = np.asarray(counts)
    n, total = len(counts), counts.sum()
    exposed = np.ones((n, N_TIME_BINS), np.float32)
    if gap:
        exposed[:, N_TIME_BINS // 2:] = 0
    phase = rng.random(total) * (0.5 if gap else 1.0)
    return Photons(
        np.concatenate([[0], np.cumsum(counts)]), phase.astype(np.float32),
        rng.integers(0, 20, total).astype(np.uint8), np.zeros(n), rng.uniform(1e3, 1e5, n),
        exposed, np.zeros((n, 4), np.float32), np.full(n, "ACIS-I"))


@pytest.fixture(scope="module")
def fitted():
    # Brightness is all there is to learn.
    counts = np.random.default_rng(1).integers(20, 400, 48)
    return Ppad(n_steps=200, learning_rate=5e-3, **SMALL).fit(constant_sources(counts),
                                                              progress=False)


def test_loss_is_the_published_one():
    """Photon by photon and in loops, as it is written down in the paper."""
    photons = constant_sources([0, 1, 2, 80], gap=True)
    torch.manual_seed(2)
    log_rate = torch.randn(4, N_TIME_BINS, 3, dtype=torch.float64)
    objective = _Objective()
    found = objective.misfit(lambda latents: log_rate.float(), None, objective.prepare(photons))
    rate = log_rate.exp().numpy()
    for i in range(4):
        own = photons[i]
        band = BAND_OF_CHANNEL[own.channel]
        order = np.argsort(own.phase[band < 3])
        bins, band = own.time_bin[band < 3][order], band[band < 3][order]
        likelihood = np.log(rate[i, bins, band]).sum()
        likelihood -= rate[i, :N_TIME_BINS // 2].sum() / N_TIME_BINS  # the exposed half
        variation = np.abs(np.diff(rate[i], axis=0)).mean() / 4  # steps of a mesh of 2048
        if len(bins) > 1:
            variation += np.abs(np.diff(rate[i, bins], axis=0)).mean()
        assert_allclose(found[i], 10 * variation - likelihood, rtol=1e-5)


def test_rates_follow_the_brightness(fitted):
    photons = constant_sources([60, 150, 300], seed=7)
    rates = fitted.band_rates(photons)
    assert rates.shape == (3, N_TIME_BINS, 3)
    band = BAND_OF_CHANNEL[photons.channel]
    for k in range(3):
        seen = np.bincount(photons.source_index[band == k], minlength=3)
        assert_allclose(rates[:, :, k].mean(axis=1), (seen + 0.5) / photons.exposure, rtol=1e-4)
    assert (rates.std(axis=1) < 0.3 * rates.mean(axis=1)).all()
    learned = fitted.decoded_rates(photons)
    assert_allclose(learned.sum(axis=2).mean(axis=1),
                    np.bincount(photons.source_index[band < 3]) / photons.exposure, rtol=0.35)
    assert fitted.curve_[-1]["step"] == 200 and "gain" not in fitted.curve_[-1]


def test_a_saved_model_gives_the_same_rates(fitted, tmp_path):
    fitted.save(tmp_path / "ppad.safetensors")
    loaded = Ppad.load(tmp_path / "ppad.safetensors")
    assert loaded.get_params() == fitted.get_params()
    assert loaded.curve_ == fitted.curve_
    photons = constant_sources([0, 1, 50], seed=3)
    assert_array_equal(loaded.band_rates(photons), fitted.band_rates(photons))


def test_an_event_list_gives_an_estimate(fitted):
    rng = np.random.default_rng(4)
    lists = [sa.EventList(np.sort(rng.uniform(0, 1000, n)), energy=rng.uniform(0.6, 7.9, n),
                          gti=[[0, 1000]]) for n in (40, 200)]
    estimate = fitted(lists[1])
    assert isinstance(estimate, PpadEstimate)
    both = fitted(lists)
    assert [one.n_photons for one in both] == [40, 200]
    times = np.array([10.0, 500.0])
    assert_allclose(both[1].rate(times), estimate.rate(times), rtol=0.01)
    in_bands = fitted.band_rates(Photons.from_events(lists[1]))[0].sum(axis=1)
    assert_allclose(estimate.rate(times, (0.5, 7.0)).value, in_bands[[5, 256]], rtol=0.01)
    top = (lists[1].energy > 7).sum()
    assert_allclose(estimate.rate(times, (7.0, 8.0)).value, (top + 0.5) / 1000)
    low, high = estimate.rate_interval(times, n_draws=4000)
    width = (high - low) / estimate.rate(times)
    assert_allclose(width.value, 2 / np.sqrt(200), rtol=0.1)  # of 200 photons, nothing else
    assert_allclose(estimate.spectrum().uncertainty.array > 0, True)


def test_draws_have_the_plug_in_rate_as_mean(fitted):
    photons = constant_sources([50, 0], seed=5)
    rates = fitted.band_rates(photons)
    for own, drawn in zip(rates, fitted.drawn_band_rates(photons, 3000, seed=1), strict=True):
        assert drawn.shape == (3000, N_TIME_BINS, 3)
        assert_allclose(drawn[:, 7].mean(axis=0), own[7], rtol=0.1)


def test_files_and_models_that_cannot_be_used_say_so(fitted, tmp_path):
    with pytest.raises(ModelFileError, match="no weights yet"):
        Ppad().band_rates(constant_sources([3]))
    path = tmp_path / "ppad.safetensors"
    write_tensors(path, {"start": np.zeros(3, np.float32)}, kind="ppad", version=1,
                  about={"parameters": SMALL, "curve": []})
    with pytest.raises(ModelFileError, match="promises"):
        Ppad.load(path)
