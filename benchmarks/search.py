"""How long one exact query of millions of vectors takes, and in how much memory.

Run ``python benchmarks/search.py``. Random unit vectors are written to a file and searched for the
ten rows most similar to one query: in half and in single precision, in memory and mapped from the
file, beside a plain matrix product of numpy that only computes the scores, and beside faiss (exact,
flat) if it is installed. Every method runs in a process of its own. Times are the best of several
repeats, on the clock and of the processor (all threads together, which other work on the machine
hardly changes); ``times`` is the ratio of the latter to numpy's product, which means the same on
every machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from astropy.table import Table

CHUNK = 100_000
METHODS = {  # name: precision, in memory or mapped
    "numpy product": ("float32", None), "top_k": ("float16", None),
    "top_k, mapped": ("float16", "c"), "top_k, single": ("float32", None),
    "top_k, single, mapped": ("float32", "c"), "faiss, flat": ("float32", None)}


def write(folder, n, d, seed):
    """Files with the same vectors in both precisions."""
    rng = np.random.default_rng(seed)
    files = {kind: np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", kind, (n, d))
             for kind in ("float16", "float32")}
    for first in range(0, n, CHUNK):
        part = rng.standard_normal((min(CHUNK, n - first), d), dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        for file in files.values():
            file[first:first + CHUNK] = part


def search(name, folder, k, repeats, threads):
    """Seconds of the best repeat, what was found, and the memory it took."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    kind, mapped = METHODS[name]
    vectors = np.load(folder / f"{kind}.npy", mmap_mode=mapped)
    query = np.asarray(vectors[len(vectors) // 2][None], np.float32)
    if name == "numpy product":
        def run():
            return (vectors @ query[0]).argmax()[None, None]
    elif name.startswith("faiss"):
        import faiss

        faiss.omp_set_num_threads(threads)

        def run():
            return faiss.knn(query, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
    else:
        from stingray_align.alignment._search import top_k

        def run():
            return top_k(query, vectors, k)[1]
    times = []
    for _ in range(repeats):
        begin = time.perf_counter(), time.process_time()
        found = run()
        times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    clock, processor = np.min(times, axis=0)
    return {"clock": clock, "processor": processor, "best": int(found[0][0]),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2, help="for numpy and faiss (default 2)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where there is room; default: the system's")
    parser.add_argument("--method", choices=("write", *METHODS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method == "write":
        write(options.folder, options.rows, options.dimensions, options.seed)
        return
    if options.method:
        print(json.dumps(search(options.method, options.folder, options.k, options.repeats,
                                options.threads)))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        def child(name):
            return subprocess.run(
                [sys.executable, __file__, "--method", name, "--folder", folder,
                 *(str(item) for key in ("rows", "dimensions", "k", "repeats", "threads", "seed")
                   for item in (f"--{key}", getattr(options, key)))],
                check=True, stdout=subprocess.PIPE, text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(options.threads)}).stdout

        child("write")
        for name in METHODS:
            if name.startswith("faiss") and find_spec("faiss") is None:
                continue
            found = json.loads(child(name))
            first = rows[0][3] if rows else found["processor"]
            rows.append((name, METHODS[name][0], found["clock"], found["processor"],
                         found["processor"] / first, found["peak"], found["best"]))
    table = Table(rows=rows, names=("method", "precision", "s per query", "processor s", "times",
                                    "peak GB", "best row"))
    for name in table.colnames[2:6]:
        table[name].info.format = ".2f"
    table.pprint(max_lines=-1, max_width=-1)


if __name__ == "__main__":
    main()
