"""What every test and doctest starts from: no network, no display, one thread."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.doctest import DoctestItem

# Before anything imports torch, transformers or matplotlib.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", MPLBACKEND="Agg")


#: Goes through all that is compiled.
COMPILED = """
import stingray_align as sa
photons = sa.datasets.simulate_photons(24, seed=1, counts=(20, 400))
sa.PoissonAutodecoder(n_latent=4, n_hidden=16, n_rank=2, n_steps=4, n_refinement_steps=4,
                      n_posterior_steps=1, batch_size=8).fit(photons, progress=False)
sa.autodecoder.draw_vectors(photons, 1)
event_list = sa.datasets.simulate_population(1, seed=1, counts=(200, 400)).event_lists[0]
embedding = sa.embed(event_list)
embedding.rate_interval([embedding.start])
"""


def pytest_sessionstart(session):
    """Let another process compile what has not been compiled on this machine.

    Code rounds differently in the process that has just compiled it and in those that read it from
    the disk, and some tests compare processes to the last bit.
    """
    compiled = Path(__file__).parent / "stingray_align" / "autodecoder" / "__pycache__"
    if not any(compiled.glob("*.nbi")):
        subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], check=True,
                       cwd=Path(__file__).parent, stdout=subprocess.DEVNULL)


@pytest.fixture(autouse=True)
def _own_directory(request, tmp_path, monkeypatch):
    """Doctests write their files where they leave no trace."""
    if isinstance(request.node, DoctestItem):
        monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _close_figures():
    """Figures that a test or an example opened do not pile up."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
