"""
A real source: M82 X-1
======================

Picked by position out of the short Chandra observation that Stingray carries, embedded, and read
beside the simulated archetypes. Probabilities compare with simulated classes only.
"""

from importlib.resources import files

from astropy import units as u
from matplotlib import pyplot as plt

import stingray_align as sa

path = files("stingray") / "tests" / "data" / "chandra_test.fits"
events = sa.EventList.read(path, position="09h55m50.2s +69d40m47s", radius=3 * u.arcsec,
                           background="auto")
catalogue = sa.AlignedCatalog.pretrained()
catalogue.interpret(events, name="M82 X-1").plot()
plt.show()
