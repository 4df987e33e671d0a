"""Run every benchmark and write what it prints to docs/results, which the results page shows.

Takes about a quarter of an hour on one core::

    python benchmarks/results_page.py [EVENT_FILE ...]

With event files, each of one source, the table of real observations is made too.
"""

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from stingray_align.cli import main

RESULTS = Path(__file__).parents[1] / "docs" / "results"
COMMANDS = {
    "reconstruction-bright": ["reconstruction"],
    "reconstruction-csc": ["reconstruction", "--counts", "csc"],
    "calibration": ["calibration"],
    "retrieval": ["retrieval"],
    "classification": ["classification"],
    "regression": ["regression"],
    "novelty": ["novelty"],
    "cost": ["cost"],
}


def run(name, arguments):
    """Keep the output of one benchmark; a failed one leaves the old file as it is."""
    printed = StringIO()
    with redirect_stdout(printed):
        status = main(["benchmark", *arguments])
    if status:
        sys.exit(f"benchmark {name} failed")
    lines = [line.rstrip() for line in printed.getvalue().strip().splitlines()]
    (RESULTS / f"{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    for name, arguments in COMMANDS.items():
        run(name, arguments)
    if sys.argv[1:]:
        run("real", ["real", *sys.argv[1:]])
