"""Where the files that come with the package are."""

from pathlib import Path

__all__ = ["CATALOGUE"]

#: The bundled reference catalogue; the bundled aligner is the one inside it.
CATALOGUE = Path(__file__).parents[1] / "data" / "catalogue"
