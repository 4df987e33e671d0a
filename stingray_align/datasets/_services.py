"""Services that know the literature on a source: SIMBAD, through pyvo, and ADS, through astroquery.

A service turns a source into a question (`question`) and a question into papers (`ask`). Every
paper is a dict with ``bibcode``, ``title``, ``abstract``, ``year``, ``n_objects`` and ``aliases``
(other bibcodes of the same paper); what a service does not say is `None` or empty.
"""

import functools
import html
import io
import json
import os
import re
import threading
import time
from pathlib import Path

from .._network import session
from ..errors import ArchiveError, MissingModelError

__all__ = ["Simbad", "Ads"]

_MOST = 500  # papers of one source that are asked for: more than any summary is written from

_turns, _lock = {}, threading.Lock()


class _Unreadable(Exception):
    """An answer that came, but broken: it is worth asking again."""


class _Service:
    def __init__(self, url, *, per_second, timeout, retries, backoff):
        self.url = url.rstrip("/?")
        self.per_second = per_second
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff

    def __repr__(self):
        return f"<{type(self).__name__} at {self.url}>"

    @functools.cached_property
    def _session(self):
        made = session(retries=self.retries, backoff=self.backoff)
        # pyvo sets no time limit of its own
        made.request = functools.partial(made.request, timeout=self.timeout)
        return made

    def ask(self, question):
        """Papers that answer a question.

        Parameters
        ----------
        question : str
            What `question` gave.

        Returns
        -------
        list of dict
            Empty if nothing is known.

        Raises
        ------
        ArchiveError
            If the service cannot be reached, refuses, or answers nonsense again and again.
        """
        # The session itself waits and retries where the service is busy or out of reach.
        for attempt in range(1 + min(self.retries, 2)):
            if attempt:
                time.sleep(self.backoff * 2 ** (attempt - 1))
            self._wait_for_turn()
            try:
                return self._ask(question)
            except _Unreadable as error:
                problem = error
        raise ArchiveError(f"{self.name} at {self.url} gives answers that cannot be read "
                           f"({problem}); try again later")

    def _wait_for_turn(self):
        # Turns belong to the address, so that several objects together stay below the limit.
        with _lock:
            now = time.monotonic()
            turn = max(now, _turns.get(self.url, now))
            _turns[self.url] = turn + 1 / self.per_second
        time.sleep(turn - now)


class Simbad(_Service):
    """SIMBAD's bibliography, by one TAP query per source.

    Parameters
    ----------
    url : str, optional
        Address of the TAP service.
    per_second : float, optional
        Most queries per second. SIMBAD shuts out who sends more than five to ten.
    timeout : float, optional
        Seconds to wait for an answer.
    retries : int, optional
        Further attempts when the service is busy (429), fails (5xx) or is out of reach.
    backoff : float, optional
        Seconds before the second attempt, doubled each time; ``Retry-After`` wins.

    Notes
    -----
    Tables ``ident`` (every name of an object), ``basic`` (positions), ``has_ref`` and ``ref``:
    bibcode, title, abstract, year, and ``nbobject``, the number of objects a paper deals with.
    A name is matched as SIMBAD matches it, by any of its identifiers.
    """

    name = "SIMBAD"

    def __init__(self, url="https://simbad.cds.unistra.fr/simbad/sim-tap", *, per_second=4.0,
                 timeout=60.0, retries=5, backoff=1.0):
        super().__init__(url, per_second=per_second, timeout=timeout, retries=retries,
                         backoff=backoff)

    def question(self, source, radius):
        """ADQL for a source.

        Parameters
        ----------
        source : str or SkyCoord
            Name, or one position.
        radius : Quantity
            Of the cone around a position.

        Returns
        -------
        str
        """
        if isinstance(source, str):
            quoted = source.replace("'", "''")
            objects, link, where = "ident", "ident.oidref", f"ident.id = '{quoted}'"
        else:
            ra, dec, r = _degrees(source, radius)
            objects, link = "basic", "basic.oid"
            where = ("CONTAINS(POINT('ICRS', basic.ra, basic.dec), "
                     f"CIRCLE('ICRS', {ra:.7f}, {dec:.7f}, {r:.7f})) = 1")
        # "year" is a word of the language; papers about few objects survive the cut at the top
        return (f'SELECT DISTINCT TOP {_MOST} ref.bibcode, ref.title, ref.abstract, '
                f'ref."year" AS publication_year, ref.nbobject '
                f'FROM {objects} JOIN has_ref ON has_ref.oidref = {link} '
                f'JOIN ref ON ref.oidbib = has_ref.oidbibref '
                f'WHERE {where} ORDER BY nbobject, publication_year DESC')

    def _ask(self, adql):
        dal, parse, protocol_errors = _pyvo()
        # As plain rows, since binary ones break at the first accent in a title.
        query = dal.TAPQuery(self.url, adql, session=self._session, format="votable/td")
        try:
            body = query.execute_raw()
        except protocol_errors as error:
            raise _Unreadable(error) from error
        except OSError as error:  # of requests
            raise ArchiveError(f"SIMBAD cannot be reached at {self.url}: {error}") from error
        try:
            results = dal.TAPResults(parse(io.BytesIO(_decoded(body))), url=self.url)
            rows = results.to_table()
            return [_paper(row["bibcode"], row["title"], row["abstract"], row["publication_year"],
                           row["nbobject"]) for row in rows]
        except dal.DALQueryError as error:
            raise ArchiveError(f"SIMBAD refuses the query: {error.reason}") from error
        except Exception as error:  # whatever a parser makes of a page that is no VOTable
            try:
                query.raise_if_error()
            except dal.DALServiceError as status:
                raise ArchiveError(f"SIMBAD at {self.url} fails: {status.reason}") from error
            raise _Unreadable(f"{type(error).__name__}: {error}") from error


class Ads(_Service):
    """The Astrophysics Data System, by one search per source.

    Parameters
    ----------
    url : str, optional
        Address of the search.
    token : str or None, optional
        Key to the service. `None` looks in the usual places: ``ADS_DEV_KEY``,
        ``ADS_API_TOKEN``, ``~/.ads/dev_key``, ``~/.ads/token``, and astroquery's configuration.
    per_second, timeout, retries, backoff : float, optional
        As for `Simbad`. ADS also has a limit per day and says when it is reached.

    Notes
    -----
    A name is searched among the objects that ADS knows and in titles, abstracts and keywords of
    the astronomy collection; a position among the objects.
    """

    name = "ADS"

    def __init__(self, url="https://api.adsabs.harvard.edu/v1/search/query", *, token=None,
                 per_second=2.0, timeout=60.0, retries=5, backoff=1.0):
        super().__init__(url, per_second=per_second, timeout=timeout, retries=retries,
                         backoff=backoff)
        self._token = token

    @property
    def token(self):
        """The key, or `None` where there is none."""
        return self._token or _ads_token()

    def question(self, source, radius):
        """Search for a source, in the syntax of ADS.

        Parameters
        ----------
        source : str or SkyCoord
            Name, or one position.
        radius : Quantity
            Of the cone around a position.

        Returns
        -------
        str
        """
        if isinstance(source, str):
            quoted = source.replace("\\", r"\\").replace('"', r'\"')
            return f'(object:"{quoted}" OR abs:"{quoted}") collection:astronomy'
        ra, dec, r = _degrees(source, radius)
        return f'object:"{ra:.7f} {dec:+.7f}:{r:.7f}"'  # the sign must be there

    def _ask(self, search):
        client = _ads_client()
        client.TOKEN = self.token
        client.QUERY_SIMPLE_URL = f"{self.url}?"
        client.ADS_FIELDS = ["bibcode", "title", "abstract", "year", "identifier"]
        client.SORT, client.NROWS = "date desc", _MOST
        client.TIMEOUT, client._session = self.timeout, self._session
        try:
            # The raw answer: the parsed one of an unknown source is an exception.
            response = client.query_simple(search, get_raw_response=True, cache=False)
        except OSError as error:  # of requests
            raise self._explained(error) from error
        try:
            documents = json.loads(_decoded(response.content))["response"]["docs"]
            return [_paper(document["bibcode"], document.get("title"), document.get("abstract"),
                           document.get("year"), None, document.get("identifier", ()))
                    for document in documents]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Unreadable(f"{type(error).__name__}: {error}") from error

    def _explained(self, error):
        from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError
        from urllib3.exceptions import MaxRetryError

        if isinstance(error, (ChunkedEncodingError, ContentDecodingError)) or (
                isinstance(error, ConnectionError)
                and not isinstance(next(iter(error.args), None), MaxRetryError)):
            return _Unreadable(error)
        response = getattr(error, "response", None)
        status = None if response is None else response.status_code
        if status in (401, 403):
            return ArchiveError("ADS does not accept the token; get one at "
                                "https://ui.adsabs.harvard.edu/user/settings/token")
        if status == 429:
            return ArchiveError("ADS has had enough queries for today; run again tomorrow, what "
                                "was found is kept")
        return ArchiveError(f"ADS at {self.url} fails: {error}")


def _pyvo():
    """What is needed of pyvo, and the exceptions of an answer that breaks off."""
    try:
        from astropy.io.votable import parse
        from pyvo import dal
        from urllib3.exceptions import HTTPError
    except ImportError:
        raise MissingModelError("SIMBAD is asked through the pyvo package: "
                                "pip install stingray-align[remote]") from None
    return dal, parse, (HTTPError,)


def _ads_client():
    try:
        from astroquery.nasa_ads import ADSClass
    except ImportError:
        raise MissingModelError("ADS is asked through the astroquery package: "
                                "pip install stingray-align[remote]") from None
    return ADSClass()


def _ads_token():
    for variable in ("ADS_DEV_KEY", "ADS_API_TOKEN"):
        if os.environ.get(variable, "").strip():
            return os.environ[variable].strip()
    for name in ("dev_key", "token"):
        try:
            return (Path.home() / ".ads" / name).read_text().strip() or None
        except OSError:
            pass
    return _ads_client().TOKEN


def _degrees(position, radius):
    icrs = position.icrs
    return icrs.ra.deg, icrs.dec.deg, radius.to_value("deg")


def _decoded(body):
    """An answer as UTF-8, also where it declares another encoding, or breaks what it declares."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = re.match(rb"<\?xml[^>]*encoding=[\"']([\w-]+)", body)
        encoding = declared[1].decode() if declared else "utf-8"
        if encoding.casefold() in ("utf-8", "utf8"):
            encoding = "cp1252"  # what such text mostly is
        try:
            text = body.decode(encoding, errors="replace")
        except LookupError:
            text = body.decode("cp1252", errors="replace")
    return re.sub(r"^<\?xml[^>]*\?>", "", text).encode("utf-8")


def _paper(bibcode, title, abstract, year, n_objects, aliases=()):
    bibcode = _text(bibcode)
    if not bibcode:
        raise ValueError("a paper without bibcode")
    return {"bibcode": bibcode, "title": _text(title), "abstract": _text(abstract),
            "year": _whole(year), "n_objects": _whole(n_objects) or None,
            "aliases": [alias for alias in map(_text, aliases) if alias != bibcode]}


def _text(value):
    """One line of plain text: ADS gives titles as lists, and both give HTML here and there."""
    if isinstance(value, (list, tuple)):
        value = " ".join(str(part) for part in value if part)
    if value is None or getattr(value, "mask", False):
        return ""
    plain = re.sub(r"</?(sub|sup|i|b|em|p|br|inf|tt)\s*/?>", "", html.unescape(str(value)),
                   flags=re.IGNORECASE)
    return " ".join(plain.split())


def _whole(value):
    if value is None or getattr(value, "mask", False) or value == "":
        return None
    return int(value)
