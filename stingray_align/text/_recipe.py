"""How a model's own files say that its tokens become one vector.

Models made with sentence-transformers state it beside their weights: ``modules.json`` lists the
steps, ``1_Pooling/config.json`` the pooling, further folders dense layers on top, and
``config_sentence_transformers.json`` the words to put before queries and passages. A model without
these files is pooled by the mean.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ModelFileError

__all__ = ["Recipe", "read_recipe"]

POOLINGS = ("mean", "cls", "lasttoken")
_PROMPT_NAMES = {"query": ("query",), "passage": ("passage", "document", "corpus")}
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")


@dataclass(frozen=True)
class Recipe:
    """From tokens to a vector.

    Parameters
    ----------
    transformer : Path
        Folder of the transformer itself.
    pooling : {"mean", "cls", "lasttoken"}
    dense : tuple of (Path, str)
        Weights (safetensors) of dense layers after the pooling, and their activation function.
    prompts : dict of str
        What is put before a text, for the kinds ``query`` and ``passage``.
    pools_prompt : bool
        Whether the tokens of the prompt count in the mean.
    max_tokens : int
        Tokens of a text the model was trained with.
    """

    transformer: Path
    pooling: str = "mean"
    dense: tuple = ()
    prompts: dict = field(default_factory=lambda: dict.fromkeys(_PROMPT_NAMES, ""))
    pools_prompt: bool = True
    max_tokens: int = np.iinfo(np.int32).max


def read_recipe(folder):
    """The recipe in a model's folder.

    Raises
    ------
    ModelFileError
        If the files are damaged, or ask for what is not offered here.
    """
    folder = Path(folder)
    try:
        modules = _json(folder / "modules.json") or [
            {"type": "Transformer", "path": ""},
            *({"type": "Pooling", "path": path.name} for path in folder.glob("1_Pooling"))]
        steps = [(str(step["type"]).rpartition(".")[2], folder / step["path"]) for step in modules]
        if not steps or steps[0][0] != "Transformer":
            raise ValueError("the first module is no Transformer")
        pooling, pools_prompt, dense = "mean", True, []
        for kind, path in steps[1:]:
            if kind == "Pooling":
                pooling, pools_prompt = _pooling(_json(path / "config.json") or {})
            elif kind == "Dense":
                dense.append(_dense(path))
            elif kind != "Normalize":  # vectors are scaled to unit length in any case
                raise ValueError(f"modules.json asks for a step {kind!r}")
        transformer = steps[0][1]
        limit = (_json(transformer / "sentence_bert_config.json") or {}).get("max_seq_length")
        return Recipe(transformer, pooling, tuple(dense),
                      _prompts(_json(folder / "config_sentence_transformers.json") or {}),
                      pools_prompt, int(limit or Recipe.max_tokens))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"the model in {folder} cannot be used: {error}") from error


def _json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _pooling(config):
    mode = config.get("pooling_mode")
    if mode is None:
        flags = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken",
                 "max": "max_tokens", "mean_sqrt_len": "mean_sqrt_len_tokens",
                 "weightedmean": "weightedmean_tokens"}
        chosen = [name for name, flag in flags.items() if config.get(f"pooling_mode_{flag}")]
    else:
        chosen = [mode] if isinstance(mode, str) else list(mode)
    chosen = chosen or ["mean"]
    if len(chosen) > 1 or chosen[0] not in POOLINGS:
        raise ValueError(f"it asks for pooling by {' and '.join(chosen)}; offered are "
                         f"{', '.join(POOLINGS)}")
    return chosen[0], bool(config.get("include_prompt", True))


def _dense(path):
    activation = str(_json(path / "config.json")["activation_function"]).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise ValueError(f"its dense layer asks for the activation {activation!r}; offered are "
                         f"{', '.join(_ACTIVATIONS)}")
    weights = path / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{weights} is missing; other formats can hold code and are not loaded")
    return weights, activation


def _prompts(config):
    known = config.get("prompts") or {}
    default = known.get(config.get("default_prompt_name"), "")
    return {kind: next((known[name] for name in names if name in known), default)
            for kind, names in _PROMPT_NAMES.items()}
