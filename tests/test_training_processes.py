"""A training that is killed, and one that several processes share."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from astropy.table import Table
from small_sources import sources

from stingray_align import PoissonAutodecoder
from stingray_align._files import read_tensors
from stingray_align.autodecoder import training
from stingray_align.datasets import _simulate, stream

#: Phases of 16, 1, 8, 7, 4, 4, 24 and 80 steps, the second that of the mixture, the last of the
#: quantities; of simulated sources one of 12 for the descriptors before them.
SMALL = dict(n_latent=4, n_hidden=16, n_rank=2, n_steps=16, n_refinement_steps=8,
             n_posterior_steps=4, batch_size=8, seed=3)
EVERY = 4
#: A step in each phase, and on a border; and the steps whose state is on disk by then.
KILLED_AT = {10: 8, 16: 16, 23: 20, 30: 28, 34: 32, 38: 36, 45: 44, 77: 76}

SET_UP = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_training_processes as t
t.training.EVERY = t.EVERY
t.training.quantities.Measurements.PER_STEP = 2  # fewer sources to prepare
"""

# Each training in a child process of its own, which kills itself.
KILLED = SET_UP + """
advance = t.training._Run.advance
for stop in t.KILLED_AT:
    def killed(run):
        if run.step == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        advance(run)
    child = os.fork()
    if not child:
        t.training._Run.advance = killed
        t.PoissonAutodecoder(**t.SMALL).fit(
            t.sources(40), checkpoint={folder!r} + f"/{{stop}}.safetensors", progress=False)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""

SHARED = SET_UP + """
from stingray_align.datasets import _simulate, stream
_simulate.CHUNK = 64
folder = {folder!r}
model = t.PoissonAutodecoder(**t.SMALL | dict(batch_size=32))
model.fit(stream.SimulatedStream(folder + "/stream", 5, 2, n_workers=0), device="cpu",
          checkpoint=folder + "/run.safetensors", progress=False)
model.save(folder + "/rank" + os.environ["RANK"] + ".safetensors")
"""


def same(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(autouse=True)
def short_lines(monkeypatch):
    monkeypatch.setattr(training, "EVERY", EVERY)
    monkeypatch.setattr(training.quantities.Measurements, "PER_STEP", 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_trainings_end_where_an_undisturbed_one_does(tmp_path):
    undisturbed = PoissonAutodecoder(**SMALL).fit(sources(40), progress=False)
    ended = subprocess.run([sys.executable, "-c", KILLED.format(folder=str(tmp_path))],
                           capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    for stop, kept in KILLED_AT.items():
        checkpoint = tmp_path / f"{stop}.safetensors"
        assert read_tensors(checkpoint, kind="checkpoint", version=4)[1]["step"] == kept
        assert Table.read(tmp_path / f"{stop}.curve.ecsv")["step"][-1] == kept
        model = PoissonAutodecoder(**SMALL).fit(sources(40), checkpoint=checkpoint,
                                                progress=False)
        same(undisturbed.networks_.state_dict(), model.networks_.state_dict())
        assert model.curve_ == undisturbed.curve_
        assert not checkpoint.exists()


def test_an_interrupted_training_goes_on_within_the_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(_simulate, "CHUNK", 64)

    def fitted(**options):
        simulated = stream.SimulatedStream(tmp_path / "stream", 5, 2, n_workers=0)
        return PoissonAutodecoder(**SMALL).fit(simulated, progress=False, device="cpu", **options)

    undisturbed = fitted()
    advance, checkpoint = training._Run.advance, tmp_path / "run.safetensors"
    for stop in (64, 67, 90):  # before the first step of the phase, within it, and in the next

        def interrupted(run):
            if run.step == stop:
                raise KeyboardInterrupt
            advance(run)

        with monkeypatch.context() as patch:
            patch.setattr(training._Run, "advance", interrupted)
            with pytest.raises(KeyboardInterrupt):
                fitted(checkpoint=checkpoint)
    resumed = fitted(checkpoint=checkpoint)
    same(undisturbed.networks_.state_dict(), resumed.networks_.state_dict())
    assert [line["phase"] for line in resumed.curve_[-21:]] == (
        ["descriptors"] + ["quantities"] * 20)
    assert resumed.networks_["describer"].standardised.spread.std() > 0
    assert resumed.networks_["quantities"].in_channel.spread.std() > 0
    assert not checkpoint.with_suffix(".prepared").exists()


def test_two_processes_train_the_same_model_on_simulated_sources(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SHARED.format(folder=str(tmp_path)))
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         str(script)], capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr.decode()
    first, second = (PoissonAutodecoder.load(tmp_path / f"rank{rank}.safetensors")
                     for rank in (0, 1))
    same(first.networks_.state_dict(), second.networks_.state_dict())
    assert first.training_ == {"n_sources": 128, "population": "simulated", "population_seed": 5}
    assert all(np.isfinite(line["gain"]) for line in first.curve_)
    start = first._build()["decoder"].heads.weight
    assert (start - first.networks_["decoder"].heads.weight).abs().max() > 0
    assert Table.read(tmp_path / "run.curve.ecsv")["step"].tolist() == [
        line["step"] for line in first.curve_]
    assert not (tmp_path / "run.safetensors").exists()
