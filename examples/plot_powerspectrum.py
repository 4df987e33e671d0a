"""
Power spectrum of a decoded rate
================================

Stingray makes light curves and power spectra of what the autodecoder decodes. The power of the
photons holds the Poisson noise (a power of two in this norm); the decoded rate has none. It is an
estimate of the rate, no measurement: never search it for periods instead of the photons.
"""

from matplotlib import pyplot as plt
from stingray import Powerspectrum

import stingray_align as sa

population = sa.datasets.simulate_population(
    1, seed=4, counts=(900, 1000), classes="heartbeat ULX", instruments="ACIS-S",
    duration=(4e4, 5e4))
events = population.event_lists[0]
dt = (events.gti[-1, 1] - events.gti[0, 0]) / 512
measured = Powerspectrum(events.to_lc(dt), norm="leahy")
decoded = Powerspectrum(events.embed().to_lightcurve(dt), norm="leahy")

fig, ax = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
ax.loglog(measured.freq, measured.power, color="0.6", lw=0.8, label="photons")
ax.loglog(decoded.freq, decoded.power, color="#0072B2", lw=1.2, label="decoded rate")
ax.axhline(2, color="k", lw=0.8, ls=":", label="Poisson noise")
ax.axvline(1 / population.truth["period"][0].to_value("s"), color="#D55E00", lw=0.8, ls="--",
           label="true recurrence")
ax.set(xlabel="frequency (Hz)", ylabel="power (Leahy)", ylim=(1e-3, None))
ax.legend(frameon=False)
plt.show()
