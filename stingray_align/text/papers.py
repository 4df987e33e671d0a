"""Papers of one's own, instead of those that SIMBAD and ADS know."""

import json
from pathlib import Path

__all__ = ["read_papers"]


def read_papers(path, names):
    """Papers on sources, out of a file with one JSON object per line.

    Parameters
    ----------
    path : str or Path
        Every line has the keys ``name`` (of the source), ``bibcode``, ``title`` and ``abstract``;
        the papers on a source come with the most relevant first. Empty lines are left out.
    names : sequence of str
        The sources that are wanted; blanks at the ends do not matter.

    Returns
    -------
    list of list of dict
        For each name its papers, in the order of the file.

    Raises
    ------
    ValueError
        If a line is no such object, or the file has nothing on any of the sources.

    Examples
    --------
    >>> from stingray_align.text import read_papers
    >>> with open("papers.jsonl", "w") as file:
    ...     print('{"name": "A", "bibcode": "2020X", "title": "On A", "abstract": ""}', file=file)
    >>> [[paper["bibcode"] for paper in papers] for papers in read_papers("papers.jsonl", "AB")]
    [['2020X'], []]
    """
    found = {str(name).strip(): [] for name in names}
    known = 0
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                paper = json.loads(line)
                name = paper["name"].strip()
                paper = {key: paper[key] for key in ("bibcode", "title", "abstract")}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(f"{path}, line {number}: not a JSON object with name, bibcode, "
                                 "title and abstract") from None
            if name in found:
                found[name].append(paper)
                known += 1
    if not known:
        raise ValueError(f"{path} has no paper on any of the {len(found)} sources: its names are "
                         "compared with theirs letter by letter")
    return [found[str(name).strip()] for name in names]
