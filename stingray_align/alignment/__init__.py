"""Events and texts in one space: the aligner, the searchable catalogue and its readings.

Two small networks project event vectors (from the autodecoder) and text vectors (from the text
encoder) onto one unit sphere, where a source and its description lie close together. A catalogue
of projected sources then answers sentences with sources and photons with sentences.
"""

import importlib

__all__ = ["Aligner", "AlignedCatalog", "Comparison", "Interpretation", "align", "compare",
           "find_changes", "grouped_info_nce", "grouped_siglip"]

_HOMES = {
    "Aligner": "aligner",
    "AlignedCatalog": "catalog",
    "Comparison": "comparison",
    "Interpretation": "interpretation",
    "align": "training",
    "compare": "comparison",
    "find_changes": "comparison",
    "grouped_info_nce": "losses",
    "grouped_siglip": "losses",
}


def __getattr__(name):
    # Names arrive on first use, because the modules behind them import torch and scikit-learn.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__))
