"""Data to learn, test and compare with: simulated populations with known truth."""

import importlib

_OBJECTS = {"CLASSES": "population", "Population": "population", "SimulatedSources": "_sources",
            "ngc3621": "ngc_3621",
            "simulate_challenge": "challenge", "simulate_photons": "population",
            "simulate_population": "population", "simulate_through": "population",
            "write_prose": "prose"}

__all__ = list(_OBJECTS)


def __getattr__(name):
    if name not in _OBJECTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_OBJECTS[name]}"), name)


def __dir__():
    return sorted(__all__)
