"""Run every benchmark and write what it prints to docs/results, which the results page shows.

Takes about an hour on one core, most of it for the rivals::

    python benchmarks/results_page.py [--only NAME] [EVENT_FILE ...]

With event files, the tables of real observations are made too. Figures go to docs/results as well.
"""

import argparse
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from stingray_align.cli import main

RESULTS = Path(__file__).parents[1] / "docs" / "results"
COMMANDS = {
    "reconstruction-bright": ["reconstruction"],
    "reconstruction-csc": ["reconstruction", "--counts", "csc"],
    "challenge-bright": ["reconstruction", "--challenge", "--sources", "1000"],
    "challenge-csc": ["reconstruction", "--challenge", "--counts", "csc", "--sources", "1000"],
    "calibration": ["calibration", "-o", str(RESULTS / "calibration")],
    "retrieval": ["retrieval"],
    "classification": ["classification"],
    "regression": ["regression", "--sources", "1000"],
    "time-shape": ["time-shape"],
    "novelty": ["novelty"],
    "instruments": ["instruments"],
    "cost": ["cost"],
}


def commands(files):
    """Name of the text file to the arguments of ``stingray-align benchmark``."""
    if not files:
        return COMMANDS
    return COMMANDS | {"calibration": [*COMMANDS["calibration"], "--files", *files],
                       "thinning": ["thinning", *files], "real": ["real", *files]}


def run(name, arguments):
    """Keep the output of one benchmark; a failed one leaves the old file as it is."""
    printed = StringIO()
    with redirect_stdout(printed):
        status = main(["benchmark", *arguments])
    if status:
        sys.exit(f"benchmark {name} failed")
    # The paths of written files depend on where this runs.
    lines = [line.rstrip() for line in printed.getvalue().strip().splitlines()
             if not line.startswith("Tables and figures: ")]
    (RESULTS / f"{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", metavar="EVENT_FILE")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="one of the text files; may be given several times")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name, arguments in commands(options.files).items():
        if not options.only or name in options.only:
            run(name, arguments)
