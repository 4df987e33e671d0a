"""What has been written about a source: titles and abstracts, from SIMBAD and ADS.

`find_literature` takes a name or a position, `gather_literature` many of them. Papers of both
services are merged (one paper has one entry, whatever its bibcodes), ranked, and limited to a
number of tokens, so that they can be given to a language model as they are::

    write_summary(facts, abstracts=find_literature("NGC 3621"), backend=...)

**The order of papers.** A paper about one object says more on it than a catalogue of a thousand
in which it is a row. Papers are therefore ordered by the power of ten of the number of objects
they deal with (1-9, 10-99, ...), the newest first within each. SIMBAD counts the objects; where
nobody did, a paper that names the source in its title is taken to be about it, any other to deal
with some ten. Papers without an abstract come last.

Every answer is kept on disk, also that nothing is known. Run the same call again after an
interruption and only what is missing is asked for.
"""

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from astropy.coordinates import SkyCoord
from astropy.units import Quantity
from astropy.utils.exceptions import AstropyUserWarning

from ..errors import ArchiveError
from ._answers import Answers
from ._services import Ads, Simbad

__all__ = ["Literature", "find_literature", "gather_literature"]

_GIVE_UP = 3  # failures in a row after which a service is taken to be down


@dataclass(frozen=True)
class Literature(Sequence):
    """Papers about one source, the most telling first: a sequence of dict.

    Parameters
    ----------
    source : str
        The name or position that was asked for.
    papers : tuple of dict
        Each with ``bibcode``, ``title``, ``abstract`` (str), ``year`` (int or None),
        ``n_objects`` (number of objects the paper deals with, int or None) and ``origin``
        (names of the services that gave it).
    n_found : int
        Papers that were found; those that do not fit into the tokens are left out.
    n_tokens : int
        Tokens of the papers, as counted.
    asked : tuple of str
        The services that were asked.

    Examples
    --------
    >>> from stingray_align.datasets import Literature
    >>> nothing = Literature("2CXO J000000.0+000000", asked=("SIMBAD", "ADS"))
    >>> nothing
    <Literature 2CXO J000000.0+000000: 0 of 0 papers, 0 tokens, from SIMBAD and ADS>
    >>> bool(nothing)
    False
    """

    source: str
    papers: tuple = field(default=(), repr=False)
    n_found: int = 0
    n_tokens: int = 0
    asked: tuple = ()

    def __len__(self):
        return len(self.papers)

    def __getitem__(self, index):
        return self.papers[index]

    def __repr__(self):
        return (f"<Literature {self.source}: {len(self)} of {self.n_found} papers, "
                f"{self.n_tokens} tokens, from {' and '.join(self.asked) or 'nowhere'}>")

    @property
    def bibcodes(self):
        """Bibcodes of the papers, list of str."""
        return [paper["bibcode"] for paper in self.papers]


def find_literature(source, *, radius=None, n_tokens=6000, count_tokens=None, services=None,
                    cache=None, max_age=None):
    """Titles and abstracts on one source.

    Parameters
    ----------
    source : str or SkyCoord
        A name that SIMBAD knows, or one position.
    radius : Quantity, optional
        Around a position: objects that SIMBAD and ADS have inside are taken to be the source, so
        take about the error of the position. Needed for positions, unused for names.
    n_tokens : int, optional
        Most tokens of all papers together. A paper that does not fit any more is left out and
        the next is tried.
    count_tokens : callable, optional
        From a text to its number of tokens, for instance
        ``lambda text: len(tokenizer(text)["input_ids"])``. By default a token is taken to be
        three characters, which is on the safe side for prose (about four) and about right for
        names and numbers.
    services : sequence of Simbad and Ads, optional
        Whom to ask; by default both. Without a token, ADS is left out with a warning.
    cache : str or Path, optional
        Folder for the answers; by default in Astropy's cache.
    max_age : float, optional
        Ask again for what is older than so many days; 0 asks always. By default answers are kept
        for good.

    Returns
    -------
    Literature
        Empty if nothing is known: that is an answer too.

    Raises
    ------
    ValueError
        If the source is no name or position, or a position comes without radius.
    ArchiveError
        If a service cannot be reached, refuses, or answers what cannot be read.

    Examples
    --------
    >>> from stingray_align.datasets import find_literature
    >>> found = find_literature("NGC 3621")  # doctest: +SKIP
    >>> found[0]["title"]  # doctest: +SKIP
    """
    source = _checked(source, radius)
    services = _usable(services)
    return _find(source, radius, n_tokens, count_tokens, services, Answers(cache, max_age=max_age))


def gather_literature(sources, *, progress=True, radius=None, n_tokens=6000, count_tokens=None,
                      services=None, cache=None, max_age=None):
    """Titles and abstracts on many sources.

    An interrupted run is resumed by calling it again: what was answered is not asked twice. The
    services are asked no faster than they allow. A source on which a service fails is left as
    `None`, and a warning says how many there are; three failures in a row end the run.

    Parameters
    ----------
    sources : sequence of str and SkyCoord, or SkyCoord array
        Names (a list, a column of a table) or positions.
    progress : bool, optional
        Show a progress bar.
    radius, n_tokens, count_tokens, services, cache, max_age : optional
        As for `find_literature`.

    Returns
    -------
    list of Literature or None
        One for each source, in order.

    Raises
    ------
    ValueError
        As `find_literature`, before anything is asked.
    ArchiveError
        If services fail on three sources in a row.

    Examples
    --------
    >>> from astropy import units as u
    >>> from astropy.coordinates import SkyCoord
    >>> from stingray_align.datasets import gather_literature
    >>> positions = SkyCoord(table["ra"], table["dec"])  # doctest: +SKIP
    >>> found = gather_literature(positions, radius=2 * u.arcsec)  # doctest: +SKIP
    """
    from tqdm import tqdm

    if isinstance(sources, str) or getattr(sources, "isscalar", False):
        raise ValueError("one source was given; gather_literature takes a sequence of them, "
                         "find_literature takes one")
    if hasattr(sources, "colnames"):
        raise ValueError("a table was given; give its names, table['name'], or its positions, "
                         "SkyCoord(table['ra'], table['dec'])")
    sources = [_checked(source, radius) for source in sources]
    services, answers = _usable(services), Answers(cache, max_age=max_age)
    found, failures = [], []
    for i, source in enumerate(tqdm(sources, unit="source", disable=not progress)):
        try:
            found.append(_find(source, radius, n_tokens, count_tokens, services, answers))
        except ArchiveError as error:
            found.append(None)
            failures.append(i)
            if len(failures) >= _GIVE_UP and failures[-_GIVE_UP] == i - _GIVE_UP + 1:
                raise ArchiveError(f"{error} (the last {_GIVE_UP} sources failed; call again to "
                                   "go on from here)") from error
            problem = error
    if failures:
        warnings.warn(f"{len(failures)} of {len(sources)} sources failed and are None; call again "
                      f"to ask for them. The last: {problem}", AstropyUserWarning, stacklevel=2)
    return found


def _checked(source, radius):
    """A name as one line, or a scalar position with a radius."""
    if isinstance(source, str):
        name = " ".join(source.split())
        if not name:
            raise ValueError("a source has an empty name; leave it out or give its position")
        return name
    if not isinstance(source, SkyCoord) or not source.isscalar:
        raise ValueError(f"a source is a name or one SkyCoord, not {source!r}; many sources are "
                         "given to gather_literature")
    if not isinstance(radius, Quantity) or not radius.isscalar or not radius.to_value("deg") > 0:
        raise ValueError("a position needs a radius around it, about its error: "
                         "radius=2 * u.arcsec")
    return source


def _usable(services):
    services = [Simbad(), Ads()] if services is None else list(services)
    usable = [s for s in services if not isinstance(s, Ads) or s.token]
    if len(usable) < len(services):
        warnings.warn("ADS is not asked, for want of a token: get one at "
                      "https://ui.adsabs.harvard.edu/user/settings/token and put it into the "
                      "environment variable ADS_DEV_KEY or the file ~/.ads/dev_key",
                      AstropyUserWarning, stacklevel=3)
    if not usable:
        raise ValueError("there is no service to ask")
    return usable


def _find(source, radius, n_tokens, count_tokens, services, answers):
    found = []
    for service in services:
        question = service.question(source, radius)
        key = f"{service.name} {service.url}\n{question}"
        papers = answers.get(key)
        if papers is None:
            papers = service.ask(question)
            answers.put(key, papers)
        found += [(service.name, paper) for paper in papers]
    name = source if isinstance(source, str) else ""
    papers = sorted(_merged(found), key=lambda paper: _order(paper, name))
    kept, used = _limited(papers, n_tokens, count_tokens or _count_tokens)
    shown = name or f"{source.icrs.to_string('hmsdms', precision=2)} within {radius:g}"
    return Literature(shown, tuple(kept), len(papers), used, tuple(s.name for s in services))


def _merged(found):
    """One entry per paper, out of pairs of service and paper."""
    known, merged = {}, []
    # ADS knows a paper's other bibcodes (preprint and journal): entries with them come first.
    for service, paper in sorted(found, key=lambda pair: -len(pair[1]["aliases"])):
        codes = [paper["bibcode"], *paper["aliases"]]
        entry = next((known[code] for code in codes if code in known), None)
        if entry is None:
            entry = {**{k: v for k, v in paper.items() if k != "aliases"}, "origin": []}
            merged.append(entry)
        for key in ("title", "abstract"):
            entry[key] = max(entry[key], paper[key], key=len)
        for key in ("year", "n_objects"):
            entry[key] = entry[key] or paper[key]
        if service not in entry["origin"]:
            entry["origin"].append(service)
        known.update(dict.fromkeys(codes, entry))
    return merged


def _order(paper, name):
    n_objects = paper["n_objects"]
    if not n_objects:
        n_objects = 1 if name and _squeezed(name) in _squeezed(paper["title"]) else 10
    return (not paper["abstract"], math.floor(math.log10(n_objects)), -(paper["year"] or 0),
            paper["bibcode"])


def _squeezed(text):
    return re.sub(r"[\s-]", "", text).casefold()


def _count_tokens(text):
    return math.ceil(len(text) / 3)


def _limited(papers, n_tokens, count_tokens):
    kept, used = [], 0
    for paper in papers:
        cost = count_tokens(" ".join([paper["bibcode"], paper["title"], paper["abstract"]]))
        if used + cost <= n_tokens:
            kept.append(paper)
            used += cost
    return kept, used
