"""
A map of the shared space
=========================

The bundled catalogue of simulated archetypes, each a point at the projection of its photons on the
first two principal components of the shared space, and where a sentence lands.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA

import stingray_align as sa

catalogue = sa.AlignedCatalog.pretrained()
vectors = np.asarray(catalogue.source_vectors, dtype=float)
plane = PCA(2).fit(vectors)
place = plane.transform(vectors)

sentence = "a supersoft source, no hard photons"
found = catalogue.query(sentence, k=20)
rows = np.flatnonzero(np.isin(catalogue.table["name"], found["name"]))
fig, ax = plt.subplots(figsize=(7, 5), layout="constrained")
ax.scatter(*place.T, s=3, color="0.8", label="archetypes")
for name, colour in {"supersoft source": "#0072B2", "obscured AGN": "#D55E00",
                     "HMXB pulsar": "#009E73", "fast X-ray transient": "#CC79A7"}.items():
    own = catalogue.table["class"] == name
    ax.scatter(*place[own].T, s=6, color=colour, label=name)
ax.scatter(*place[rows].T, s=40, facecolor="none", edgecolor="k", lw=0.8,
           label="20 best answers to the sentence")
ax.set(xlabel="first principal component", ylabel="second principal component", title=f"“{sentence}”")
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
