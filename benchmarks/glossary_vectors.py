"""Encode the glossary that queries are understood with, and put the vectors into the package.

To be run after every change of ``stingray_align/text/glossary.json``::

    python benchmarks/glossary_vectors.py
"""

from stingray_align.text import TextEncoder
from stingray_align.text.glossary import bundle_vectors

if __name__ == "__main__":
    bundle_vectors(TextEncoder())
