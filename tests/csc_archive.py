"""A small Chandra Source Catalog: its table service and its files, for `local_server.serving`."""

import functools
import gzip
import io
import tarfile

import numpy as np
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.table import MaskedColumn, Table
from astropy.wcs import WCS
from local_server import Reply
from small_sources import write_arf

#: Position (deg) around which the sources lie.
RA, DEC = 149.0, 69.7
PIXEL = 0.492 / 3600
N_SOURCE, N_BACKGROUND, HALF_SIZE, RADIUS = 120, 300, 60.0, 5.0


def detections(n):
    """What the catalogue says of n detections, as its service answers."""
    i = np.arange(n)
    table = Table({
        "name": [f"2CXO J0956{k:02d}.0+694200" for k in i], "ra": RA + i / 3600, "dec": DEC + 0 * i,
        "obsid": 14031 + i, "obi": 0 * i, "region_id": 16 + i,
        "instrument": np.full(n, "ACIS    "), "flux_aper_b": np.full(n, 2e-14),
        "powlaw_nh": 12.0 + i, "powlaw_gamma": 1.8 + i / 10, "powlaw_stat": np.full(n, 0.9),
        "livetime": np.full(n, 2e4), "hard_hs": np.linspace(-0.5, 0.5, n),
        "extent_flag": MaskedColumn(np.ones(n, dtype=bool), mask=i % 2 == 0)})
    table["hard_hs"][:1] = np.nan
    table["powlaw_nh"].unit = "cm-2"
    return table


def votable(table, status="OK"):
    """A table as the service sends it."""
    document = from_table(table)
    document.resources[0].type = "results"
    buffer = io.BytesIO()
    document.to_xml(buffer)
    info = f'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="{status}"/>'
    # A unit as astronomers write it, which is none.
    xml = buffer.getvalue().replace(b'unit="cm-2"', b'unit="N_HI atoms 10^20 cm^-2"')
    return xml.replace(b'<RESOURCE type="results">', info.encode())


def _sky(header, x, y):
    for axis, kind, value, step in ((x, "RA---TAN", RA, -PIXEL), (y, "DEC--TAN", DEC, PIXEL)):
        header[f"TCTYP{axis}"], header[f"TCRVL{axis}"] = kind, value
        header[f"TCRPX{axis}"], header[f"TCDLT{axis}"] = 4096.5, step


def centre_of(obsid):
    """Physical pixel of the source of a detection."""
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crval = ("RA---TAN", "DEC--TAN"), (RA, DEC)
    sky.wcs.crpix, sky.wcs.cdelt = (4096.5, 4096.5), (-PIXEL, PIXEL)
    x, y = sky.all_world2pix(RA + (obsid - 14031) / 3600, DEC, 1)
    return float(x), float(y)


@functools.cache  # astropy writes the time of day beside a checksum
def event_file(obsid):
    """A regevt3 file: the photons of a rectangle around the source, and GTIs of its CCD."""
    rng = np.random.default_rng(obsid)
    x0, y0 = centre_of(obsid)
    angle, distance = rng.uniform(0, 2 * np.pi, N_SOURCE), RADIUS * np.sqrt(rng.random(N_SOURCE))
    x, y = rng.uniform(-HALF_SIZE, HALF_SIZE, (2, N_BACKGROUND))
    n = N_SOURCE + N_BACKGROUND
    events = fits.BinTableHDU.from_columns([
        fits.Column("time", "D", unit="s", array=np.sort(rng.uniform(1e8, 1e8 + 2e4, n))),
        fits.Column("ccd_id", "I", array=np.full(n, 7)),
        fits.Column("x", "E", unit="pixel", array=np.append(x0 + distance * np.cos(angle), x0 + x)),
        fits.Column("y", "E", unit="pixel", array=np.append(y0 + distance * np.sin(angle), y0 + y)),
        fits.Column("energy", "E", unit="eV", array=rng.uniform(500, 7000, n)),
    ], name="EVENTS")
    _sky(events.header, 3, 4)
    gti = fits.BinTableHDU.from_columns([
        fits.Column("START", "D", unit="s", array=[1e8]),
        fits.Column("STOP", "D", unit="s", array=[1e8 + 2e4])], name="GTI7")
    for hdu in (events, gti):
        hdu.header.update(TELESCOP="CHANDRA", INSTRUME="ACIS", MJDREF=50814.0, TIMESYS="TT",
                          TIMEUNIT="s", TIMEZERO=0.0, TSTART=1e8, TSTOP=1e8 + 2e4,
                          OBS_ID=str(obsid))
    return _bytes(events, gti)


@functools.cache
def region_file(obsid, blocks=("ECF90REGB",)):
    """A reg3 file: ellipses, one block for each band."""
    x, y = centre_of(obsid)
    hdus = []
    for name in blocks:
        hdu = fits.BinTableHDU.from_columns([
            fits.Column("SHAPE", "16A", array=["Ellipse"]),
            fits.Column("X", "D", unit="pixel", array=[x]),
            fits.Column("Y", "D", unit="pixel", array=[y]),
            fits.Column("R", "2D", unit="pixel", array=[[RADIUS + 0.01] * 2]),
            fits.Column("ROTANG", "D", unit="deg", array=[0.0]),
            fits.Column("COMPONENT", "J", array=[1])], name=name)
        _sky(hdu.header, 2, 3)
        hdus.append(hdu)
    return _bytes(*hdus)


@functools.cache
def area_file(obsid):
    """An arf3 file."""
    buffer = io.BytesIO()
    write_arf(buffer, lambda energy: obsid / 100)
    return buffer.getvalue()


def _bytes(*hdus):
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(buffer, checksum=True)
    return buffer.getvalue()


def packed(data):
    return gzip.compress(data, mtime=0)


def members_of(packages):
    """Names and contents of what the archive sends for a packageset."""
    for package in packages.split(","):
        key, kind, band = package.split("/")
        assert band == "b"
        obsid, obi, region = map(int, key.split("."))
        stem = f"package/acisf{obsid:05d}_{obi:03d}N{{}}_r{region:04d}_"
        if kind == "regevt3":
            yield stem.format("021") + "regevt3.fits.gz", packed(event_file(obsid))
        elif kind == "srcreg":
            yield stem.format("020") + "reg3.fits.gz", packed(region_file(obsid))
        else:
            assert kind == "arf"
            yield stem.format("021") + "arf3.fits.gz", packed(area_file(obsid))


def tar_of(members):
    """A tar of (name or TarInfo, contents)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def archive(request):
    """The archive without faults."""
    if request.path.endswith("/sync"):
        return Reply(votable(detections(3)), type="application/x-votable+xml")
    assert request.path == "/csccli/retrieve" and request.parameters["version"] == "rel2.1"
    return Reply(tar_of(members_of(request.parameters["packageset"])), type="application/x-tar")
