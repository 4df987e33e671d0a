import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal

from stingray_align import PoissonAutodecoder
from stingray_align._files import read_tensors, write_tensors
from stingray_align.autodecoder import latents as latents_module
from stingray_align.autodecoder.decoder import Decoder
from stingray_align.autodecoder.latents import ShapeObjective, optimise_latents, train_decoder
from stingray_align.errors import ModelFileError
from stingray_align.photons import N_TIME_BINS, Photons

SETTINGS = dict(n_latent=4, n_steps=24, batch_size=20, learning_rate=3e-3, seed=5, device="cpu",
                progress=False)


def sources(n=60, seed=0, n_photons=150):
    """One wave per window at a phase of each source's own, the spectrum flat."""
    rng = np.random.default_rng(seed)
    place = rng.random(n)
    phase = rng.random((n, 20 * n_photons))
    wave = 1 + np.sin(2 * np.pi * (phase + place[:, None]))
    kept = [p[rng.random(p.size) < w / 2][:n_photons] for p, w in zip(phase, wave)]
    total = n * n_photons
    return Photons(
        np.arange(n + 1) * n_photons, np.concatenate(kept).astype(np.float32),
        rng.integers(0, 20, total).astype(np.uint8), np.zeros(n), np.full(n, 2e4),
        np.ones((n, N_TIME_BINS), np.float32), np.zeros((n, 4), np.float32),
        np.full(n, "ACIS-S"))


def decoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Decoder(SETTINGS["n_latent"], 16)


def same(first, second, **tolerance):
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert_allclose(a.detach(), b.detach(), **tolerance)


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Three lines in the training curve, and two versions of each source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents_module, "EVERY", 8)
        patch.setattr(latents_module, "ENOUGH", 4)
        yield


@pytest.fixture(scope="module")
def undisturbed(short_training):
    network = decoder()
    return network, *train_decoder(network, sources(), **SETTINGS)


def test_new_sources_are_described_after_training():
    network = decoder()
    settings = SETTINGS | dict(n_steps=200, learning_rate=1e-2, max_copies=2)
    train_decoder(network, sources(80), **settings)
    shown, scored = sources(20, seed=9).thin(0.5, np.random.default_rng(0))
    found = optimise_latents(network, shown, start=np.zeros(4), n_steps=100, device="cpu")
    with torch.no_grad():
        gain = ShapeObjective().gain(network, found, shown, scored).sum().item()
        others = ShapeObjective().gain(network, found.roll(1, 0), shown, scored).sum().item()
    # A full sine gives 1 - log 2 = 0.31 nat per photon, and to know that all spectra are flat
    # another 19 / 2 nat over the 75 photons that the constant has its spectrum from.
    assert 0.12 < gain / len(scored.phase) < 0.31 + 0.13
    assert others < gain / 4


def test_a_model_without_encoder_is_used_like_any_other(tmp_path):
    model = PoissonAutodecoder(encoder=False, n_latent=4, n_hidden=16, n_steps=100, batch_size=20,
                               learning_rate=1e-2)
    model.fit(sources(200), progress=False, device="cpu").save(tmp_path / "model.safetensors")
    model = PoissonAutodecoder.load(tmp_path / "model.safetensors")
    photons = sources(3, seed=8)
    rates = model.first_pass_rates(photons)
    assert rates.shape == (3, N_TIME_BINS, 3)
    below_7_kev = np.bincount(photons.source_index[photons.channel < 19])
    seconds = photons.duration[0] / N_TIME_BINS
    assert_allclose(rates.sum(axis=(1, 2)) * seconds, below_7_kev, rtol=0.1)


def test_a_source_does_not_depend_on_the_others(monkeypatch):
    network = decoder()
    photons = sources(5)
    options = dict(start=np.full(4, 0.1), n_steps=10, device="cpu")
    together = optimise_latents(network, photons, **options)
    alone = optimise_latents(network, photons[3], **options)
    assert_allclose(together[3], alone[0], atol=1e-5)
    monkeypatch.setattr(latents_module, "CHUNK", 2)
    assert_allclose(optimise_latents(network, photons, **options), together, atol=1e-5)
    assert not np.allclose(together[3], together[2], atol=1e-3)


def test_optimisation_leaves_the_decoder_alone_and_works_during_inference():
    network = decoder()
    before = [p.clone() for p in network.parameters()]
    with torch.inference_mode():
        found = optimise_latents(network, sources(2), start=torch.zeros(2, 4), n_steps=3,
                                 device="cpu")
    assert found.abs().max() > 0
    for old, new in zip(before, network.parameters()):
        assert torch.equal(old, new)
        assert new.grad is None


def test_every_source_takes_part_equally_often():
    run = latents_module._Run(decoder(), ShapeObjective(), SETTINGS | dict(
        n_sources=25, copies=2, holdout=0.0), latents_module._Team(0, 1, torch.device("cpu")))
    seen = []
    for run.step in range(3 * 4):  # four turns; 50 latents make three batches
        seen.append(run._chosen())
    assert max(map(len, seen)) <= SETTINGS["batch_size"]
    assert_array_equal(np.bincount(np.concatenate(seen)), 4)


def test_copies_are_the_same_photons_elsewhere():
    photons = sources(30)
    exposed = photons.exposed.copy()
    exposed[:, 100:200] = 0
    photons = photons.replace(exposed=exposed)
    photons = photons.select(exposed[photons.source_index, photons.time_bin] > 0)
    both = latents_module._with_copies(photons, 2, np.random.default_rng(1))
    copy = both[30:]
    assert_array_equal(both[:30].phase, photons.phase)
    assert_array_equal(copy.channel, photons.channel)
    assert_allclose(copy.exposure, photons.exposure)
    assert not np.isclose(copy.phase, photons.phase).any(axis=0)
    in_gap = copy.exposed[copy.source_index, copy.time_bin] == 0
    assert in_gap.mean() < 0.002  # rounding at a border only
    turned = np.sign(np.diff(copy.phase[:photons.offsets[1]])[:20])
    assert (turned == np.sign(np.diff(photons.phase[:20 + 1]))).mean() != 0.5


class Killed(Exception):
    pass


def train_until(stop_at, **options):
    """A training that does not live longer than some steps."""
    advance = latents_module._Run.advance

    def killed(run, photons):
        if run.step == stop_at:
            raise Killed
        advance(run, photons)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(latents_module._Run, "advance", killed)
        train_decoder(decoder(), sources(), **options, **SETTINGS)


@pytest.mark.parametrize("stop_at", [0, 16, 19])
def test_an_interrupted_training_ends_where_an_undisturbed_one_does(
        tmp_path, undisturbed, stop_at):
    checkpoint, path = tmp_path / "run.safetensors", tmp_path / "curve.ecsv"
    train_until(stop_at, checkpoint=checkpoint, curve_file=path)
    if stop_at:
        assert read_tensors(checkpoint, kind="checkpoint", version=1)[1]["step"] == 16
        assert Table.read(path)["step"].tolist() == [8, 16]  # written while it trains
    network = decoder()
    found, curve = train_decoder(network, sources(), checkpoint=checkpoint, curve_file=path,
                                 **SETTINGS)
    same(network, undisturbed[0], rtol=0)
    assert_array_equal(found, undisturbed[1])
    assert curve == undisturbed[2]
    assert_allclose(Table.read(path)["gain"], [line["gain"] for line in curve])
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    write_tensors(checkpoint, {"decoder.x": np.zeros(1)}, kind="checkpoint", version=1,
                  about={"settings": {}, "step": 5, "curve": []})
    with pytest.raises(ModelFileError, match="other parameters"):
        train_decoder(decoder(), sources(), checkpoint=checkpoint, **SETTINGS)


@pytest.mark.parametrize("change", [
    lambda photons, network: (photons[::-1], network),
    lambda photons, network: (photons.replace(channel=19 - photons.channel), network),
    lambda photons, network: (photons.replace(exposed=photons.exposed / 2), network),
    lambda photons, network: (photons, Decoder(SETTINGS["n_latent"], 32))],
    ids=["other order", "other energies", "other exposure", "wider decoder"])
def test_a_checkpoint_of_other_photons_or_sizes_is_refused(tmp_path, change):
    checkpoint = tmp_path / "run.safetensors"
    train_until(16, checkpoint=checkpoint)
    photons, network = change(sources(), decoder())
    with pytest.raises(ModelFileError, match="other parameters or sources"):
        train_decoder(network, photons, checkpoint=checkpoint, **SETTINGS)
    assert checkpoint.exists()


SHARED = """
import os, sys
sys.path.insert(0, {tests!r})
import test_latents as t
t.latents_module.EVERY, t.latents_module.ENOUGH = 8, 4
network, rank = t.decoder(), os.environ["RANK"]
found, curve = t.train_decoder(network, t.sources(), checkpoint={folder!r} + "/run.safetensors",
                               curve_file={folder!r} + "/curve.ecsv", **t.SETTINGS)
t.write_tensors({folder!r} + "/rank" + rank + ".safetensors",
                {{**{{k: v.numpy() for k, v in network.state_dict().items()}},
                  "found": found.numpy()}},
                kind="result", version=1, about={{"curve": curve}})
"""


def test_two_processes_take_up_and_end_what_one_does_alone(tmp_path, undisturbed):
    train_until(8, checkpoint=tmp_path / "run.safetensors")
    script = tmp_path / "train.py"
    script.write_text(SHARED.format(tests=os.path.dirname(__file__), folder=str(tmp_path)))
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         str(script)], capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    (first, about), (second, _) = (
        read_tensors(tmp_path / f"rank{rank}.safetensors", kind="result", version=1)
        for rank in (0, 1))
    for name, value in first.items():
        assert_array_equal(value, second[name])
    found = first.pop("found")
    assert_allclose(found, undisturbed[1], atol=2e-4)
    assert (np.abs(found).max(axis=1) > 1e-3).all()  # of all sources, whoever had them
    for name, value in undisturbed[0].state_dict().items():
        assert_allclose(first[name], value, atol=2e-5)
    for line, alone in zip(about["curve"], undisturbed[2], strict=True):
        assert_allclose([line[name] for name in alone], list(alone.values()), rtol=1e-3)
    assert len(Table.read(tmp_path / "curve.ecsv")) == 3
    assert not (tmp_path / "run.safetensors").exists()
