"""What every test and doctest starts from: no network, no display, one thread."""

import os
import sys

import pytest
from _pytest.doctest import DoctestItem

# Before anything imports torch, transformers or matplotlib.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", MPLBACKEND="Agg")


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
