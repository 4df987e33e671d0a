"""
Has this source changed?
========================

The brightest source of the simulated NGC 3621 shines as brightly in both epochs, but its spectrum has changed: from that of a
power law to that of a disc.
"""

from matplotlib import pyplot as plt

import stingray_align as sa

galaxy = sa.datasets.ngc3621(seed=1)
first, second = (galaxy.event_lists[int(row)] for row in (galaxy.truth["source"] == "X2").nonzero()[0])
comparison = sa.compare(first, second, names=("first epoch", "second epoch"))
print(comparison.text)
comparison.plot()
plt.show()
