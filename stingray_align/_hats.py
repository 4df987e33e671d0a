"""Catalogues in the HATS format as tables and files: event lists to nested columns and back.

A partition is one Parquet file with the sources of one patch of the sky (a HEALPix pixel), in the
order of their index on the sky. Files are written whole or not at all, with checksums.
"""

import contextlib
import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable

from ._files import atomic_file
from ._gti import as_floats
from .errors import EventDataError, EventDataWarning, MissingModelError

__all__ = ["ATTRIBUTES", "INDEX", "LEFT_OUT", "NESTED", "STARTED", "VECTORS", "array", "as_table",
           "event_lists", "facts", "finish", "gather", "in_units", "is_whole", "label", "matrix",
           "one_line", "partition_path", "pixels", "present", "read_index", "require_lsdb", "rows",
           "split", "start", "units", "write_bytes", "write_part", "write_partition"]

INDEX = "_healpix_29"
NESTED = {"events": ("time", "energy"), "gti": ("start", "stop")}
#: Attributes of an event list that become columns, with their types in Arrow.
ATTRIBUTES = {"mission": "string", "instr": "string", "arf_file": "string",
              "mjdref": "float64"} | dict.fromkeys(
    ("background_soft", "background_medium", "background_hard", "background_top"), "float64")
VECTORS = ("vector", "shared")
STARTED, LEFT_OUT = "started.json", "left_out.json"
_DEEPEST = 13  # order of a pixel of 26 arcsec, beyond which partitions are not split


# -- tables ---------------------------------------------------------------------------------------


def as_table(frame, pixel):
    """The rows of a partition as an Arrow table in the order of the sky, index included."""
    table = frame.to_pyarrow()
    return table.take(np.argsort(table[INDEX].to_numpy(), kind="stable"))


def facts(table, units):
    """What is known of the sources: all columns but photons, vectors and the index."""
    names = [name for name in table.column_names
             if name not in (INDEX, *NESTED, *VECTORS, *ATTRIBUTES)]
    facts = QTable()
    for name in names:
        column = table[name].combine_chunks()
        values = np.array(column.to_pylist() if str(column.type).endswith("string")
                          else column.to_numpy(zero_copy_only=False))
        if values.dtype == object:
            values = np.array(["" if value is None else value for value in values], dtype=str)
        facts[name] = values * u.Unit(units[name]) if name in units else values
    return facts


def event_lists(table):
    from .events import EventList

    nested = {name: _columns(table[name], fields) for name, fields in NESTED.items()}
    attributes = {name: table[name].to_pylist() for name in present(table, ATTRIBUTES)}
    made = []
    for row in range(len(table)):
        time, energy = (values[row] for values in nested["events"])
        events = EventList(time=time, energy=energy,
                           gti=np.column_stack([values[row] for values in nested["gti"]]))
        for name, values in attributes.items():
            if values[row] is not None:
                setattr(events, name, values[row])
        made.append(events)
    return made


def _columns(nested, fields):
    """For each field of a nested column, its values source by source; None holds no row."""
    import pyarrow.compute as pc

    columns = []
    for field in fields:
        lists = pc.struct_field(nested.combine_chunks(), field)
        ends = np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
        values = lists.flatten().to_numpy(zero_copy_only=False).astype(float)
        columns.append(np.split(values, ends)[:-1])
    return columns


def present(table, names):
    return [name for name in names if name in table.column_names]


def label(table, row):
    if "name" in table.column_names:
        return str(table["name"][row])
    return f"the source at {table['ra'][row]}, {table['dec'][row]}"


def matrix(column):
    """A column of vectors as an array, shape (n, d)."""
    column = column.combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def rows(matrix):
    """The rows of a matrix as an Arrow column."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def array(values):
    import pyarrow as pa

    return values if isinstance(values, pa.Array) else pa.array(values)


def units(catalog):
    return json.loads(getattr(catalog.hc_structure.catalog_info, "stingray_align_units", "{}"))


# -- files ----------------------------------------------------------------------------------------


def start(output, about):
    """Begin a catalogue in a folder, or make sure that it is this one that was begun there."""
    path = output / STARTED
    if path.exists():
        before = json.loads(path.read_text())
        if differing := [key for key in about if about[key] != before.get(key)]:
            raise FileExistsError(
                f"{output} was started with other settings ({', '.join(differing)}); choose "
                "another folder or delete this one")
        for leftover in output.rglob(".*.*"):  # of a writing that was killed
            if leftover.is_file():
                leftover.unlink()
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} holds something else; choose a new folder")
    output.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(about).encode())


def write_bytes(path, content):
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def in_units(table, units, part):
    """A part with positions in degrees and all else in the units of the first; which those are."""
    table = QTable(table)
    for name in {"ra", "dec"} & set(table.colnames):
        table[name] = as_floats(table[name], u.deg) * u.deg
    own = {name: table[name].info.unit for name in table.colnames}
    if units is None:
        return table, own
    if own.keys() != units.keys():
        raise ValueError(f"the tables of the parts have different columns: {', '.join(own)} in "
                         f"part {part}, {', '.join(units)} in the first")
    for name in [name for name in own if own[name] != units[name]]:
        if None in (own[name], units[name]) or not own[name].is_equivalent(units[name]):
            raise ValueError(f"column {name!r} has the unit {own[name]} in part {part} and "
                             f"{units[name]} in the first")
        table[name] = table[name].to(units[name])
    return table[list(units)], units


def write_part(path, event_lists, table):
    """Sources as they come, sorted on the sky, in a file whose rows can be taken out singly."""
    import pyarrow as pa

    names = [name for name in table.colnames if name in (INDEX, *NESTED, *ATTRIBUTES, *VECTORS)]
    if names:
        raise ValueError(f"column names {names} are used for event lists: rename them")
    if not {"ra", "dec"} <= set(table.colnames):
        raise ValueError("the table needs the columns 'ra' and 'dec' (ICRS degrees)")
    event_lists = list(event_lists)
    if len(event_lists) != len(table):
        raise ValueError(f"{len(event_lists)} event lists but {len(table)} rows in the table")
    good = [row for row, events in enumerate(event_lists) if events is not None]
    facts, index = table[good], _sky_index(table)[good]
    rows = _photon_columns([event_lists[row] for row in good])
    columns = {INDEX: pa.array(index)}
    for name in facts.colnames:
        columns[name] = _fact_column(name, facts[name])
    written = pa.table(columns | rows).take(np.argsort(index, kind="stable"))
    with atomic_file(path) as temporary, pa.OSFile(str(temporary), "wb") as file:
        with pa.ipc.new_file(file, written.schema) as writer:
            writer.write_table(written)


def _fact_column(name, column):
    import pyarrow as pa

    values = np.ma.getdata(np.asarray(getattr(column, "value", column)))
    if values.ndim != 1 or values.dtype.kind not in "biufSU":
        raise ValueError(f"column {name!r} holds neither plain numbers nor text: leave it out")
    if values.dtype.kind == "S":
        values = np.char.decode(values)
    values = values.astype(values.dtype.newbyteorder("="))
    mask = np.asarray(getattr(column, "mask", False))
    return pa.array(values.tolist() if values.dtype.kind == "U" else values,
                    mask=np.broadcast_to(mask, values.shape) if mask.any() else None)


def _photon_columns(event_lists):
    import pyarrow as pa
    from stingray import EventList

    from .events import _energies

    nested = {name: [] for fields in NESTED.values() for name in fields}
    for events in event_lists:
        if not isinstance(events, EventList):
            raise EventDataError(f"expected a stingray.EventList, not {type(events).__name__}")
        time = np.empty(0) if events.time is None else np.array(events.time, dtype=float)
        nested["time"].append(time)
        nested["energy"].append(_energies(events, len(time)) if len(time) else time)
        gti = np.asarray(events.gti if events._gti is None else events._gti, dtype=float)
        nested["start"].append(gti.reshape(-1, 2)[:, 0])
        nested["stop"].append(gti.reshape(-1, 2)[:, 1])

    def lists(parts):
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()),
                                        pa.array(np.concatenate([*parts, []])))

    columns = {name: pa.StructArray.from_arrays([lists(nested[field]) for field in fields], fields)
               for name, fields in NESTED.items()}
    for name, kind in ATTRIBUTES.items():
        values = [getattr(events, name, None) for events in event_lists]
        if kind == "string":
            values = [None if value is None else str(value) for value in values]
        else:
            values = [None if value is None or np.ndim(value) else float(value)
                      for value in values]
        columns[name] = pa.array(values, getattr(pa, kind)())
    return columns


def _sky_index(table):
    require_lsdb()
    from hats.pixel_math.spatial_index import compute_spatial_index

    ra, dec = (np.asarray(table[name].value) for name in ("ra", "dec"))
    if not (np.isfinite(ra).all() and (np.abs(dec) <= 90).all()):
        raise ValueError("every source needs a position: 'ra' and 'dec' in degrees")
    return np.asarray(compute_spatial_index(ra % 360, dec), np.int64)


def read_index(path, table):
    with _mapped(path) as part:
        index = part[INDEX].to_numpy()
    if not np.isin(index, _sky_index(table)).all():
        raise FileExistsError(f"{path.parents[1]} was started with other sources; choose another "
                              "folder or delete this one")
    return index


@contextlib.contextmanager
def _mapped(path):
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        yield pa.ipc.open_file(file).read_all()


def gather(index, pixel):
    """The rows of a patch of the sky, out of all parts."""
    import pyarrow as pa

    bounds = index_range(pixel)
    with contextlib.ExitStack() as stack:
        found = []
        for path, rows in index:
            first, last = np.searchsorted(rows, bounds)
            if last > first:
                part = stack.enter_context(_mapped(path))
                found.append(part.slice(first, last - first))
        try:
            table = pa.concat_tables(found)
        except pa.ArrowInvalid as error:
            raise ValueError(f"the tables of the parts have different columns: {error}") from error
        # Sorting copies, so that nothing refers to the files when they are closed.
        return table.take(np.argsort(table[INDEX].to_numpy(), kind="stable")).combine_chunks()


def index_range(pixel):
    shift = 2 * (29 - int(pixel.order))
    return int(pixel.pixel) << shift, (int(pixel.pixel) + 1) << shift


def split(index, n_rows):
    """Patches of the sky with at most ``n_rows`` of the sources, in the order of the sky."""
    from hats.pixel_math.healpix_pixel import HealpixPixel

    pixels, stack = [], [HealpixPixel(0, number) for number in reversed(range(12))]
    while stack:
        pixel = stack.pop()
        n = np.diff(np.searchsorted(index, index_range(pixel)))[0]
        if n > n_rows and pixel.order < _DEEPEST:
            stack += [HealpixPixel(pixel.order + 1, 4 * pixel.pixel + i) for i in (3, 2, 1, 0)]
        elif n:
            pixels.append(pixel)
    return pixels


def pixels(catalog):
    """The patches of a catalogue in the order of the sky."""
    return sorted(catalog.get_healpix_pixels(), key=index_range)


def partition_path(output, pixel):
    from hats.io import paths

    return Path(str(paths.pixel_catalog_file(str(output), pixel)))


def write_partition(path, table, metadata=None):
    import pyarrow.parquet as pq

    table = table.replace_schema_metadata(metadata)
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def is_whole(path):
    """Whether a partition was written and is as it was written; a damaged one is removed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return False
    try:
        pq.read_table(path, page_checksum_verification=True, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        warnings.warn(f"{path} is damaged ({one_line(error)}) and is made again",
                      EventDataWarning, stacklevel=3)
        path.unlink()
        return False
    return True


def finish(output, about, left_out=()):
    """Write what makes a folder of partitions a catalogue; its properties last.

    ``left_out`` names sources of partitions that have no file, each with the reason.
    """
    import pyarrow.parquet as pq
    from hats.catalog import PartitionInfo, TableProperties
    from hats.io import paths, write_parquet_metadata

    files = sorted((output / "dataset").rglob("Npix=*.parquet"))
    if not files:
        raise EventDataError("no source of the catalogue can be used" + "".join(
            f": {name}: {reason}" for name, reason in left_out[:1]))
    left_out = list(left_out)
    for path in files:
        kept = pq.read_schema(path).metadata or {}
        left_out += json.loads(kept.get(b"left_out", b"[]"))
    write_bytes(output / LEFT_OUT, json.dumps(left_out, indent=1).encode())
    n_rows = write_parquet_metadata(output)
    pixels = [paths.get_healpix_from_path(str(path)) for path in files]
    partitions = PartitionInfo(pixels)
    partitions.write_to_file(catalog_path=output)
    properties = TableProperties(
        catalog_name=output.name, catalog_type="object", total_rows=n_rows, ra_column="ra",
        dec_column="dec", healpix_column=INDEX, healpix_order=29,
        hats_order=partitions.get_highest_order(),
        **TableProperties.new_provenance_dict(
            output, builder=f"stingray-align v{version('stingray-align')}"), **about)
    properties.to_properties_file(output)


def one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def require_lsdb():
    try:
        import lsdb
    except ImportError as error:
        raise MissingModelError("catalogues on disk need LSDB: pip install "
                                "'stingray-align[scale]'") from error
    return lsdb
