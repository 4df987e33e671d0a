"""Make everything that is bundled, and every measured figure of the documentation, again.

Trains the autodecoder, the aligner and the reference catalogue on simulated sources, puts them
into the package, and runs all benchmarks (`results_page`) and plots of the population. Takes about
seven hours on two cores, most of them for the autodecoder and for summaries of 400,000 sources, and
can be interrupted: what is finished is not done twice::

    python benchmarks/rebuild.py WORK_DIRECTORY [EVENT_FILE ...]

With ``--keep-autodecoder`` the bundled autodecoder stays, and only what follows from it is made.
``--adapt`` fits the bundled aligner to the autodecoder, in place of training another, which
leaves most texts unencoded. The event files, each of one source, are those of the table of real
observations.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from stingray_align._files import BUNDLED
from stingray_align.alignment import Aligner, align
from stingray_align.autodecoder import PoissonAutodecoder, train

HERE = Path(__file__).parent


def main():
    """Train, align, measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, help="directory for what is not finished")
    parser.add_argument("files", metavar="EVENT_FILE", nargs="*", type=Path)
    parser.add_argument("--keep-autodecoder", action="store_true")
    parser.add_argument("--adapt", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    trained = args.work / "autodecoder.safetensors"
    if not args.keep_autodecoder:
        if not trained.exists():
            train(trained)
        shutil.copy(trained, BUNDLED / trained.name)

    catalogue = args.work / "catalogue"
    if not catalogue.exists():
        model = PoissonAutodecoder.load(BUNDLED / trained.name)
        start = Aligner.pretrained() if args.adapt else None
        align(catalogue, model=model, work=args.work / "pairs", start=start)
    shutil.copytree(catalogue, BUNDLED / "catalogue", dirs_exist_ok=True)

    # In processes of their own, which load what was just put into the package.
    page = [args.work / "benchmarks", "--work", args.work / "pairs",
            *(["--files", *args.files] if args.files else [])]
    for script, arguments in (("glossary_vectors.py", []), ("results_page.py", page),
                              ("plot_population.py", [])):
        subprocess.run([sys.executable, HERE / script, *arguments], check=True)


if __name__ == "__main__":
    main()
