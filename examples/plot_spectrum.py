"""
A spectrum out of sixty photons
===============================

The decoded spectrum with its uncertainty, beside the photons in the same channels. It is a
`specutils.Spectrum`, in counts per keV, of source and background as the detector saw them.
"""

import numpy as np
from astropy import units as u
from astropy.stats import poisson_conf_interval
from matplotlib import pyplot as plt

import stingray_align as sa

population = sa.datasets.simulate_population(
    1, seed=3, counts=(55, 65), classes="obscured AGN", instruments="ACIS-S")
events = population.event_lists[0]
spectrum = events.embed().spectrum()

edges = spectrum.bin_edges.to_value(u.keV)
width = np.diff(edges)
counts = np.histogram(events.energy, edges)[0]
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
low, high = poisson_conf_interval(counts, interval="frequentist-confidence")
ax.errorbar(np.sqrt(edges[1:] * edges[:-1]), counts / width,
            ((counts - low) / width, (high - counts) / width), fmt="o", color="k", ms=3, lw=0.8,
            label="photons")
flux, error = spectrum.flux.value, np.sqrt(spectrum.uncertainty.array)
ax.stairs(flux, edges, color="#0072B2", lw=1.5, label="decoded")
ax.fill_between(edges, np.append(flux - error, (flux - error)[-1]),
                np.append(flux + error, (flux + error)[-1]), step="post", color="#0072B2",
                alpha=0.25, lw=0)
ax.set(xscale="log", xlabel="energy (keV)", ylabel="counts per keV", xlim=(0.5, 8), ylim=(0, None))
ax.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()
