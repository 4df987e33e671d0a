"""One source out of a field: which events lie in an aperture, and which measure its background.

Everything happens in the pixels of the event table (the X and Y columns, "physical" coordinates
in DS9 and CIAO), which the table's own world coordinate system ties to the sky.  Areas are
measured only where the detector is: inside the hull of the events of the CCDs under the source.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning
from scipy.spatial import ConvexHull, QhullError
from scipy.stats import poisson

from .errors import EventDataError

__all__ = ["Selection", "select_source", "event_wcs", "read_regions"]

# The automatic annulus starts at twice the aperture's radius, outside most of the point spread
# function, and ends at the first of these factors that gathers enough events.
_INNER, _OUTER, _ENOUGH = 2.0, (4.0, 6.0, 9.0, 13.0), 100
# Sectors of the automatic annulus; those with too many events hold another source.
_SECTORS, _SECTOR_P = 12, 1e-3
# Below this number of events on a CCD their hull says nothing about its outline.
_HULL_EVENTS = 50
# Points along each side of the grid on which areas are measured.
_GRID = 300


@dataclass(frozen=True, eq=False)
class Selection:
    """Events picked from a field.

    Attributes
    ----------
    source : `~numpy.ndarray` of bool, shape (n,)
        Events in the source aperture.
    ccds : list of int
        CCDs under the aperture, those that hold more than a tenth of it on the detector.
    background : `~numpy.ndarray` of bool, shape (n,), or None
        Events in the background region, without the aperture.
    area_ratio : float or None
        Area of the aperture over that of the background region, both on the detector.
    """

    source: np.ndarray
    ccds: list
    background: np.ndarray | None = None
    area_ratio: float | None = None


def select_source(
    data, header, *, position=None, radius=None, region=None, background=None, ccds=None,
    filename="the event file",
):
    """Pick the events of one source, and those that measure its background.

    Parameters
    ----------
    data : structured `~numpy.ndarray`, shape (n,)
        Rows of an event table, with columns X and Y.
    header : `astropy.io.fits.Header`
        Its header, with the world coordinate system of X and Y.
    position : `~astropy.coordinates.SkyCoord` or str, optional
        Centre of a circular aperture; a string holds right ascension and declination (ICRS), in
        degrees, sexagesimal or as in the name of a source (``"J222635.9+653537"``).
    radius : `~astropy.units.Quantity`, optional
        Its radius; a plain number is in arcsec.
    region : str, path or `regions.Region`, optional
        Aperture in place of position and radius.
    background : str, path, `regions.Region` or pair, optional
        - ``"auto"``: the regions that the region file marks as background, if it does so, else an
          annulus from 2 to 4 times the aperture's radius, widened to at most 13 times until it
          holds 100 events; of its 12 sectors, those with significantly more events than the
          others (p < 0.001) hold another source and are left out;
        - ``(inner, outer)``: an annulus with these radii;
        - a region or region file.

        In an annulus only the CCDs under the source count.  The aperture itself is left out.
    ccds : `~numpy.ndarray`, shape (n,), optional
        CCD of each event.
    filename : str
        Name for messages.

    Returns
    -------
    Selection

    Raises
    ------
    EventDataError
        No sky coordinates; a position, region file or size that cannot be understood; an aperture
        or background outside the field.  An aperture in the field without a photon is no error,
        nor is one anywhere if no CCD has 50 events to outline it.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from stingray_align.regions import select_source
    >>> xy = fits.FITS_rec.from_columns(fits.ColDefs([
    ...     fits.Column("X", "E", array=[10.0, 11.0, 50.0]),
    ...     fits.Column("Y", "E", array=[10.0, 12.0, 50.0])]))
    >>> header = fits.BinTableHDU(xy).header
    >>> header.update(TCTYP1="RA---TAN", TCRVL1=150.0, TCRPX1=10.0, TCDLT1=-1 / 3600,
    ...               TCTYP2="DEC--TAN", TCRVL2=2.0, TCRPX2=10.0, TCDLT2=1 / 3600)
    >>> print(select_source(xy, header, position="150.0 2.0", radius=5).source)
    [ True  True False]
    """
    wcs, x_name, y_name = event_wcs(header, data.dtype.names, filename)
    # Pixel coordinates count from zero in WCS and regions, from one in event tables.
    x, y = (_positions(data[name]) - 1 for name in (x_name, y_name))
    shapes, marked = _aperture(position, radius, region, wcs)
    aperture = _Shape(shapes)
    field = _Field(x, y, ccds)
    inside = aperture.contains(x, y)  # false for events without a position (NaN)
    spread, _ = field.grid(aperture)
    under = {ccd: field.on(ccd, *spread).sum() for ccd in field.hulls}
    if field.hulls and not inside.any() and not any(under.values()):
        raise EventDataError(_outside_message(aperture, field, wcs, filename))
    # A sliver of the aperture on a neighbouring CCD must not bring in that CCD's background.
    own = [int(ccd) for ccd, n in under.items() if n > 0.1 * sum(under.values())]
    if background is None:
        return Selection(inside, own)

    off_ccds = own
    if isinstance(background, str) and background == "auto" and not marked:
        outside = _auto_annulus(aperture, field, own)
    elif _are_radii(background):
        outside = _Beside(aperture, [_annulus(background, aperture.centre, wcs)])
    else:
        if isinstance(background, str) and background == "auto":
            outside = _Beside(aperture, marked)
        else:
            outside = _Beside(aperture, sum(_as_pixels(background, wcs), []))
        off_ccds = list(field.hulls)
    off_area = field.area(outside, off_ccds)
    if not off_area > 0:
        raise EventDataError(
            f"the background region lies outside the field of {filename}, or inside the source "
            "aperture; give one on the same CCD, beside the source"
        )
    events = outside.contains(x, y) & field.taken_on(off_ccds)
    return Selection(inside, own, events, field.area(aperture, own) / off_area)


def event_wcs(header, columns, filename="the event file"):
    """World coordinate system of the X and Y columns of an event table.

    Parameters
    ----------
    header : `astropy.io.fits.Header`
        With keywords TCTYPn, TCRVLn, TCRPXn, TCDLTn of the columns, or REFXCTYP, ... (XMM).
    columns : sequence of str
        Names of the columns.
    filename : str
        Name for messages.

    Returns
    -------
    wcs : `astropy.wcs.WCS`
        Between event pixels (from zero) and the sky.
    x, y : str
        Names of the two columns.

    Raises
    ------
    EventDataError
        The table has no such columns or keywords.
    """
    numbers = {name.lower(): i + 1 for i, name in enumerate(columns)}
    if not {"x", "y"} <= set(numbers):
        raise EventDataError(
            f"{filename} has no sky coordinates (columns X and Y), so no source can be picked from "
            "it; read it without position and region if it holds one source"
        )
    i, j = numbers["x"], numbers["y"]
    for kind, value, pixel, step in (
        ("TCTYP{}", "TCRVL{}", "TCRPX{}", "TCDLT{}"),
        ("REF{}CTYP", "REF{}CRVL", "REF{}CRPX", "REF{}CDLT"),
    ):
        axes = (i, j) if kind.startswith("T") else ("X", "Y")
        if all(key.format(axis) in header for key in (kind, value, pixel, step) for axis in axes):
            break
    else:
        raise EventDataError(
            f"{filename} has columns X and Y but no keywords (TCTYP{i}, TCRVL{i}, ...) that tie "
            "them to the sky; use a file that has them"
        )
    wcs = WCS(naxis=2)
    try:
        wcs.wcs.ctype = [str(header[kind.format(axis)]) for axis in axes]
        # Some files hold these numbers as strings.
        wcs.wcs.crval = [float(header[value.format(axis)]) for axis in axes]
        wcs.wcs.crpix = [float(header[pixel.format(axis)]) for axis in axes]
        wcs.wcs.cdelt = [float(header[step.format(axis)]) for axis in axes]
        frame = header.get("RADESYS") or header.get("RADECSYS")
        if frame:
            wcs.wcs.radesys = str(frame)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs.wcs.set()
    except ValueError as error:
        raise EventDataError(f"the sky coordinates of {filename} are damaged: {error}") from error
    if wcs.wcs.lng < 0 or wcs.wcs.lat < 0:
        raise EventDataError(f"columns X and Y of {filename} are not positions on the sky")
    return wcs, columns[i - 1], columns[j - 1]


def _positions(column):
    # Events without a position carry a null far outside the legal range (XMM: -99999999).
    values = np.array(column, dtype=float)
    values[np.abs(values) > 1e7] = np.nan
    return values


# Apertures


class _Shape:
    """Union of pixel regions without the excluded ones; only excluded ones: all but these."""

    def __init__(self, regions):
        self.included, self.excluded = [], []
        for region in regions:
            # Versions of regions differ in whether contains() heeds this entry.
            wanted = region.meta.get("include", True)
            region = region.copy()
            region.meta.pop("include", None)
            (self.included if wanted not in (0, False, "-") else self.excluded).append(region)

    def contains(self, x, y):
        from regions import PixCoord

        points = PixCoord(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        inside = np.isfinite(x) & np.isfinite(y) & (not self.included)
        for region in self.included:
            inside |= region.contains(points)
        for region in self.excluded:
            inside &= ~region.contains(points)
        return inside

    @property
    def bounds(self):
        """x_min, x_max, y_min, y_max in pixels; None without an outer border."""
        if not self.included:
            return None
        boxes = [region.bounding_box for region in self.included]
        return (min(b.ixmin for b in boxes) - 0.5, max(b.ixmax for b in boxes) - 0.5,
                min(b.iymin for b in boxes) - 0.5, max(b.iymax for b in boxes) - 0.5)

    @property
    def centre(self):
        """Centre of the bounds (pixels)."""
        x_min, x_max, y_min, y_max = self._bordered()
        if len(self.included) == 1 and hasattr(self.included[0], "center"):
            return self.included[0].center.x, self.included[0].center.y
        return (x_min + x_max) / 2, (y_min + y_max) / 2

    @property
    def reach(self):
        """Distance (pixels) from the centre within which the whole shape lies."""
        x_min, x_max, y_min, y_max = self._bordered()
        if len(self.included) == 1 and hasattr(self.included[0], "radius"):
            return self.included[0].radius
        return np.hypot(x_max - x_min, y_max - y_min) / 2

    def _bordered(self):
        if self.bounds is None:
            raise EventDataError(
                "the source region only excludes, so no annulus can be drawn around it; give the "
                "background as a region"
            )
        return self.bounds


class _Beside(_Shape):
    """A background shape without the aperture and without some directions from its centre."""

    def __init__(self, aperture, regions, left_out=()):
        super().__init__(regions)
        self.aperture, self.left_out = aperture, list(left_out)

    def contains(self, x, y):
        inside = super().contains(x, y) & ~self.aperture.contains(x, y)
        if self.left_out:
            inside &= ~np.isin(self.sector(x, y), self.left_out)
        return inside

    def sector(self, x, y):
        """Number of the sector in which each point lies, seen from the aperture's centre."""
        x0, y0 = self.aperture.centre
        angle = np.arctan2(np.asarray(y) - y0, np.asarray(x) - x0) / (2 * np.pi) % 1
        return np.minimum((angle * _SECTORS).astype(int), _SECTORS - 1)


def _aperture(position, radius, region, wcs):
    """Pixel regions of the source and those marked as background."""
    if (position is None) == (region is None):
        raise EventDataError("give either position and radius, or region, to pick a source")
    if region is not None:
        if radius is not None:
            raise EventDataError("radius goes with position, not with region")
        source, marked = _as_pixels(region, wcs)
        if not source:
            raise EventDataError("the region file holds no source region, only background")
        return source, marked
    if radius is None:
        raise EventDataError("give the radius of the aperture, for example radius=3 * u.arcsec")
    from regions import CircleSkyRegion

    centre = sky_position(position)
    circle = CircleSkyRegion(centre, _angle(radius)).to_pixel(wcs)
    if not np.isfinite([circle.center.x, circle.center.y, circle.radius]).all():
        raise EventDataError(
            f"the position {position} lies outside the field, on another side of the sky")
    return [circle], []


# A position as in names of sources, with all digits down to seconds.
_NAME = re.compile(
    r"^(?:.*J|\s*)(\d\d)(\d\d)(\d\d(?:\.\d*)?)\s*([-+]\d\d)(\d\d)(\d\d(?:\.\d*)?)\s*$")


def sky_position(position):
    """A SkyCoord, of text in degrees or sexagesimal."""
    if isinstance(position, SkyCoord):
        if not position.isscalar:
            raise EventDataError("position must be a single SkyCoord")
        return position
    text = _NAME.sub(r"\1:\2:\3 \4:\5:\6", str(position).replace(",", " "))
    sexagesimal = re.search(r"[:hms]", text) or len(text.split()) > 2
    try:
        return SkyCoord(text, unit=(u.hourangle, u.deg) if sexagesimal else u.deg)
    except (ValueError, TypeError) as error:
        raise EventDataError(
            f"position {position!r} is no right ascension and declination; write it like "
            "'148.959 69.680', '09:55:50.2 +69:40:47' or 'J095550.2+694047'"
        ) from error


def _angle(value):
    try:
        angle = u.Quantity(value, u.arcsec)
    except (TypeError, ValueError) as error:  # UnitConversionError is a TypeError
        raise EventDataError(f"{value!r} is no angle; write it like 3 * u.arcsec") from error
    if not (angle.isscalar and np.isfinite(angle) and angle > 0):
        raise EventDataError(f"{value!r} must be one positive angle")
    return angle


def _are_radii(background):
    from regions import Region

    if isinstance(background, list):
        return not any(isinstance(part, Region) for part in background)
    return isinstance(background, (tuple, u.Quantity))


def _annulus(radii, centre, wcs):
    from regions import CircleAnnulusPixelRegion, PixCoord

    if getattr(radii, "isscalar", False) or len(radii) != 2:
        raise EventDataError("a background annulus is given as (inner, outer) radii")
    pixel = np.sqrt(wcs.proj_plane_pixel_area()).to_value(u.arcsec)
    inner, outer = (_angle(radius).to_value(u.arcsec) / pixel for radius in radii)
    if not outer > inner:
        raise EventDataError("the outer radius of the background annulus must exceed the inner one")
    return CircleAnnulusPixelRegion(PixCoord(*centre), inner, outer)


def _auto_annulus(aperture, field, ccds):
    from regions import CircleAnnulusPixelRegion, PixCoord

    centre, reach = PixCoord(*aperture.centre), aperture.reach
    for outer in _OUTER:
        ring = _Beside(aperture, [CircleAnnulusPixelRegion(centre, _INNER * reach, outer * reach)])
        events = ring.contains(field.x, field.y) & field.taken_on(ccds)
        if events.sum() >= _ENOUGH:
            break
    (x, y), _ = field.grid_on(ring, ccds)
    area = np.bincount(ring.sector(x, y), minlength=_SECTORS)
    count = np.bincount(ring.sector(field.x[events], field.y[events]), minlength=_SECTORS)
    left_out = []
    while len(left_out) < _SECTORS // 2:
        keep = np.setdiff1d(np.flatnonzero(area), left_out)
        rest_area, rest_count = area[keep].sum() - area[keep], count[keep].sum() - count[keep]
        if len(keep) < 2:
            break
        # One count is added so that an almost empty annulus is not taken for a dark one.
        chance = poisson.sf(count[keep] - 1, (rest_count + 1) / rest_area * area[keep])
        if chance.min() > _SECTOR_P / _SECTORS:
            break
        left_out.append(keep[np.argmin(chance)])
    return _Beside(aperture, ring.included, left_out)


class _Field:
    """Where the detector looked: the hull of the events of each CCD."""

    def __init__(self, x, y, ccds):
        self.x, self.y = x, y
        self.ccds = np.zeros(len(x), dtype=int) if ccds is None else np.asarray(ccds)
        self.hulls = {}
        for ccd in np.unique(self.ccds):
            points = np.column_stack([x, y])[self.ccds == ccd]
            points = points[np.isfinite(points).all(axis=1)]
            if len(points) >= _HULL_EVENTS:
                try:
                    self.hulls[ccd] = ConvexHull(points).equations
                except QhullError:  # all on one line
                    pass

    def on(self, ccd, x, y):
        """Which points lie on a CCD."""
        edges = self.hulls[ccd]
        return np.all(np.column_stack([x, y]) @ edges[:, :2].T + edges[:, 2] <= 1e-9, axis=1)

    def taken_on(self, ccds):
        """Which events were taken on these CCDs; all if there are none to choose from."""
        return np.isin(self.ccds, ccds) if ccds else np.ones(len(self.x), dtype=bool)

    def grid(self, shape):
        """Points (x, y) spread evenly over a shape, and the area that each stands for."""
        bounds = shape.bounds
        if bounds is None:
            bounds = (np.nanmin(self.x), np.nanmax(self.x), np.nanmin(self.y), np.nanmax(self.y))
        x, dx = _middles(*bounds[:2])
        y, dy = _middles(*bounds[2:])
        x, y = (axis.ravel() for axis in np.meshgrid(x, y))
        inside = shape.contains(x, y)
        return (x[inside], y[inside]), dx * dy

    def grid_on(self, shape, ccds):
        """The same over the part of a shape that lies on these CCDs, if there are any."""
        (x, y), cell = self.grid(shape)
        if ccds:
            inside = np.any([self.on(ccd, x, y) for ccd in ccds], axis=0)
            x, y = x[inside], y[inside]
        return (x, y), cell

    def area(self, shape, ccds):
        """Area (pixels) of the part of a shape that lies on these CCDs."""
        (x, _), cell = self.grid_on(shape, ccds)
        return len(x) * cell


def _middles(low, high):
    step = (high - low) / _GRID
    return low + step * (np.arange(_GRID) + 0.5), step


def _outside_message(aperture, field, wcs, filename):
    x, y = aperture.centre
    centre = wcs.pixel_to_world((np.nanmin(field.x) + np.nanmax(field.x)) / 2,
                                (np.nanmin(field.y) + np.nanmax(field.y)) / 2)
    pixel = np.sqrt(wcs.proj_plane_pixel_area()).to_value(u.arcsec)
    nearest = np.nanmin(np.hypot(field.x - x, field.y - y)) * pixel
    return (
        f"the source aperture lies outside the field of {filename}, which is centred on "
        f"{centre.to_string('decimal')} (RA, Dec in degrees); the nearest event is "
        f"{nearest:.0f} arcsec away"
    )


# Region files


def _as_pixels(region, wcs):
    """Pixel regions of the source, and those marked as background, from anything accepted."""
    from regions import (
        LinePixelRegion, PixelRegion, PointPixelRegion, Region, Regions, SkyRegion,
    )

    if isinstance(region, Region):
        region = [region]
    elif not isinstance(region, (list, Regions)):
        region = read_regions(region)
    source, marked = [], []
    for shape in region:
        if isinstance(shape, SkyRegion):
            shape = shape.to_pixel(wcs)
        elif not isinstance(shape, PixelRegion):
            raise EventDataError(f"{shape!r} is not a region")
        if isinstance(shape, (LinePixelRegion, PointPixelRegion)):
            raise EventDataError(f"{shape!r} has no area, so it cannot pick events")
        (marked if shape.meta.get("background") else source).append(shape)
    return source, marked


_FRAMES = ("image", "physical", "icrs", "fk5", "j2000", "fk4", "b1950", "galactic", "ecliptic")
_SHAPE = re.compile(r"([-+*&|!]*)\s*([a-zA-Z]+)\s*\(([^()]*)\)")
# Shapes that only decorate a picture.
_DECORATION = ("text", "line", "point", "vector", "ruler", "compass", "projection", "segment")
_SAME_SHAPE = {"rotbox": "box"}


def read_regions(path):
    """Read a DS9 or CIAO region file (or such text), or a FITS one, as `regions.Regions`.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        A file, or the text of one (``"circle(4096.5,4096.5,20)"``).

    Returns
    -------
    `regions.Regions`
        Pixel regions count event pixels from zero; regions that the file marks as background
        have ``meta["background"]`` set, excluded ones ``meta["include"]`` zero.

    Raises
    ------
    EventDataError
        The file holds no region, or a shape or coordinate system that cannot be used here.
    FileNotFoundError
        There is no such file.

    Notes
    -----
    Shapes: circle, ellipse, annulus, box (rotbox), polygon.  Without a coordinate system, plain
    numbers are physical coordinates (columns X and Y), as in CIAO, and sexagesimal ones are ICRS.
    Image coordinates are taken as physical ones: save regions in a sky or the physical system.

    Of a FITS region file the source is the block ``SRCREG``, else the broad-band ellipse of the
    Chandra Source Catalog that holds 90 % of the source's counts (``ECF90REGB``, for the HRC
    ``ECF90REGW``), else the only block; a block ``BKGREG`` is the background.  Where the columns
    X and Y are tied to the sky, the regions are sky regions.

    Examples
    --------
    >>> from stingray_align.regions import read_regions
    >>> circle, hole = read_regions("circle(100,200,5)-circle(101,200,1)")
    >>> circle.center, circle.radius, hole.meta["include"]
    (PixCoord(x=99.0, y=199.0), 5.0, 0)
    """
    from regions import Regions

    path = os.fspath(path)
    if "(" in path and not os.path.exists(path):
        text, name = path, f"region {path!r}"
    else:
        name = f"region file {path}"
        with open(path, "rb") as stream:
            text = stream.read().decode("latin-1")
    if text.startswith(("SIMPLE  =", "\x1f\x8b")):
        return Regions(_fits_regions(path, name))
    lines = list(_ds9_lines(text, name))
    if not lines:
        raise EventDataError(f"{name} holds no region")
    regions = []
    for background, line in lines:
        with warnings.catch_warnings():
            warnings.simplefilter("error", AstropyUserWarning)
            try:
                parsed = Regions.parse(line, format="ds9")
            except (ValueError, TypeError, IndexError, KeyError, AstropyUserWarning) as error:
                shape = line.splitlines()[-1]
                raise EventDataError(f"{name}: {shape!r} cannot be used: {error}") from error
        for region in parsed:
            if background:
                region.meta["background"] = 1
            regions.append(region)
    return Regions(regions)


# Blocks of a FITS region file that hold the source, best first.
_FITS_SOURCE = ("SRCREG", "ECF90REGB", "ECF90REGW")


def _fits_regions(path, name):
    """Regions of a FITS file, those of the block BKGREG marked as background."""
    try:
        # A file of our own, since astropy leaves one that is no FITS open.
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(file, memmap=False) as hdus:
                blocks = {hdu.name: (QTable(hdu.data), hdu.header) for hdu in hdus
                          if isinstance(hdu, fits.BinTableHDU) and "SHAPE" in hdu.columns.names}
    except (OSError, TypeError, ValueError) as error:
        raise EventDataError(f"{name} could not be read as FITS: {error}") from error
    source = next((block for block in (*_FITS_SOURCE, *blocks) if block in blocks), None)
    if source in (None, "BKGREG"):
        raise EventDataError(f"{name} holds no source region (a table with a column SHAPE)")
    shapes = _fits_shapes(*blocks[source], name)
    if "BKGREG" in blocks:
        marked = _fits_shapes(*blocks["BKGREG"], name)
        for region in marked:
            region.meta["background"] = 1
        shapes += marked
    return shapes


def _fits_shapes(table, header, name):
    from regions import Regions

    columns = table.colnames
    # Without COMPONENT: it makes `regions` forget which shapes are excluded.
    table = table[[c for c in ("SHAPE", "X", "Y", "R", "ROTANG") if c in columns]]
    for axis in ("X", "Y"):  # from one in FITS, from zero in `regions`
        table[axis] = np.asarray(table[axis], dtype=float) - 1
    if "ROTANG" in table.colnames:
        table["ROTANG"] = np.asarray(table["ROTANG"], dtype=float) * u.deg
    with warnings.catch_warnings():
        warnings.simplefilter("error", AstropyUserWarning)
        try:
            shapes = list(Regions.parse(table, format="fits"))
        except Exception as error:
            raise EventDataError(f"{name} holds a region that cannot be used: {error}") from error
    if not shapes:
        raise EventDataError(f"{name} holds no region")
    try:
        wcs, _, _ = event_wcs(header, columns, name)
    except EventDataError:  # not tied to the sky: pixels of the event table
        return shapes
    return [_to_sky(region, wcs) for region in shapes]


def _to_sky(region, wcs):
    sky = region.to_sky(wcs)
    sky.meta.update(region.meta)
    return sky


def _ds9_lines(text, name):
    """Whether it is background, and "frame, newline, shape", for each shape of a region file."""
    frame = None
    for line in re.split(r"[\n\r]+", text):
        line, _, comment = line.partition("#")
        for part in line.split(";"):
            part = part.strip().rstrip("|").strip()
            lower = part.lower()
            if not part or lower.startswith("global"):
                continue
            if lower in _FRAMES:
                frame = lower
                continue
            shapes = _SHAPE.findall(part)
            if not shapes or _SHAPE.sub("", part).strip():
                raise EventDataError(
                    f"{name}: {part!r} is neither a shape nor a coordinate system that can be "
                    f"used; systems are {', '.join(_FRAMES)}"
                )
            for sign, shape, numbers in shapes:
                shape = _SAME_SHAPE.get(shape.lower(), shape.lower())
                if shape in _DECORATION:
                    continue
                if sign in ("*", "&"):
                    raise EventDataError(
                        f"{name}: intersections of shapes cannot be used; write {part!r} with + "
                        "and - only"
                    )
                here = frame or ("icrs" if ":" in numbers else "image")
                here = "image" if here == "physical" else here
                minus = "-" if "-" in sign or "!" in sign else ""
                background = re.search(r"\bbackground\b(?!\s*=\s*0)", comment) is not None
                yield background, f"{here}\n{minus}{shape}({numbers})"
