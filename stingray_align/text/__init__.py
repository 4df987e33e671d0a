"""Text: summaries of sources, the slots beside them, and vectors of both.

Nothing here imports torch or transformers until a model is asked for.
"""

import importlib

_HOMES = {
    "Summary": "summary", "check_summary": "summary",
    "read_summaries": "summary", "write_summaries": "summary",
    "CLASSES": "slots", "NUMBER_SLOTS": "slots", "FLAG_SLOTS": "slots", "N_SLOTS": "slots",
    "slot_names": "slots", "slot_vector": "slots", "clean_slots": "slots",
    "TextEncoder": "encoder", "text_vectors": "encoder",
    "write_summary": "writers", "OfflineWriter": "writers", "SummaryError": "asking",
    "Chat": "chat", "ChatError": "chat", "LocalChat": "chat", "OpenAIChat": "chat",
    "summarize": "many", "estimate_tokens": "many", "Cost": "many", "Failure": "many",
    "Written": "many", "read_papers": "papers",
    "understand": "glossary", "Understood": "glossary",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
