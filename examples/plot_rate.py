"""
A rate with its uncertainty
===========================

A simulated flaring young star, its photons in bins for the eye, the rate that the autodecoder finds
from the single photons with its 68 % interval, and the true rate that the photons were drawn from.
"""

import numpy as np
from matplotlib import pyplot as plt

import stingray_align as sa

population = sa.datasets.simulate_population(
    1, seed=5, counts=(250, 350), classes="flaring young star", instruments="ACIS-I")
events = population.event_lists[0]
embedding = events.embed()

fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
embedding.plot(ax)
start, stop = embedding.start, embedding.stop
times = np.linspace(start, stop, 800, endpoint=False)
ax.plot((times - start) / 1000, population.true_rate(0, times).sum(axis=1), color="#D55E00", lw=1,
        ls="--", label="truth (0.5-7 keV)")
ax.legend(frameon=False, ncols=2, loc="upper center")
plt.show()
