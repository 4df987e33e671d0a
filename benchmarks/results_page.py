"""Run every benchmark and put what it prints, and the figures shown there, into the documentation.

Runs ``stingray-align benchmark all`` into a directory for work, with the same options, and copies
from there what the pages in docs include::

    python benchmarks/results_page.py WORK_DIRECTORY [--only NAME ...] [--files EVENT_FILE ...]
"""

import re
import shutil
import sys
from pathlib import Path

from stingray_align.cli import main

DOCS = Path(__file__).parents[1] / "docs"


def copy_results(work):
    """Copy the files that the pages include, as far as they have been made."""
    pages = "".join(page.read_text() for page in DOCS.glob("*.rst"))
    for name in re.findall(r":: results/(\S+)", pages):
        if (work / name).is_file():
            (DOCS / "results" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(work / name, DOCS / "results" / name)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    status = main(["benchmark", "all", "-o", *sys.argv[1:]])
    copy_results(Path(sys.argv[1]))
    sys.exit(status)
