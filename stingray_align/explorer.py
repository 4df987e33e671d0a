"""Looking around a catalogue: what the explorer shows, apart from how it is laid out.

`Explorer` puts the sources of an `AlignedCatalog` on a map, answers sentences, and collects what is
known of a source. The page in the browser is a thin layer on top of it; ``stingray-align explore``
serves it.
"""

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import MissingModelError

__all__ = ["Answer", "Explorer", "SourceCard"]

#: Suffixes that an event file may have after the name of its source.
_SUFFIXES = {".gz", ".evt", ".fits", ".fit", ".fts", ".ecsv", ".hdf5", ".h5"}
_MOST_DRAWN = 20_000  # points that a browser draws without effort
_CLICK = 0.03  # farthest that a click may miss a source, as a fraction of the map's width
_N_TEXTS = 3
_SHOWN = ("class", "instrument", "counts")  # columns of a list of sources
_IN_SECONDS = ("exposure", "duration", "period", "timescale")


@dataclass(frozen=True, eq=False)
class Answer:
    """Sources that match best, the best first.

    Attributes
    ----------
    rows : ndarray of int
        Their rows in the catalogue's table.
    similarity : ndarray
        Cosine of each with what was asked.
    understood : str
        What a sentence was rewritten into; empty if it was not a sentence.
    """

    rows: np.ndarray
    similarity: np.ndarray
    understood: str = ""


@dataclass(frozen=True, eq=False)
class SourceCard:
    """What is known of one source of the catalogue.

    Attributes
    ----------
    name : str
        The source.
    facts : list of (str, str)
        Label and value with unit, from the catalogue's table; what is not known is left out.
    summaries : list of str
        What is written on this source.
    neighbours : Answer
        The sources whose photons are most like its own.
    texts : list of (float, str, str)
        Similarity, whose, and text of the summaries of other sources that match its photons best.
    """

    name: str
    facts: list
    summaries: list
    neighbours: Answer
    texts: list


class Explorer:
    """A catalogue as a map with questions and answers.

    Parameters
    ----------
    catalogue : AlignedCatalog
        What is explored.
    events : str or Path, optional
        A folder with event files, each named after its source (``NAME.fits``, ``NAME.evt.gz``,
        ``NAME.ecsv``, ...; blanks in a name may be underscores). Their light curves and spectra
        are shown.
    k : int, optional
        Sources that an answer lists.

    Attributes
    ----------
    kinds : dict
        Colour and marker of each kind of source on the map.
    kind : ndarray of str, shape (n,)
        The kind of each source.
    places : ndarray, shape (n, 2)
        Position of each source on the map.
    drawn : ndarray of int
        The rows on the map: all of them, or a random selection of a large catalogue.
    simulated : bool
        Whether all summaries are those of simulated sources.
    reading : Interpretation or None
        An observation from outside the catalogue, see `read`.

    Raises
    ------
    NotADirectoryError
        If ``events`` is no folder.

    Examples
    --------
    >>> import stingray_align as sa
    >>> from stingray_align.explorer import Explorer
    >>> explorer = Explorer(sa.AlignedCatalog.pretrained())
    >>> explorer.places.shape
    (5600, 2)
    >>> card = explorer.card(0)
    >>> card.name == explorer.names[0]
    True
    """

    def __init__(self, catalogue, *, events=None, k=10):
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.catalogue, self.k = catalogue, k
        table = catalogue.table
        self.names = [f"source {i + 1}" for i in range(len(table))]
        if "name" in table.colnames:
            self.names = [str(name) for name in table["name"]]
        self._row_of = {name: row for row, name in reversed(list(enumerate(self.names)))}
        self.kinds, self.kind = _kinds(catalogue)
        self.places = catalogue.plane(catalogue.source_vectors)
        self.drawn = np.arange(len(table))
        if len(table) > _MOST_DRAWN:
            self.drawn = np.sort(np.random.default_rng(0).choice(len(table), _MOST_DRAWN,
                                                                 replace=False))
        self._files = {} if events is None else _event_files(events)
        self.events = events
        self.reading = None
        kinds = {text.provenance.get("kind") for text in catalogue.texts}
        self.simulated = kinds == {"simulated"}

    # -- questions ----------------------------------------------------------------------------

    def ask(self, sentence):
        """The sources that a sentence describes.

        Parameters
        ----------
        sentence : str

        Returns
        -------
        Answer

        Raises
        ------
        ValueError
            If the sentence is empty.
        MissingModelError
            If the text encoder is not on this machine.
        """
        vector, meta = self.catalogue._project(sentence)
        return self._nearest(vector, meta.get("understood", ""))

    def _nearest(self, vector, understood="", exclude=None):
        from .alignment._search import top_k

        similarity, rows = top_k(vector, self.catalogue.source_vectors, self.k, exclude=exclude)
        return Answer(rows[0], similarity[0], understood)

    def row(self, name):
        """The row of a source.

        Parameters
        ----------
        name : str

        Returns
        -------
        int

        Raises
        ------
        ValueError
            If the catalogue has no source of this name.
        """
        if name not in self._row_of:
            raise ValueError(f"the catalogue has no source named {name!r}")
        return self._row_of[name]

    def at(self, x, y):
        """The source at a place on the map.

        Parameters
        ----------
        x, y : float
            Where the map was clicked.

        Returns
        -------
        int or None
            The row of the nearest source that is drawn; None if all are far.
        """
        places = self.places[self.drawn]
        size = np.maximum(np.ptp(places, axis=0), 1e-9)
        miss = np.hypot(*((places - (x, y)) / size).T)
        best = int(np.argmin(miss))
        return int(self.drawn[best]) if miss[best] <= _CLICK else None

    # -- what is known of a source ------------------------------------------------------------

    def listing(self, answer):
        """An answer as columns.

        Parameters
        ----------
        answer : Answer

        Returns
        -------
        dict of list
            ``rank``, ``match`` (similarity) and the columns that tell sources apart.
        """
        return {"rank": list(range(1, len(answer.rows) + 1)),
                "match": [f"{x:.2f}" for x in answer.similarity], **self.describe(answer.rows)}

    def describe(self, rows):
        """What tells sources apart in a list: name, and class, instrument and photons if known.

        Parameters
        ----------
        rows : sequence of int

        Returns
        -------
        dict of list of str
        """
        table = self.catalogue.table[rows]
        columns = {"name": [self.names[row] for row in rows]}
        for name in _SHOWN:
            if name in table.colnames:
                columns[name] = [_text(name, value, with_unit=False) for value in table[name]]
        return columns

    def card(self, row):
        """What the catalogue knows of one of its sources.

        Parameters
        ----------
        row : int

        Returns
        -------
        SourceCard
        """
        catalogue = self.catalogue
        table = catalogue.table
        facts = [(_label(name), _text(name, table[name][row]))
                 for name in table.colnames if name != "name" and table[name].ndim == 1]
        vector = catalogue.source_vectors[row][None].astype(np.float32)
        own = np.flatnonzero(catalogue.text_sources == row)
        texts = []
        if len(catalogue.texts) > len(own):
            found = catalogue._nearest(vector, _N_TEXTS, "texts",
                                       np.arange(len(catalogue)) != row)
            texts = [(float(one["similarity"]), _whose(one), str(one["text"])) for one in found]
        return SourceCard(
            self.names[row], [fact for fact in facts if fact[1]],
            [catalogue.texts[i].text for i in own],
            self._nearest(vector, exclude=np.array([row])), texts)

    def embedding(self, row):
        """The photons of one of the catalogue's sources, embedded.

        Parameters
        ----------
        row : int

        Returns
        -------
        Embedding or None
            None where the folder ``events`` has no file for this source.

        Raises
        ------
        EventDataError
            If its file cannot be read.
        """
        from .events import EventList

        path = self._files.get(_key(self.names[row]))
        return None if path is None else self.catalogue.embedding(EventList.read(path))

    def read(self, events, *, name):
        """Bring in an observation from outside the catalogue; it becomes ``reading``.

        Parameters
        ----------
        events : stingray.EventList
            One source.
        name : str
            What to call it.

        Returns
        -------
        Interpretation
        """
        self.reading = self.catalogue.interpret(events, k=self.k, name=name)
        return self.reading

    def reading_place(self):
        """Where the observation from outside lands on the map.

        Returns
        -------
        ndarray, shape (2,)
        """
        return self.catalogue.plane(self.reading._vectors[:1])[0]

    def serve(self, *, port=5006, address="127.0.0.1", show=True):
        """Show the explorer in the browser until interrupted.

        Parameters
        ----------
        port : int, optional
        address : str, optional
            Where to listen; by default only programs of this machine are answered.
        show : bool, optional
            Open the page in a browser.

        Raises
        ------
        MissingModelError
            If Panel, HoloViews or Bokeh are not installed.
        OSError
            If the port is in use.
        KeyboardInterrupt
            When interrupted: there is no other end.
        """
        need_app()
        from ._explorer_page import serve

        serve(self, port=port, address=address, show=show)


def need_app():
    """Raise MissingModelError, saying what to install, if the page cannot be shown."""
    try:
        import bokeh  # noqa: F401
        import holoviews  # noqa: F401
        import panel  # noqa: F401
    except ImportError as error:
        raise MissingModelError("the explorer needs the packages panel, holoviews and bokeh: "
                                "pip install 'stingray-align[app]'") from error


def card_html(card):
    """Facts, own summaries and matching texts of a source, as a piece of HTML."""
    parts = ["<dl class='facts'>"]
    parts += [f"<dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd>"
              for label, value in card.facts]
    parts.append("</dl><h4>Its summary</h4>")
    parts += [f"<p>{html.escape(text)}</p>" for text in card.summaries] or [
        "<p>Nothing is written on this source.</p>"]
    if card.texts:
        parts.append("<h4>Summaries of others that match its photons</h4>")
        parts += [f"<p><b>{similarity:.2f}&ensp;{html.escape(whose)}</b> {html.escape(text)}</p>"
                  for similarity, whose, text in card.texts]
    return "\n".join(parts)


def _kinds(catalogue):
    """Colours and markers, no more of them than colour-blind readers can tell apart."""
    from .alignment._figure import BROAD_CLASSES

    styles = {kind: style[:2] for kind, style in BROAD_CLASSES.items()}
    owner = {name: kind for kind, (_, _, names) in BROAD_CLASSES.items() for name in names}
    if not set(catalogue.classes) & set(owner):  # not the package's classes: the commonest ones
        labels = [""] * len(catalogue)
        if catalogue.classes:
            labels = [str(name) for name in catalogue.table["class"]]
        names, numbers = np.unique(labels, return_counts=True)
        common = [str(name) for name in names[np.argsort(-numbers, kind="stable")] if name]
        looks = list(styles.values())
        owner = {name: name for name in common[:len(looks) - 1]}
        styles = dict(zip(owner, looks)) | {"other": looks[-1]}
    rest = list(styles)[-1]
    kind = np.full(len(catalogue), rest, dtype=object)
    if catalogue.classes:
        kind[:] = [owner.get(str(name), rest) for name in catalogue.table["class"]]
    return {name: style for name, style in styles.items() if (kind == name).any()}, kind


def _event_files(folder):
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder of event files")
    files = {}
    for path in sorted(folder.iterdir()):
        name = path
        while name.suffix.lower() in _SUFFIXES:
            name = name.with_suffix("")
        if name != path and path.is_file():
            files.setdefault(_key(name.name), path)
    return files


def _key(name):
    return name.strip().replace(" ", "_")


def _whose(row):
    return ", ".join(str(row[name]) for name in ("name", "class") if name in row.colnames)


def _label(name):
    from .alignment.interpretation import PARAMETERS

    known = {"ra": "right ascension", "dec": "declination", "counts": "photons"}
    return PARAMETERS[name][0] if name in PARAMETERS else known.get(name, name.replace("_", " "))


def _text(name, value, with_unit=True):
    """One entry of a table for reading; empty where nothing is known."""
    from .alignment.interpretation import _seconds

    unit = getattr(value, "unit", None)
    value = getattr(value, "value", value)
    if np.ma.is_masked(value):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if not isinstance(value, (int, float, np.number)):
        return str(value)
    if not np.isfinite(value):
        return ""
    if name in _IN_SECONDS and unit == "s":
        return _seconds(value)
    if name in ("ra", "dec"):
        text = f"{value:.5f}"
    else:
        text = f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.3g}"
    if not with_unit or unit is None or name == "counts":
        return text
    unit = unit.to_string("unicode", fraction=False)
    return f"{text} × {unit[2:]}" if unit.startswith("1×") else f"{text} {unit}".strip()
