"""
The same photons by five methods
================================

Every method of `stingray_align.evaluate.rivals` returns what ``embed`` returns, an estimate of the
rate with the same methods. Which one is closest on average is on the page of results; on a single
source any of them may be.
"""

import numpy as np
from matplotlib import pyplot as plt

import stingray_align as sa
from stingray_align.evaluate import rivals

population = sa.datasets.simulate_population(
    1, seed=3, counts=(200, 300), classes="eclipsing ULX", instruments="ACIS-S")
events = population.event_lists[0]
estimates = {"autodecoder": events.embed(), "Bayesian blocks": rivals.bayesian_blocks(events),
             "kernel estimate": rivals.kde(events),
             "Gregory-Loredo": rivals.gregory_loredo(events),
             "Cox process": rivals.log_gaussian_cox(events)}

start, stop = estimates["autodecoder"].start, estimates["autodecoder"].stop
times = np.linspace(start, stop, 1000, endpoint=False)
truth = population.true_rate(0, times).sum(axis=1)
fig, axes = plt.subplots(len(estimates), 1, figsize=(7.5, 7), sharex=True, sharey=True,
                         layout="constrained")
for ax, (name, estimate) in zip(axes, estimates.items()):
    ax.plot((times - start) / 1000, truth, color="0.6", lw=1.5, label="truth")
    ax.plot((times - start) / 1000, estimate.rate(times, energy_range=(0.5, 7.0)), color="#0072B2",
            lw=1.2, label=name)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
axes[2].set_ylabel("rate (ct/s, 0.5-7 keV)")
axes[-1].set_xlabel("time since start (ks)")
plt.show()
