"""A catalogue of sources in the shared space: searched by words, by photons, read for physics.

A catalogue holds, for each source, a row of facts (a table), the projection of its photons and
those of its summaries. Vectors are kept in half precision, the search is exact.
"""

import gzip
import io
import json
import zlib
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable

from .._files import BUNDLED, atomic_directory, read_tensors, write_tensors
from ..errors import MissingModelError, ModelFileError
from ..photons import Photons
from ..text.summary import Summary
from ._search import top_k
from ._selection import selection
from .aligner import Aligner

__all__ = ["AlignedCatalog"]

_KIND, _VERSION = "catalogue", 2
_ALIGNER, _VECTORS, _SOURCES, _TEXTS = (
    "aligner.safetensors", "vectors.safetensors", "sources.ecsv.gz", "texts.json.gz")
_ADDED = ("rank", "similarity", "text", "text_kind")  # columns of a query's answer
_TARGETS = ("sources", "texts")
_NEIGHBOURS = 200  # that may vote on parameters; the temperature decides how far down
_TEMPERATURES = np.geomspace(0.003, 1.0, 51)
_INVERSE_PENALTY = 7.0  # of the logistic regression on classes
_MOST_FITTED = 50_000  # sources that it needs
_DOUBT = 0.01  # probability shared out over all classes: a catalogue is never the whole sky
_FEWEST_PEERS = 200  # sources of similar photon counts that novelty is judged against


class AlignedCatalog:
    """Sources with their photons and summaries in one shared space.

    Usually made by `build`, `load` or `pretrained`.

    Parameters
    ----------
    aligner : Aligner
        Fitted; it made the vectors below and projects what is asked.
    table : astropy.table.QTable, n rows
        Facts of each source. ``counts`` (photons in 0.5-8 keV) is needed; ``name``, ``class``,
        ``ra`` and ``dec`` are used where present, everything else is carried along.
    source_vectors : array_like, shape (n, n_shared)
        Projected event vectors.
    texts : sequence of Summary, m entries, optional
        Summaries.
    text_vectors : array_like, shape (m, n_shared), optional
        Their projections.
    text_sources : array_like of int, shape (m,), optional
        The row of the table each summary is about.
    model : PoissonAutodecoder, optional
        Embeds events that are asked about; the bundled one by default.
    encoder : TextEncoder, optional
        Encodes texts that are asked about; the default one by default.
    temperature : float, optional
        Softmax temperature of the neighbours' vote; chosen by `calibrate` on the catalogue itself
        (each source left out in turn) if not given.
    classifier : array_like, shape (n_classes, n_shared + 1), optional
        See `classifier`; fitted to the catalogue itself when first needed if not given.
    held_out : mapping of array_like, optional
        What `calibrate` learned from sources that are not in the catalogue: ``loneliness`` and
        ``counts``, shape (m,), for novelty, and ``stretch``, shape (n_parameters, 3), for the
        intervals of `PARAMETERS`. Without, the catalogue's own sources are used, each left out
        in turn.
    autodecoder : str, optional
        `PoissonAutodecoder.fingerprint` of the model that made the vectors: embeddings of another
        one are then refused.

    Attributes
    ----------
    classes : tuple of str
        Names found in the column ``class``, sorted; empty without that column. A masked class is
        unknown, as one with an empty name.

    Examples
    --------
    >>> import stingray_align as sa
    >>> catalogue = sa.AlignedCatalog.pretrained()  # doctest: +SKIP
    >>> found = catalogue.query("a soft source that eclipses every few hours")  # doctest: +SKIP
    >>> print(found["rank", "similarity", "name", "class"])  # doctest: +SKIP
    """

    def __init__(self, *, aligner, table, source_vectors, texts=(), text_vectors=None,
                 text_sources=None, model=None, encoder=None, temperature=None, classifier=None,
                 held_out=None, autodecoder=None):
        n = len(table)
        if n == 0:
            raise ValueError("a catalogue needs at least one source")
        if "counts" not in table.colnames:
            raise ValueError("the table needs a column 'counts' (photons in 0.5-8 keV)")
        if clash := [name for name in _ADDED if name in table.colnames]:
            raise ValueError(f"column names {clash} are used for answers: rename them")
        texts = list(texts)
        if text_vectors is None:
            text_vectors = np.empty((0, aligner.n_shared))
        text_sources = np.asarray([] if text_sources is None else text_sources, dtype=np.int64)
        source_vectors = np.asarray(source_vectors, np.float16)
        text_vectors = np.asarray(text_vectors, np.float16)
        if source_vectors.shape != (n, aligner.n_shared):
            raise ValueError(f"source_vectors has shape {source_vectors.shape}, expected "
                             f"({n}, {aligner.n_shared})")
        if not (text_vectors.shape == (len(texts), aligner.n_shared)
                and text_sources.shape == (len(texts),)):
            raise ValueError("texts, text_vectors and text_sources must have one row per text")
        for name, vectors in (("source_vectors", source_vectors), ("text_vectors", text_vectors)):
            if not np.isfinite(vectors).all():
                raise ValueError(f"{name} holds NaN or infinite values: leave such rows out")
        if len(texts) and not 0 <= text_sources.min() <= text_sources.max() < n:
            raise ValueError("text_sources points outside the table")
        self.aligner, self.table = aligner, table
        self.source_vectors, self.text_vectors = source_vectors, text_vectors
        self.texts, self.text_sources = texts, text_sources
        self._model, self._encoder, self._autodecoder = model, encoder, autodecoder
        self._plane = None
        self._class = np.zeros(n, dtype=int)
        self.classes = ()
        if "class" in table.colnames:
            names, self._class = np.unique(_names(table["class"]), return_inverse=True)
            self.classes = tuple(names.tolist())
        self._own = self._left_out = None
        if temperature is None:
            similarity, index = self._own_neighbours()
            temperature = self._best_temperature(similarity[:, None], index[:, None],
                                                 self._class)[0]
        self.temperature = float(temperature)
        self._classifier = None if classifier is None else np.asarray(classifier, np.float32)
        shape = max(1, len(self.classes)), aligner.n_shared + 1
        if classifier is not None and self._classifier.shape != shape:
            raise ValueError(f"classifier has shape {self._classifier.shape}, expected {shape}")
        self._held_out = None if held_out is None else {
            name: np.asarray(values, np.float32) for name, values in held_out.items()}

    def _own_neighbours(self):
        """Similarity and row of each source's neighbours, itself left out."""
        if self._own is None:
            self._own = top_k(self.source_vectors, self.source_vectors, _NEIGHBOURS,
                              exclude=np.arange(len(self)))
        return self._own

    def __len__(self):
        return len(self.table)

    def __repr__(self):
        return (f"<AlignedCatalog: {len(self)} sources, {len(self.texts)} texts, "
                f"{len(self.classes)} classes>")

    # -- making one ---------------------------------------------------------------------------

    @classmethod
    def build(cls, event_lists, summaries, *, table=None, model=None, encoder=None, aligner=None):
        """Embed and project sources and their summaries.

        Parameters
        ----------
        event_lists : sequence of stingray.EventList, or Photons
            One per source.
        summaries : sequence
            For each source a Summary, a str, several of them (a list or tuple), or None. The
            paraphrase of a Summary is one more text.
        table : astropy.table.Table, optional
            Facts of the sources, in the same order. ``name``, ``counts``, ``exposure``,
            ``duration`` and ``instrument`` are added if missing.
        model : PoissonAutodecoder, optional
            Default: the bundled one.
        encoder : TextEncoder, optional
            Default: the package's default.
        aligner : Aligner, optional
            Default: the bundled one.

        Returns
        -------
        AlignedCatalog

        Raises
        ------
        ValueError
            If there are no sources, the lengths do not agree, or all summaries are one str.
        ModelFileError
            If model, encoder and aligner do not belong together.
        """
        from ..autodecoder import PoissonAutodecoder, embed_vectors
        from ..autodecoder.readouts import feature_names

        if not len(event_lists):
            raise ValueError("a catalogue needs at least one source")
        if isinstance(summaries, str):
            raise ValueError("summaries must have one entry per source: a single str is not split")
        if len(summaries) != len(event_lists) or table is not None and len(table) != len(summaries):
            raise ValueError("event_lists, summaries and table must have one entry per source")
        photons = event_lists
        if not isinstance(photons, Photons):
            photons = Photons.from_events(event_lists)
        model = PoissonAutodecoder.pretrained() if model is None else model
        if aligner is None:
            if model.fingerprint != PoissonAutodecoder.pretrained().fingerprint:
                raise ModelFileError("the bundled aligner belongs to the bundled autodecoder; give "
                                     "an aligner that was fitted to vectors of this model")
            aligner = Aligner.pretrained()
        vectors = aligner.transform_events(embed_vectors(photons, model),
                                           feature_names=feature_names(model.n_latent))
        texts, text_sources = [], []
        for i, entry in enumerate(summaries):
            for one in entry if isinstance(entry, (list, tuple)) else [entry]:
                if one is not None:
                    wordings = (one if isinstance(one, Summary) else Summary(one)).wordings()
                    texts += wordings
                    text_sources += [i] * len(wordings)
        projected = None
        if texts:
            from ..text.encoder import TextEncoder, text_vectors

            encoder = TextEncoder() if encoder is None else encoder
            _check_encoder(encoder, aligner)
            projected = aligner.transform_texts(text_vectors(texts, encoder))
        return cls(aligner=aligner, table=_fill_table(table, photons), source_vectors=vectors,
                   texts=texts, text_vectors=projected, text_sources=text_sources, model=model,
                   encoder=encoder, autodecoder=model.fingerprint)

    def calibrate(self, vectors, classes, *, table=None):
        """Choose the temperature of the neighbours' vote on sources that are not in the catalogue.

        It is the one with which a vote on their class would have the least log loss. With a table,
        the p-values of novelty and the intervals of the parameters are calibrated on the same
        sources.

        Parameters
        ----------
        vectors : array_like, shape (n, n_shared) or (n, n_draws, n_shared)
            Projected event vectors of sources with known class, or draws of them, whose votes are
            averaged.
        classes : sequence of str
            Their classes; those the catalogue does not know are left out.
        table : astropy.table.QTable, n rows, optional
            Their true parameters and ``counts``, in the units of the catalogue's table.

        Returns
        -------
        float
            Mean log loss in nats at the temperature chosen, which becomes ``temperature``.
        """
        classes = _names(classes)
        known = np.isin(classes, self.classes)
        if not known.any():
            raise ValueError("none of these classes is in the catalogue")
        truth = np.searchsorted(self.classes, classes[known])
        everything, vectors = np.asarray(vectors), np.asarray(vectors)[known]
        shape = (*vectors.shape[:-1], -1) if vectors.ndim == 3 else (len(vectors), 1, -1)
        similarity, index = (found.reshape(shape) for found in top_k(
            vectors.reshape(-1, vectors.shape[-1]), self.source_vectors, _NEIGHBOURS))
        self.temperature, loss = self._best_temperature(similarity, index, truth)
        if table is not None:
            self._calibrate_on(everything.reshape(len(everything), -1, everything.shape[-1]), table)
        return loss

    def _calibrate_on(self, vectors, table):
        from .intervals import stretches

        weights = [self.neighbour_weights(own) for own in vectors]
        counts = _plain(table["counts"])
        self._held_out = {
            "loneliness": np.array([self.loneliness(own) for own in vectors], np.float32),
            "counts": counts.astype(np.float32),
            "stretch": stretches(self.table, weights, table, counts).astype(np.float32)}

    @property
    def held_out(self):
        """What `calibrate` learned, or the same from the catalogue's own sources left out."""
        if self._held_out is not None:
            return self._held_out
        if self._left_out is None or self._left_out[0] != self.temperature:
            self._left_out = self.temperature, self._leave_out_each()
        return self._left_out[1]

    def _leave_out_each(self):
        from .intervals import stretches

        similarity, index = self._own_neighbours()
        counts = _plain(self.table["counts"])
        scores = similarity / self.temperature
        # A thousand sources tell the width of an interval well enough.
        rows = np.arange(0, len(self), max(1, len(self) // 1000)) if scores.size else []
        weights = []
        for row in rows:
            own = np.zeros(len(self))
            own[index[row]] = _softmax(scores[row])
            weights.append(own)
        return {"loneliness": -_log_mean_exp(scores) if scores.size else np.zeros(len(self)),
                "counts": counts,
                "stretch": stretches(self.table, weights, self.table[rows], counts[rows])}

    def _best_temperature(self, similarity, index, truth):
        """From neighbours of shape (n_sources, n_draws, n_neighbours)."""
        if not similarity.size:
            return float(_TEMPERATURES[len(_TEMPERATURES) // 2]), 0.0
        right = self._class[index] == truth[:, None, None]
        losses = []
        for temperature in _TEMPERATURES:
            share = (_softmax(similarity / temperature) * right).sum(axis=-1).mean(axis=1)
            losses.append(-np.log(self._with_doubt(share)).mean())
        best = int(np.argmin(losses))
        return float(_TEMPERATURES[best]), float(losses[best])

    @property
    def classifier(self):
        """Multinomial logistic regression of the classes on the source vectors.

        Coefficients of each class, the intercept last, ndarray of float32, shape
        (n_classes, n_shared + 1).
        """
        if self._classifier is None:
            # Enough of a large catalogue, and each of its classes.
            order = np.argsort(self._class, kind="stable")
            some = order[::-(-len(self) // _MOST_FITTED)]
            rows = np.union1d(some, np.unique(self._class, return_index=True)[1])
            self._classifier = _logistic(self.source_vectors[rows], self._class[rows])
        return self._classifier

    def _with_doubt(self, share):
        return (1 - _DOUBT) * share + _DOUBT / max(1, len(self.classes))

    # -- asking -------------------------------------------------------------------------------

    def query(self, what, k=10, target="sources", *, cone=None, where=None, llm=None):
        """The sources or texts that match words or photons best.

        Parameters
        ----------
        what : str, Summary, stingray.EventList or Embedding
            A sentence is first rewritten into catalogue-style facts
            (`stingray_align.text.understand`); what was understood is in the answer's
            ``meta["understood"]``. Photons are embedded.
        k : int, optional
            Answers wanted; fewer come back from a smaller catalogue or selection.
        target : {"sources", "texts"}, optional
            Compare with the photons of the catalogue's sources or with its summaries.
        cone : (astropy.coordinates.SkyCoord, astropy.units.Quantity), optional
            Only sources within this radius of this position (columns ``ra``, ``dec``). Those
            without a position are in no cone.
        where : ndarray of bool, shape (n,), or callable, optional
            Only these sources; a callable gets the catalogue's table and returns the mask. What
            is masked in it is not selected.
        llm : LocalChat, OpenAIChat or alike, optional
            Rewrites a sentence instead of the bundled glossary.

        Returns
        -------
        astropy.table.QTable
            ``rank`` (from 1), ``similarity`` (cosine), for texts also ``text`` and ``text_kind``
            (who wrote it), and the columns of the catalogue.

        Raises
        ------
        ValueError
            For an unknown target, k below 1, an empty question, a mask of the wrong length, a
            cone that is none, or one on a catalogue without positions.
        TypeError
            If the question is neither words nor one observation.
        ModelFileError
            If the embedding or the text encoder is not the aligner's.

        Examples
        --------
        >>> from astropy import units as u
        >>> from astropy.coordinates import SkyCoord
        >>> import stingray_align as sa
        >>> catalogue = sa.AlignedCatalog.pretrained()  # doctest: +SKIP
        >>> m82 = SkyCoord("09h55m50s +69d40m47s")
        >>> catalogue.query("pulsations", cone=(m82, 1 * u.deg),
        ...                 where=lambda table: table["n_h"] > 1e22 / u.cm**2)  # doctest: +SKIP
        """
        if target not in _TARGETS:
            raise ValueError(f"target must be one of {_TARGETS}, not {target!r}")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        mask = selection(self.table, cone, where)
        vector, meta = self._project(what, llm)
        answer = self._nearest(vector, k, target, mask)
        answer.meta.update(meta)
        return answer

    def _nearest(self, vector, k, target, mask=None):
        on_texts = target == "texts"
        if on_texts and mask is not None:
            mask = mask[self.text_sources]
        similarity, index = top_k(vector, self.text_vectors if on_texts else self.source_vectors,
                                  k, mask=mask)
        index = index[0]
        answer = QTable({"rank": np.arange(1, len(index) + 1), "similarity": similarity[0]})
        answer["similarity"].info.format = ".3f"
        rows = index
        if on_texts:
            answer["text"] = np.array([self.texts[i].text for i in index], dtype=str)
            answer["text_kind"] = np.array(
                [self.texts[i].provenance.get("kind") or "" for i in index], dtype=str)
            rows = self.text_sources[index]
        facts = self.table[rows]
        for name in facts.colnames:
            answer[name] = facts[name]
        answer.meta["target"] = target
        return answer

    def rank_of(self, what, text, *, names=None, n_draws=32):
        """The rank that a source would have among the catalogue's, if this text were asked for.

        Of use to compare an observation with an edited one (`Embedding.edit`): does the eclipse
        make it look like the text?

        Parameters
        ----------
        what : stingray.EventList or Embedding, or sequence of them
            One row each.
        text : str or Summary
            As in `query`.
        names : sequence of str, optional
            What the rows are called.
        n_draws : int, optional
            Draws from the posterior for the interval.

        Returns
        -------
        astropy.table.QTable
            ``name``, ``rank`` (1: no source of the catalogue matches the text better),
            ``rank_lower`` and ``rank_upper`` (68 % of the posterior's draws), ``similarity``, and
            ``percentile``, the share of the catalogue that matches better, in %. ``meta`` holds
            what was understood.

        Examples
        --------
        >>> import stingray_align as sa
        >>> catalogue = sa.AlignedCatalog.pretrained()
        >>> events = sa.datasets.simulate_population(1, seed=1, counts=(300, 400)).event_lists[0]
        >>> embedding = sa.embed(events)
        >>> table = catalogue.rank_of([embedding, embedding.edit(n_h=5)], "heavily absorbed",
        ...                           names=["as observed", "behind gas"])
        >>> bool(table["rank"][1] < table["rank"][0])
        True
        """
        from stingray import EventList

        single = isinstance(what, EventList) or hasattr(what, "vector")
        embeddings = [self.embedding(one) for one in ([what] if single else what)]
        if names is None:
            names = [f"{number}" for number in range(1, len(embeddings) + 1)]
        if len(names) != len(embeddings):
            raise ValueError(f"{len(names)} names for {len(embeddings)} sources")
        asked, meta = self._project_text(text)
        others = np.sort((self.source_vectors.astype(np.float32) @ asked[0]))
        rows = []
        for name, embedding in zip(names, embeddings):
            vectors = np.concatenate([np.asarray(embedding.vector)[None],
                                      embedding.draws(n_draws, seed=0)])
            similarity = self.aligner.transform_events(
                vectors, feature_names=embedding.feature_names) @ asked[0]
            rank = 1 + len(others) - np.searchsorted(others, similarity, side="right")
            low, high = np.quantile(rank[1:], [0.16, 0.84])
            rows.append((str(name), int(rank[0]), low, high, float(similarity[0]),
                         100 * (rank[0] - 1) / len(others)))
        table = QTable(rows=rows, names=("name", "rank", "rank_lower", "rank_upper", "similarity",
                                         "percentile"))
        for name, form in (("rank_lower", ".0f"), ("rank_upper", ".0f"), ("similarity", ".3f"),
                           ("percentile", ".1f")):
            table[name].info.format = form
        table.meta.update(meta, n_sources=len(self))
        return table

    def interpret(self, what, k=10, llm=None, *, name=None):
        """Read what kind of source these photons come from, and why.

        Parameters
        ----------
        what : stingray.EventList or Embedding
            One observation.
        k : int, optional
            Texts and sources to list.
        llm : `~stingray_align.text.LocalChat` or `~stingray_align.text.OpenAIChat`, optional
            Writes one more paragraph, from the matched texts and measured facts only, which is
            checked (`stingray_align.alignment.grounded`). Anything with ``complete(messages) ->
            (answer, model)`` will do.
        name : str, optional
            What to call the observation in report, table and figure.

        Returns
        -------
        Interpretation
        """
        from .interpretation import interpret

        return interpret(self, what, k=k, llm=llm, name=name)

    def embedding(self, what):
        """The embedding of an event list, by the model of this catalogue.

        Parameters
        ----------
        what : stingray.EventList or Embedding
            An embedding is returned as it is.

        Returns
        -------
        Embedding

        Raises
        ------
        ModelFileError
            If the catalogue is known to be made with another autodecoder.
        TypeError
            If it is something else.
        """
        from stingray import EventList

        if hasattr(what, "vector") and hasattr(what, "feature_names"):
            self._check_autodecoder(getattr(what, "model", None))
            return what
        if not isinstance(what, EventList):
            raise TypeError(f"one event list or embedding is needed, not {type(what).__name__}")
        from ..autodecoder import embed

        embedding = embed(what, self._model)
        self._check_autodecoder(embedding.model)
        return embedding

    def _check_autodecoder(self, model):
        # Vectors of two trainings have the same names and other meanings.
        if None not in (self._autodecoder, model) and model.fingerprint != self._autodecoder:
            raise ModelFileError("the catalogue was made with another autodecoder, whose vectors "
                                 "mean something else: give that one (model=..., --model), or "
                                 "make a catalogue with this one")

    def project(self, what):
        """Shared vector of words or photons.

        Parameters
        ----------
        what : str, Summary, stingray.EventList or Embedding

        Returns
        -------
        ndarray, shape (1, n_shared), float32
            Unit vector.
        """
        return self._project(what)[0]

    def _project(self, what, llm=None):
        if isinstance(what, (str, Summary)):
            return self._project_text(what, llm)
        embedding = self.embedding(what)
        return self.aligner.transform_events(
            np.asarray(embedding.vector)[None], feature_names=embedding.feature_names), {}

    def _project_text(self, what, llm=None):
        from ..text.encoder import text_vectors
        from ..text.glossary import understand

        text, facts = (what.text, what.slots) if isinstance(what, Summary) else (what, {})
        if not text.strip() and not facts:
            raise ValueError("the question is empty: say what kind of source you look for")
        meta = {}
        if not isinstance(what, Summary):
            understood = understand(what, encoder=self.encoder, llm=llm)
            what = understood.summary
            meta = {"query": text, "understood": understood.note}
        return self.aligner.transform_texts(text_vectors([what], self.encoder)), meta

    @property
    def encoder(self):
        """The text encoder, the one that the aligner was fitted with."""
        if self._encoder is None:
            from ..text.encoder import TextEncoder

            self._encoder = TextEncoder()
        _check_encoder(self._encoder, self.aligner)
        return self._encoder

    # -- what the neighbours say --------------------------------------------------------------

    def neighbour_weights(self, vectors):
        """Weight of each source in the vote on parameters.

        Parameters
        ----------
        vectors : array_like, shape (n_draws, n_shared)
            Projections of one source: its own, or draws from its posterior, which are averaged.

        Returns
        -------
        ndarray, shape (n,)
            Softmax of the similarities of the 200 nearest; sums to 1.
        """
        similarity, index = top_k(vectors, self.source_vectors, _NEIGHBOURS)
        weights = np.zeros(len(self))
        np.add.at(weights, index, _softmax(similarity / self.temperature))
        return weights / len(similarity)

    def class_probabilities(self, vectors):
        """Probability of each class, from the logistic regression in ``classifier``.

        The probabilities refer to a catalogue like this one: a class that makes half of it has
        even odds before any photon is looked at.

        Parameters
        ----------
        vectors : array_like, shape (n_draws, n_shared)
            As `neighbour_weights`.

        Returns
        -------
        ndarray, shape (n_classes,)
            In the order of ``classes``; sums to 1.
        """
        scores = np.asarray(vectors) @ self.classifier[:, :-1].T + self.classifier[:, -1]
        return self._with_doubt(_softmax(scores.astype(float)).mean(axis=0)[:len(self.classes)])

    def loneliness(self, vectors):
        """How far a source is from all others: minus the logarithm of the density around it.

        Parameters
        ----------
        vectors : array_like, shape (n_draws, n_shared)
            Projections of one source: its own, or draws from its posterior, over which the
            density is averaged.

        Returns
        -------
        float
            In nats, up to a constant: the density is that of von Mises-Fisher kernels of the
            concentration 1 / ``temperature`` around the catalogue's sources.
        """
        similarity, _ = top_k(np.asarray(vectors), self.source_vectors, _NEIGHBOURS)
        return -float(_log_mean_exp(similarity.reshape(-1) / self.temperature))

    def novelty(self, vectors, counts):
        """Is this source lonelier in the shared space than others with as many photons?

        Parameters
        ----------
        vectors : array_like, shape (n_draws, n_shared)
            As `loneliness`.
        counts : float
            Its photons; it is compared with sources of similar counts.

        Returns
        -------
        p_value : float
            Conformal: rank of its loneliness among the peers' and its own, so that it is uniform
            for sources like those that the catalogue was calibrated on.
        loneliness : float
            See `loneliness`.
        n_peers : int
            Sources it was compared with.

        References
        ----------
        Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World (conformal p-values).
        """
        lonely = self.loneliness(vectors)
        others = self.held_out
        gap = np.abs(np.log10(np.maximum(others["counts"], 1)) - np.log10(max(counts, 1)))
        n_peers = min(len(gap), max(_FEWEST_PEERS, len(gap) // 20))
        peers = np.argsort(gap, kind="stable")[:n_peers]
        # The source counts as one of its peers, so that no p-value is zero.
        p_value = (1 + int((others["loneliness"][peers] >= lonely).sum())) / (n_peers + 1)
        return p_value, lonely, n_peers

    def plane(self, vectors):
        """Position on a map of the catalogue: its first two principal components.

        Parameters
        ----------
        vectors : array_like, shape (n, n_shared)

        Returns
        -------
        ndarray, shape (n, 2)
        """
        if self._plane is None:
            vectors_ = self.source_vectors.astype(np.float32)
            centre = vectors_.mean(axis=0)
            covariance = np.cov(vectors_.T) if len(vectors_) > 1 else np.eye(vectors_.shape[1])
            axes = np.linalg.eigh(covariance)[1][:, :-3:-1]
            # An axis may point either way: fix it, so that the map is the same everywhere.
            axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
            self._plane = centre, axes
        centre, axes = self._plane
        return (np.asarray(vectors, np.float32) - centre) @ axes

    # -- files --------------------------------------------------------------------------------

    def save(self, path):
        """Write the catalogue as a directory, whole or not at all.

        An older catalogue there is replaced; a directory with other contents is refused.

        Parameters
        ----------
        path : str or Path
            Gets ``aligner.safetensors``, ``vectors.safetensors``, ``sources.ecsv.gz`` and
            ``texts.json.gz``. Neither the autodecoder nor the text encoder is stored.
        """
        about = {"temperature": self.temperature, "autodecoder": self._autodecoder}
        tensors = {"sources": self.source_vectors, "texts": self.text_vectors,
                   "text_sources": self.text_sources, "classifier": self.classifier}
        if self._held_out is not None:
            tensors |= {f"held_out_{name}": np.asarray(values, np.float32)
                        for name, values in self._held_out.items()}
        buffer = io.StringIO()
        self.table.write(buffer, format="ascii.ecsv")
        texts = [[text.text, text.slots, text.provenance] for text in self.texts]
        with atomic_directory(path, marker=_VECTORS) as folder:
            self.aligner.save(folder / _ALIGNER)
            write_tensors(folder / _VECTORS, tensors, kind=_KIND, version=_VERSION, about=about)
            for name, content in ((_SOURCES, buffer.getvalue()),
                                  (_TEXTS, json.dumps(texts, ensure_ascii=False))):
                # No time stamp: equal catalogues are equal files.
                (folder / name).write_bytes(gzip.compress(content.encode(), mtime=0))

    @classmethod
    def load(cls, path, *, model=None, encoder=None):
        """Read a catalogue written by `save`.

        Parameters
        ----------
        path : str or Path
            The directory.
        model, encoder : optional
            As in the constructor.

        Returns
        -------
        AlignedCatalog

        Raises
        ------
        FileNotFoundError
            If there is no such directory.
        ModelFileError
            If part of it is missing, damaged or of another version.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"no catalogue at {path}; make one with `stingray-align align`")
        try:
            aligner = Aligner.load(path / _ALIGNER)
            tensors, about = read_tensors(path / _VECTORS, kind=_KIND, version=_VERSION)
            table = QTable.read(gzip.decompress((path / _SOURCES).read_bytes()).decode(),
                                format="ascii.ecsv")
            texts = json.loads(gzip.decompress((path / _TEXTS).read_bytes()))
            return cls(
                aligner=aligner, table=table, source_vectors=tensors["sources"],
                texts=[Summary(*entry) for entry in texts], text_vectors=tensors["texts"],
                text_sources=tensors["text_sources"], model=model, encoder=encoder,
                temperature=about["temperature"], classifier=tensors["classifier"],
                autodecoder=about.get("autodecoder"), held_out={
                    name.removeprefix("held_out_"): values for name, values in tensors.items()
                    if name.startswith("held_out_")} or None,
            )
        except ModelFileError:
            raise
        except (OSError, EOFError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise ModelFileError(
                f"the catalogue at {path} is incomplete or damaged ({error}); fetch it or make it "
                "again with `stingray-align align`"
            ) from error

    @classmethod
    def pretrained(cls, *, model=None, encoder=None):
        """The reference catalogue that comes with the package: simulated archetypes.

        Returns
        -------
        AlignedCatalog

        Raises
        ------
        MissingModelError
            If the package was installed without its data.
        """
        path = BUNDLED / "catalogue"
        if not path.is_dir():
            raise MissingModelError(
                "the bundled catalogue is missing; install the package again or make it with "
                "`stingray-align align`"
            )
        return cls.load(path, model=model, encoder=encoder)


def _check_encoder(encoder, aligner):
    # Two encoders may well give vectors of one length; only their names tell them apart.
    if aligner.text_model_ is not None and encoder.name != aligner.text_model_:
        raise ModelFileError(
            f"the text encoder is {encoder.name!r} and the aligner was fitted with "
            f"{aligner.text_model_!r}: use that one, or fit the aligner again "
            "(`stingray-align align`)"
        )


def _fill_table(table, photons):
    table = QTable() if table is None else QTable(table)
    measured = {
        "name": lambda: np.array([f"source {i + 1}" for i in range(len(photons))]),
        "counts": lambda: photons.n_photons,
        "exposure": lambda: photons.exposure * u.s,
        "duration": lambda: photons.duration * u.s,
        "instrument": lambda: photons.instrument,
    }
    for name, values in measured.items():
        if name not in table.colnames:
            table[name] = values()
    return table


def _names(classes):
    """Classes as text, empty where they are masked."""
    return np.ma.filled(np.ma.asarray(classes).astype(str), "")


def _plain(column):
    """Float array of a column with or without unit."""
    return np.asarray(getattr(column, "value", column), dtype=float)


def _log_mean_exp(scores):
    top = scores.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(scores - top).mean(axis=-1, keepdims=True)))[..., 0]


def _logistic(vectors, classes):
    """Coefficients, the intercept last, of a multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression

    n = classes.max() + 1
    if n == 1:
        return np.zeros((1, vectors.shape[1] + 1), np.float32)
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
    model.fit(vectors.astype(np.float32), classes)
    found = np.column_stack([model.coef_, model.intercept_])
    if n == 2:  # scikit-learn gives the odds of the second
        found = np.concatenate([-found, found]) / 2
    return found.astype(np.float32)


def _softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
