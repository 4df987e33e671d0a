"""Two projection heads that carry event vectors and text vectors into one space.

Each head is a small residual network whose output is scaled to unit length; training
(`losses.grouped_info_nce`) moves the projections of a source and of its descriptions together and
all others apart. After it, the cosine between any two projections, whatever side they come from,
says how well they match.
"""

import numpy as np
import torch
from sklearn.base import BaseEstimator

from .._files import BUNDLED, read_tensors, write_tensors
from ..errors import MissingModelError, ModelFileError
from ..text.slots import N_SLOTS, NUMBER_SLOTS, slot_names
from .fitting import Batches, Fit, Pairs, Sizes, identity_of, sizes_for
from .heads import EventHead, Head, TextHead
from .losses import LOSSES, ContrastiveLoss

__all__ = ["Aligner"]

_KIND, _VERSION = "aligner", 3
_CLIP = 6.0  # robust standard deviations; no single entry may dominate a vector
_TEXT_DROPOUT = 0.5  # wording is learned by heart sooner than photons are
_LEAST_KEPT = 0.4  # share of the slots that most texts keep, unless they lose them all
_QUESTIONS = 0.5  # share of texts without prose that state few facts
_VALIDATION_ROWS = 1024  # more would make each check slower, not better
_BINS = 8  # of each event feature; twice as many find no more
_CHUNK = 8192  # rows per forward pass outside training
_SCALES = ("_event_centre", "_event_spread", "_text_centre", "_text_spread")


class Aligner(BaseEstimator):
    """Project event vectors and text vectors into a shared space.

    Parameters
    ----------
    n_shared : int, optional
        Dimension of the shared space.
    n_hidden : int, optional
        Width of the heads; by default chosen from the number of sources (Notes).
    dropout : float, optional
        Share of hidden units of the event head dropped in training; by default chosen, too. Of
        prose it is always one half, of slots none.
    n_slots : int, optional
        The last ``n_slots`` columns of a text vector are slots
        (`stingray_align.text.slots.slot_vector`); 0 for none.
    slot_dropout : float, optional
        Probability with which a text loses all its slots in training, which makes prose without
        any slots usable. The others keep 40 to 100 % of them.
    learning_rate : float, optional
        Peak rate of AdamW, after a warm-up and before a cosine decay.
    prose_dropout : float, optional
        Probability with which a text that keeps slots loses its prose in training. It keeps facts
        usable whose wording is new. Half of these texts keep one to four slots, as a question has.
    loss : {"infonce", "siglip"}, optional
        `~stingray_align.alignment.grouped_info_nce` or
        `~stingray_align.alignment.grouped_siglip`.
    batch_size : int, optional
        Pairs per step (fewer if there are fewer); by default chosen.
    n_steps : int, optional
        Most optimiser steps; by default chosen. Fewer than 500 underfit whatever the data
        (dropout).
    seed : int, optional
        Same data and seed, same result (on one machine and number of threads).
    progress : bool, optional
        Show a progress bar while fitting.

    Attributes
    ----------
    sizes_ : Sizes
        ``n_hidden``, ``dropout``, ``batch_size`` and ``n_steps`` that were given or chosen.
    n_events_in_, n_texts_in_ : int
        Lengths of the vectors on both sides.
    feature_names_ : tuple of str or None
        Names of the entries of the event vectors, if they were given.
    text_model_ : str or None
        Name of the text encoder, if it was given.
    history_ : list of (int, float)
        Step and validation score: mean log rank of the right partner on held-out groups, over
        both directions, with and without slots (0 is perfect); the training loss if there is no
        validation set.
    best_step_ : int
        The step whose weights were kept.
    logit_scale_ : float
        The inverse temperature learned.

    Notes
    -----
    Sizes that are not given follow from the number of groups outside the validation set. Below
    4,000: width 256, dropout 0.5, batches of 256 pairs and 15 steps times the square root of the
    number, at least 600. Above: 512, 0.3, 512, and 40 steps, or a sixth of the number of groups if
    that is more.

    Training ends when a third of the steps has brought no better score on the validation set.

    Event vectors are standardised by median and the 16-84 % range of the training rows and clipped
    at 6, so outliers cannot explode; text vectors by mean and a common standard deviation, slots
    not at all. Event features and numbers among the slots are encoded piecewise linearly, too.

    References
    ----------
    Radford et al. 2021, arXiv:2103.00020; Khosla et al. 2020, arXiv:2004.11362; Gorishniy et al.
    2022, arXiv:2203.05556.

    Examples
    --------
    >>> import numpy as np
    >>> from stingray_align import Aligner
    >>> rng = np.random.default_rng(1)
    >>> truth = rng.normal(size=(200, 3))
    >>> events = truth @ rng.normal(size=(3, 10))
    >>> texts = truth @ rng.normal(size=(3, 8))
    >>> aligner = Aligner(n_shared=8, n_hidden=32, n_slots=0, n_steps=50, batch_size=64)
    >>> aligner = aligner.fit(events, texts)
    >>> similarity = aligner.transform_events(events) @ aligner.transform_texts(texts).T
    >>> similarity.shape, bool(np.diag(similarity).mean() > 0.5)
    ((200, 200), True)
    """

    def __init__(self, *, n_shared=128, n_hidden=None, dropout=None, n_slots=N_SLOTS,
                 slot_dropout=0.35, prose_dropout=0.4, loss="infonce", learning_rate=2e-3,
                 batch_size=None, n_steps=None, seed=0, progress=False):
        self.n_shared = n_shared
        self.n_hidden = n_hidden
        self.dropout = dropout
        self.n_slots = n_slots
        self.slot_dropout = slot_dropout
        self.prose_dropout = prose_dropout
        self.loss = loss
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_steps = n_steps
        self.seed = seed
        self.progress = progress

    # -- fitting ------------------------------------------------------------------------------

    def fit(self, event_vectors, text_vectors, groups=None, *, validation_fraction=0.1,
            feature_names=None, text_model=None, checkpoint=None, start=None, keep_texts=False):
        """Train both heads.

        Parameters
        ----------
        event_vectors : array_like, shape (n, n_events_in)
            One row per pair.
        text_vectors : array_like, shape (n, n_texts_in)
            The text of each row; the last ``n_slots`` columns are slots. Zeros in all others mean
            that there is no prose.
        groups : array_like, shape (n,), optional
            What each row is about. Rows of one group (other observations, other descriptions of a
            source) are right answers for each other; rows with equal text vectors are, too. Without
            it each row is its own group.
        validation_fraction : float, optional
            Share of the *groups* kept aside, up to 1,024 of them; the weights that rank them best
            are kept. 0 trains on everything and keeps the last weights.
        feature_names : sequence of str, optional
            Names of the event vectors' entries (``Embedding.feature_names``), checked later on.
        text_model : str, optional
            Name of the text encoder, remembered.
        checkpoint : str or Path, optional
            File to write the state of the training to, 30 times on the way. If it is there, the
            training goes on from it and ends as it would have without the interruption; it is
            removed at the end.
        start : Aligner, optional
            A fitted aligner whose heads, temperature and scales this one begins with, such as
            `Aligner.pretrained()` where there are few pairs of one's own. Its vectors and sizes
            must be the same. By default training begins with random weights.
        keep_texts : bool, optional
            Keep the text head of ``start`` as it is and train that of the events alone, for vectors
            of another autodecoder (locked tuning: Zhai et al. 2022, arXiv:2111.07991).

        Returns
        -------
        Aligner
            The object itself.

        Raises
        ------
        ValueError
            If shapes do not agree, values are not finite, there are too few groups, the
            checkpoint belongs to another training, or ``start`` is of another kind or missing.
        """
        events = _matrix(event_vectors, "event_vectors")
        texts = _matrix(text_vectors, "text_vectors")
        n = len(events)
        if len(texts) != n:
            raise ValueError(
                f"rows are pairs: {n} event vectors but {len(texts)} text vectors"
            )
        self._check_parameters(texts.shape[1])
        if feature_names is not None and len(feature_names) != events.shape[1]:
            raise ValueError(
                f"{len(feature_names)} feature names for {events.shape[1]} event features"
            )
        if keep_texts and start is None:
            raise ValueError("keep_texts needs the aligner whose text head to keep: give start")
        groups = np.arange(n) if groups is None else np.asarray(groups)
        if groups.shape != (n,):
            raise ValueError(f"groups has shape {groups.shape}, expected ({n},)")
        if not 0 <= validation_fraction < 1:
            raise ValueError("validation_fraction must be at least 0 and below 1")
        groups = np.unique(groups, return_inverse=True)[1]
        rng = np.random.default_rng(self.seed)
        n_groups = groups.max() + 1
        n_held_out = min(round(validation_fraction * n_groups), _VALIDATION_ROWS)
        held_out = rng.permutation(n_groups)[:n_held_out]
        is_valid = np.isin(groups, held_out)
        if n_groups - len(held_out) < 2:
            raise ValueError(
                f"{n_groups} group(s) cannot be told apart: contrastive training needs at least "
                "two outside the validation set"
            )

        chosen = sizes_for(n_groups - len(held_out))
        if start is not None:
            start._check_fitted()
            chosen = chosen._replace(n_hidden=start.sizes_.n_hidden)
        given = {name: getattr(self, name) for name in chosen._fields}
        self.sizes_ = chosen._replace(**{k: v for k, v in given.items() if v is not None})
        self.n_events_in_, self.n_texts_in_ = events.shape[1], texts.shape[1]
        self.feature_names_ = None if feature_names is None else tuple(map(str, feature_names))
        self.text_model_ = None if text_model is None else str(text_model)
        if start is None:
            edges = self._standardise(events[~is_valid], texts[~is_valid])
        else:
            self._check_start(start)
            edges = start._event_head.bins.edges
            for name in _SCALES:
                setattr(self, name, getattr(start, name))
        data = Pairs(self._scale_events(events), self._scale_texts(texts), groups)
        # torch draws initial weights from its global generator: seed it inside a fork and leave
        # the caller's state as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self._event_head, self._text_head = self._make_heads(edges)
        self._text_head.requires_grad_(not keep_texts)
        loss = ContrastiveLoss(self.loss)
        if start is not None:
            self._event_head.load_state_dict(start._event_head.state_dict())
            self._text_head.load_state_dict(start._text_head.state_dict())
            torch.nn.init.constant_(loss.log_scale, np.log(start.logit_scale_))
        self._train(data, loss, np.flatnonzero(~is_valid), np.flatnonzero(is_valid), rng,
                    checkpoint)
        return self

    def _check_start(self, start):
        for name in ("n_events_in_", "n_texts_in_", "n_shared", "n_slots", "feature_names_",
                     "text_model_"):
            ours, theirs = getattr(self, name), getattr(start, name)
            if ours != theirs and None not in (ours, theirs):
                raise ValueError(f"this aligner cannot begin where start ended: {name} is "
                                 f"{ours!r} here and {theirs!r} there")
        if self.sizes_.n_hidden != start.sizes_.n_hidden:
            raise ValueError(f"n_hidden is {self.sizes_.n_hidden}, and {start.sizes_.n_hidden} in "
                             "start: leave it out")

    def _check_parameters(self, n_texts_in):
        for name in ("n_shared", "n_hidden", "batch_size", "n_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("dropout", "slot_dropout", "prose_dropout"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r} is none of {', '.join(LOSSES)}")
        if not 0 <= self.n_slots < n_texts_in:
            raise ValueError(
                f"text vectors have {n_texts_in} entries, of which n_slots={self.n_slots} are "
                "slots: nothing is left for the prose (see text_vectors)"
            )

    def _standardise(self, events, texts):
        """Fix the scales of all entries; return edges that share out those of the events evenly."""
        low, centre, high, *edges = np.percentile(
            events, [16, 50, 84, *np.linspace(0, 100, _BINS + 1)], axis=0)
        spread = (high - low) / 2
        # An entry that is mostly one value has no percentile range but may still say something.
        # What single precision cannot tell from a constant is one.
        rounding = 1e-6 * np.abs(centre)
        spread = np.where(spread > rounding, spread, events.std(axis=0))
        self._event_centre = centre.astype(np.float32)
        self._event_spread = np.where(spread > rounding, spread, 1.0).astype(np.float32)
        prose = texts[:, : texts.shape[1] - self.n_slots]
        common = float(prose.std(axis=0).mean()) or 1.0
        self._text_centre = np.zeros(texts.shape[1], np.float32)
        self._text_spread = np.ones(texts.shape[1], np.float32)
        self._text_centre[: prose.shape[1]] = prose.mean(axis=0)
        self._text_spread[: prose.shape[1]] = common
        return torch.from_numpy(self._scale_events(np.array(edges)).T.copy())

    def _scale_events(self, events):
        return _scaled(events, self._event_centre, self._event_spread)

    def _scale_texts(self, texts):
        scaled = _scaled(texts, self._text_centre, self._text_spread)
        n_prose = self.n_texts_in_ - self.n_slots
        # Without prose, as in training; a vector of prose has unit length.
        scaled[~texts[:, :n_prose].any(axis=1), :n_prose] = 0
        return scaled

    def _make_heads(self, edges):
        width, dropout = self.sizes_.n_hidden, self.sizes_.dropout
        events = EventHead(edges, width, self.n_shared, dropout)
        if not self.n_slots:
            return events, Head(self.n_texts_in_, width, self.n_shared, _TEXT_DROPOUT)
        n_numbers = len(NUMBER_SLOTS) if self.n_slots == N_SLOTS else 0
        return events, TextHead(self.n_texts_in_, width, self.n_shared, _TEXT_DROPOUT,
                                self.n_slots, n_numbers)

    def _train(self, data, loss, train, valid, rng, checkpoint=None):
        _, _, batch_size, n_steps = self.sizes_
        fit = Fit(
            (self._event_head, self._text_head), loss,
            Batches(data.groups, train, min(batch_size, len(train)), rng), n_steps=n_steps,
            learning_rate=self.learning_rate, checkpoint=checkpoint,
            identity=identity_of(self.get_params() | {
                "progress": None, "logit_scale": loss.log_scale.item(),
                "keep_texts": not next(self._text_head.parameters()).requires_grad}, data, train))
        valid = np.random.default_rng(self.seed).permutation(valid)[:_VALIDATION_ROWS]
        score = (lambda: self._validation_score(data, valid)) if len(valid) else None
        fit.run(data, self._drop_parts, score, self.progress)
        for parameter in (*self._event_head.parameters(), *self._text_head.parameters()):
            # As in a file, so that what was saved projects as what was fitted.
            parameter.data = parameter.data.half().float()
        self._text_head.requires_grad_(True)
        self.history_, self.best_step_ = fit.history, fit.best_step
        self.logit_scale_ = float(fit.loss.log_scale.detach().exp())

    @torch.no_grad()
    def _validation_score(self, data, valid):
        # Ranks, not the loss: with few sources the loss soon grows from overconfidence while the
        # ranks on unseen sources still improve, and its minimum would stop training far too early.
        events = self._event_head(torch.from_numpy(data.events[valid]))
        wrong = ~torch.from_numpy(data.positives(valid, valid))
        bare = data.texts[valid].copy()
        bare[:, self.n_texts_in_ - self.n_slots:] = 0
        scores = []
        for texts in [data.texts[valid], bare] if self.n_slots else [data.texts[valid]]:
            similarity = events @ self._text_head(torch.from_numpy(texts)).T
            own = similarity.diagonal()
            for better in (similarity > own[:, None], similarity.T > own[:, None]):
                scores.append(float((1.0 + (better & wrong).sum(dim=1)).log().mean()))
        return float(np.mean(scores))

    def _drop_parts(self, texts, rng):
        """Texts as they are shown in training: without slots, with some, or without the prose."""
        if not self.n_slots:
            return texts
        n, n_prose = len(texts), self.n_texts_in_ - self.n_slots
        # Values and masks of a slot go together: a mask without its value would be a lie.
        slot_of_column = _slot_of_column(self.n_slots)
        columns = np.eye(slot_of_column.max() + 1, dtype=np.float32)[slot_of_column]
        known = (texts[:, n_prose:] != 0) @ columns > 0
        # How many slots a summary keeps differs from one to the next.
        kept = rng.random(known.shape) < 1 - (1 - _LEAST_KEPT) * rng.random((n, 1))
        fate = rng.random((n, 1))
        kept &= fate >= self.slot_dropout
        # From slots alone the model learns not to lean on wording that it knows.
        told = fate < 1 - self.prose_dropout * (1 - self.slot_dropout)
        told |= ~known.any(axis=1, keepdims=True)
        # A question states one to four facts.
        order = np.where(known, rng.random(known.shape), 2.0).argsort(axis=1).argsort(axis=1)
        asked = ~told & (rng.random((n, 1)) < _QUESTIONS)
        kept = np.where(asked, order < rng.integers(1, 5, (n, 1)), kept)
        texts = texts.copy()
        texts[:, n_prose:] *= kept @ columns.T
        texts[:, :n_prose] *= told
        return texts

    # -- projecting ---------------------------------------------------------------------------

    def transform_events(self, event_vectors, *, feature_names=None):
        """Project event vectors.

        Parameters
        ----------
        event_vectors : array_like, shape (n, n_events_in)
        feature_names : sequence of str, optional
            Names of the entries, compared with those seen in `fit`.

        Returns
        -------
        ndarray, shape (n, n_shared), float32
            Unit vectors.

        Raises
        ------
        ModelFileError
            If the vectors come from another model than the aligner was fitted with.
        ValueError
            If a value is not finite.
        """
        self._check_fitted()
        events = _matrix(event_vectors, "event_vectors", may_be_empty=True)
        advice = (
            "use the autodecoder the aligner was fitted with, or fit the aligner again "
            "(`stingray-align align`)"
        )
        if events.shape[1] != self.n_events_in_:
            raise ModelFileError(
                f"event vectors have {events.shape[1]} features and the aligner expects "
                f"{self.n_events_in_}: {advice}"
            )
        if feature_names is not None and self.feature_names_ is not None:
            for i, (ours, theirs) in enumerate(zip(self.feature_names_, feature_names)):
                if ours != theirs:
                    raise ModelFileError(
                        f"feature {i} of the event vectors is {theirs!r} and the aligner expects "
                        f"{ours!r}: {advice}"
                    )
        return self._project(self._event_head, self._scale_events(events))

    def transform_texts(self, text_vectors):
        """Project text vectors (`stingray_align.text.text_vectors`).

        Parameters
        ----------
        text_vectors : array_like, shape (n, n_texts_in)

        Returns
        -------
        ndarray, shape (n, n_shared), float32
            Unit vectors.

        Raises
        ------
        ModelFileError
            If the vectors come from another text encoder.
        ValueError
            If a value is not finite.
        """
        self._check_fitted()
        texts = _matrix(text_vectors, "text_vectors", may_be_empty=True)
        if texts.shape[1] != self.n_texts_in_:
            raise ModelFileError(
                f"text vectors have {texts.shape[1]} entries and the aligner expects "
                f"{self.n_texts_in_} ({self.n_texts_in_ - self.n_slots} of the encoder"
                f"{f' {self.text_model_!r}' if self.text_model_ else ''}, {self.n_slots} slots): "
                "use that encoder and `text_vectors`, or fit the aligner again"
            )
        return self._project(self._text_head, self._scale_texts(texts))

    @torch.no_grad()
    def _project(self, head, scaled):
        out = np.empty((len(scaled), self.n_shared), np.float32)
        for first in range(0, len(scaled), _CHUNK):
            part = torch.from_numpy(np.ascontiguousarray(scaled[first:first + _CHUNK]))
            out[first:first + _CHUNK] = head(part).numpy()
        return out

    def _check_fitted(self):
        if not hasattr(self, "n_events_in_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("this Aligner is not fitted: call fit, load or pretrained first")

    # -- files --------------------------------------------------------------------------------

    def save(self, path):
        """Write the fitted aligner to one safetensors file, whole or not at all.

        Weights are stored in half precision, to which `fit` rounds them.

        Parameters
        ----------
        path : str or Path
        """
        self._check_fitted()
        tensors = {
            "event_centre": self._event_centre, "event_spread": self._event_spread,
            "text_centre": self._text_centre, "text_spread": self._text_spread,
        }
        for side, head in (("event", self._event_head), ("text", self._text_head)):
            for name, value in head.state_dict().items():
                tensors[f"{side}_head.{name}"] = value.half().numpy()
        about = {
            "parameters": self.get_params(), "n_events_in": self.n_events_in_,
            "n_texts_in": self.n_texts_in_, "feature_names": self.feature_names_,
            "text_model": self.text_model_, "history": self.history_,
            "best_step": self.best_step_, "logit_scale": self.logit_scale_,
            "sizes": self.sizes_,
        }
        write_tensors(path, tensors, kind=_KIND, version=_VERSION, about=about)

    @classmethod
    def load(cls, path):
        """Read an aligner written by `save`.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        Aligner

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ModelFileError
            If it is damaged or of another version.
        """
        tensors, about = read_tensors(path, kind=_KIND, version=_VERSION)
        try:
            self = cls(**about["parameters"])
            self.n_events_in_, self.n_texts_in_ = about["n_events_in"], about["n_texts_in"]
            self.sizes_ = Sizes(*about["sizes"])
            names = about["feature_names"]
            self.feature_names_ = None if names is None else tuple(names)
            self.text_model_ = about["text_model"]
            self.history_ = [(step, loss) for step, loss in about["history"]]
            self.best_step_, self.logit_scale_ = about["best_step"], about["logit_scale"]
            for name in ("event_centre", "event_spread", "text_centre", "text_spread"):
                setattr(self, f"_{name}", tensors[name])
            with torch.random.fork_rng(devices=[]):
                self._event_head, self._text_head = self._make_heads(
                    torch.from_numpy(tensors["event_head.bins.edges"]))
            for side, head in (("event", self._event_head), ("text", self._text_head)):
                prefix = f"{side}_head."
                head.load_state_dict({name.removeprefix(prefix): torch.from_numpy(value)
                                      for name, value in tensors.items()
                                      if name.startswith(prefix)})
                head.eval()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"{path} does not hold a complete aligner ({error}); "
                "make it again with `stingray-align align`"
            ) from error
        return self

    @classmethod
    def pretrained(cls):
        """The aligner that comes with the package, trained on simulated sources.

        Returns
        -------
        Aligner

        Raises
        ------
        MissingModelError
            If the package was installed without its data.
        """
        path = BUNDLED / "catalogue" / "aligner.safetensors"
        if not path.is_file():
            raise MissingModelError(
                f"the bundled aligner is missing ({path.name}); install the package again or make "
                "it with `stingray-align align`"
            )
        return cls.load(path)


def _scaled(values, centre, spread):
    """Standardised and clipped, in one new array: the texts of many sources fill gigabytes."""
    scaled = values - centre
    scaled /= spread
    return np.clip(scaled, -_CLIP, _CLIP, out=scaled).astype(np.float32, copy=False)


def _slot_of_column(n_slots):
    """Number of the slot each column belongs to: values and masks of a slot share one."""
    if n_slots != N_SLOTS:
        return np.arange(n_slots)
    owners = [name.split(":")[0].removesuffix(" known") for name in slot_names()]
    return np.unique(owners, return_inverse=True)[1]


def _matrix(values, name, *, may_be_empty=False):
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or (not len(values) and not may_be_empty):
        raise ValueError(f"{name} must be a table (n, n_features) with at least one row, "
                         f"not an array of shape {values.shape}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"{name} holds NaN or infinite values (first in row {row}): "
                         "leave such rows out")
    return values
