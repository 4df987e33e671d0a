"""Evaluators that run a model: here a tiny one, trained for a few steps only."""

import numpy as np
import pytest

import stingray_align as sa
from stingray_align.datasets import simulate_photons, simulate_population


@pytest.fixture(scope="module")
def model():
    tiny = sa.PoissonAutodecoder(n_latent=4, n_hidden=16, n_rank=2, n_steps=3,
                                 n_posterior_steps=2, batch_size=16)
    return tiny.fit(simulate_photons(64, seed=1, counts=(20, 200)), progress=False)


def test_coverage_of_an_autodecoder(model):
    """The mean rate's Gamma posterior covers as it says, whatever the latent has learned."""
    population = simulate_population(80, seed=3, counts=(10, 150), summaries=0)
    results = sa.evaluate.autodecoder_calibration(population, model, n_times=2, n_draws=100,
                                                  progress=False)
    assert set(results) == {"log mean rate", "rate at random times", "hardness ratio"}
    for level, estimate in results["log mean rate"].coverage.items():
        assert abs(estimate.value - level) < 4 * np.sqrt(level * (1 - level) / 80)
    assert (results["rate at random times"].known == 2).all()
    assert results["hardness ratio"].coverage[0.68].value < 0.6  # nothing was learned in 3 steps
    shapes = set(results["log mean rate"].to_table("label")["kind"])
    assert shapes == {*np.unique(population.truth["time_shape"]).tolist(), "all"}


def test_cost_is_measured(model):
    result = sa.evaluate.cost(model, n_sources=20, n_single=3, n_training_steps=3)
    assert set(result.milliseconds) == {"embed in a batch", "embed one", "one with its posterior",
                                        "read the M82 file", "embed the M82 file"}
    assert all((times > 0).all() for times in result.milliseconds.values())
    assert result.primary < np.median(result.milliseconds["embed one"])
    assert result.peak_memory > 50 and set(result.training) == {"10^4 sources", "10^5 photons"}
    assert "MiB" in str(result) and "Training:" in str(result)


def test_the_autodecoder_is_evaluated_as_it_is(model):
    population = simulate_population(20, seed=4, counts=(20, 300), summaries=0)
    result = sa.evaluate.reconstruction({"autodecoder": model}, population, progress=False)
    assert result.names == ("autodecoder",) and len(result.rivals) == 2
    assert np.isfinite(result.gain["autodecoder"]).all()
    assert result.fraction("truth in 512 bins").value > 0.8
