"""The Poisson-process autodecoder: photons to latent, latent to photon rate.

A source with latent :math:`z` emits an inhomogeneous Poisson process of rate
:math:`\\lambda(t, E; z)` over the exposed time, with log-likelihood

.. math::

   \\log L = \\sum_k \\log\\lambda(t_k, E_k; z)
             - \\int_\\mathrm{GTI}\\int \\lambda(t, E; z)\\,dE\\,dt

(Song et al. 2025, arXiv:2502.01627). The total is kept outside the latent: given the number of
photons, the shape :math:`p(t, E; z)` has a multinomial likelihood, so brightness and shape do not
compete for the latent's entries.
"""

from importlib import import_module

_HOME = {"PoissonAutodecoder": "model", "Embedding": "embedding", "EditedEmbedding": "editing",
         "embed": "embedding",
         "draw_vectors": "embedding", "embed_vectors": "embedding", "train": "training"}

__all__ = list(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__))
