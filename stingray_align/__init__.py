"""X-ray event lists beside the language that describes them.

The public names are listed in ``__all__`` and are imported when first used, so that
``import stingray_align`` costs nothing; see :doc:`index` for what each of them does.
"""

import importlib

# Where each public object lives; the rooms below are public as they are.
_OBJECTS = {
    "EventList": "events",
    "enable": "events",
    "embed": "autodecoder",
    "Embedding": "autodecoder",
    "PoissonAutodecoder": "autodecoder",
    "TextEncoder": "text",
    "Summary": "text",
    "Aligner": "alignment",
    "AlignedCatalog": "alignment",
    "Interpretation": "alignment",
    "Comparison": "alignment",
    "compare": "alignment",
}
_ROOMS = ("alignment", "autodecoder", "datasets", "errors", "evaluate", "events", "scale", "text")

__all__ = ["__version__", *_OBJECTS, *_ROOMS]


def __getattr__(name):
    if name == "__version__":
        from importlib.metadata import version

        value = version("stingray-align")
    elif name in _OBJECTS:
        value = getattr(importlib.import_module(f"{__name__}.{_OBJECTS[name]}"), name)
    elif name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
