"""Read-outs through several instruments: arithmetic on known numbers, then the real thing."""

import numpy as np
import pytest

from stingray_align import evaluate
from stingray_align.datasets import simulate_population, simulate_through
from stingray_align.evaluate import InstrumentsResult


def known_differences(n=400, n_columns=1, bias=0.5, scatter=0.3, seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.normal(3.0, 2.0, (n, n_columns))
    other = reference + 2.0 * (bias + scatter * rng.standard_normal((n, n_columns)))
    return InstrumentsResult(values={"what": {"A": reference, "B": other}}, truth={},
                             equal_photons=True, seed=0, n_resamples=200)


@pytest.mark.parametrize("n_columns", [1, 30])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_bias_and_scatter_are_those_put_in(n_columns, bias):
    found, scatter = known_differences(n_columns=n_columns, bias=bias).difference("what", "B")
    assert scatter.value == pytest.approx(0.3, rel=0.15)
    assert abs(found.value - bias) < max(4 * found.error, 0.02)
    if n_columns == 1:
        assert found.error == pytest.approx(0.3 / np.sqrt(400), rel=0.3)


def test_sources_without_a_value_and_entries_without_spread_are_left_out():
    result = known_differences(n_columns=2)
    reference, other = result.values["what"].values()
    reference[:100], other[:100, 1] = np.nan, np.nan
    reference[100:, 0], other[100:, 0] = 1.0, 7.0
    bias, scatter = result.difference("what", "B")
    assert bias.value == pytest.approx(0.5, abs=0.08)
    assert result.to_table()["sources"][0] == 300


def test_errors_of_what_is_regressed_are_those_against_the_truth():
    truth = np.append(np.random.default_rng(1).normal(size=500), np.nan)
    predicted = {"A": truth[:, None] + 0.0, "B": truth[:, None] - 0.25}
    result = InstrumentsResult(values={"x (regressed)": predicted}, truth={"x": truth},
                               equal_photons=False, seed=0, n_resamples=50)
    table = result.to_table("target")
    np.testing.assert_allclose(table["bias"], [0.0, -0.25])
    np.testing.assert_allclose(table["MAE"], [0.0, 0.25])
    assert table["R2"][0] == 1.0 and table["sources"][0] == 500
    assert result.difference("x (regressed)", "B")[0].value == pytest.approx(
        -0.25 / truth[:-1].std())


@pytest.fixture(scope="module")
def seen():
    return simulate_through(40, 5, ["ACIS-S", "ACIS-S", "NICER"], counts=(100, 300))


def test_the_same_sources_through_the_bundled_model(seen):
    training = simulate_population(150, 6, counts=(100, 300), instruments="ACIS-S", summaries=0)
    result = evaluate.instruments(seen, readouts=("latent_*", "log_duration", "log_counts"),
                                  training=training, targets=("log n_h",), n_resamples=50)
    assert result.instruments == ("ACIS-S", "ACIS-S again", "NICER")
    # The window is the same, and so is the number of photons, up to the thinning.
    assert result.difference("log_duration", "NICER")[1].value == pytest.approx(0.0, abs=1e-5)
    assert abs(result.difference("log_counts", "NICER")[0].value) < 0.3
    again, other = (result.difference("latent_*", name)[1].value
                    for name in ("ACIS-S again", "NICER"))
    assert 0 < again < other
    assert list(result.values) == ["latent_*", "log_duration", "log_counts",
                                   "log n_h (regressed)"]
    assert len(result.tables()) == 2 and len(result.to_table("target")) == 3
    assert "40 sources" in str(result) and "as many photons" in str(result)
    assert result.primary.value != 0


def test_photons_as_counted_differ_in_number(seen):
    result = evaluate.instruments(seen, readouts=["log_counts"], equal_photons=False,
                                  n_resamples=20)
    more = np.log10(np.mean(seen["NICER"].photons.n_photons)
                    / np.mean(seen["ACIS-S"].photons.n_photons))
    values = result.values["log_counts"]
    assert (values["NICER"] - values["ACIS-S"]).mean() == pytest.approx(more, abs=0.4)
    assert result.primary.value > 1 and len(result.tables()) == 1


def test_wrong_input_is_refused(seen):
    with pytest.raises(ValueError, match="at least two"):
        evaluate.instruments({"ACIS-S": seen["ACIS-S"]})
    with pytest.raises(ValueError, match="simulate_through"):
        evaluate.instruments(seen | {"XRT": simulate_population(40, 1, counts=(5, 9))})
    with pytest.raises(ValueError, match="No feature is called 'colour'"):
        evaluate.instruments(seen, readouts=["colour"])
