"""
Twelve observations of one galaxy
=================================

Six sources of NGC 3621 in two epochs, simulated after what is published of them: the source that
leaves an eclipse, the one whose heartbeats stop, those that fade and appear.
"""

from matplotlib import pyplot as plt

import stingray_align as sa

galaxy = sa.datasets.ngc3621(seed=1)
embeddings = sa.embed(galaxy.event_lists)
fig, axes = plt.subplots(6, 2, figsize=(7.5, 9), sharex=True, layout="constrained")
for row, embedding in zip(galaxy.truth, embeddings):
    ax = axes[int(row["source"][1]) - 1, row["epoch"] - 1]
    embedding.plot(ax)
    ax.get_legend().remove()
    ax.set(xlabel="", ylabel="")
    ax.set_title(f"{row['source']}, epoch {row['epoch']}: {embedding.n_photons} photons", fontsize=9)
fig.supxlabel("time since start (ks)", fontsize=10)
fig.supylabel("rate (ct/s, 0.5-8 keV)", fontsize=10)
plt.show()
