"""Data to learn, test and compare with: simulated populations with known truth, and archives."""

import importlib

_HOMES = {
    "population": ("CLASSES", "Population", "simulate_photons", "simulate_population",
                   "simulate_through"),
    "_sources": ("SimulatedSources",),
    "challenge": ("simulate_challenge",),
    "folders": ("event_files", "read_event_file", "read_event_files"),
    "ngc_3621": ("ngc3621",),
    "prose": ("write_prose",),
    "literature": ("Literature", "find_literature", "gather_literature"),
    "_services": ("Ads", "Simbad"),
    "facts": ("csc_facts",),
}
_OBJECTS = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = ("axia", "csc", "literature", "ngc_3621")

__all__ = [*_OBJECTS, *_ROOMS]


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _OBJECTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_OBJECTS[name]}"), name)


def __dir__():
    return sorted(__all__)
