"""How this package speaks HTTP: one session that retries, waits as told, and says who asks."""

from importlib.metadata import PackageNotFoundError, version

from .errors import MissingModelError

__all__ = ["session"]

_BUSY = (429, 500, 502, 503, 504)


def session(*, retries=5, backoff=1.0):
    """A ``requests`` session whose calls are tried again when the server is busy or out of reach.

    Parameters
    ----------
    retries : int, optional
        Further attempts after a lost connection, status 429 or 5xx. After the last the answer
        with that status is returned: ``raise_for_status`` tells.
    backoff : float, optional
        Seconds before the second attempt, doubled each time; a ``Retry-After`` header wins.

    Returns
    -------
    requests.Session

    Raises
    ------
    MissingModelError
        If ``requests`` is not installed.
    """
    try:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3 import Retry
    except ImportError:
        raise MissingModelError("archives are reached through the requests package: "
                                "pip install stingray-align[remote]") from None
    made = requests.Session()
    adapter = HTTPAdapter(max_retries=Retry(
        total=retries, backoff_factor=backoff, status_forcelist=_BUSY, allowed_methods=None,
        raise_on_status=False))
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    try:
        made.headers["User-Agent"] = f"stingray-align/{version('stingray-align')}"
    except PackageNotFoundError:  # used from a source tree
        made.headers["User-Agent"] = "stingray-align"
    return made
