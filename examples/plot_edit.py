"""
A source without its eclipse, or behind gas
===========================================

Counterfactuals through the decoder: the same photons, were the source not eclipsed, or absorbed by a column of 3e22 atoms per
square centimetre; and the rank of each among the sources of the catalogue for a question in plain words.
"""

import numpy as np
from matplotlib import pyplot as plt

import stingray_align as sa

events = sa.datasets.simulate_population(1, seed=21, counts=(600, 900), classes="eclipsing ULX",
                                         instruments="ACIS-S").event_lists[0]
embedding = sa.embed(events)
versions = {"as observed": embedding, "without its eclipse": embedding.edit(remove="eclipse"),
            "behind gas": embedding.edit(n_h=3)}
catalogue = sa.AlignedCatalog.pretrained()
ranks = {question: catalogue.rank_of(list(versions.values()), question)["rank"]
         for question in ("an eclipsing ultraluminous source", "heavily absorbed")}

times = np.linspace(embedding.start, embedding.stop, 500)
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for colour, (name, version) in zip(("black", "#0072b2", "#d55e00"), versions.items()):
    left.plot((times - times[0]) / 1e3, version.rate(times), color=colour, label=name)
    spectrum = version.spectrum()
    right.step(spectrum.spectral_axis.value, spectrum.flux.value, where="mid", color=colour)
left.set(xlabel="time since start (ks)", ylabel="rate (ct/s, 0.5-8 keV)", ylim=(0, None))
right.set(xlabel="energy (keV)", ylabel="spectrum (ct/keV)", xscale="log", yscale="log")
right.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"], minor=False)
right.minorticks_off()
fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
for question, found in ranks.items():
    print(f"{question!r}: " + ", ".join(f"rank {rank} {name}" for name, rank in zip(versions, found)))
plt.show()
