"""Bootstrap errors against known ones; printing and writing."""

import numpy as np
import pytest

from stingray_align import evaluate
from stingray_align.evaluate._report import Report, figures


def test_public_names_are_there_and_are_functions():
    """A module named like its function would hide the function once imported."""
    import stingray_align.evaluate._retrieval  # noqa: F401

    for name in evaluate.__all__:
        assert getattr(evaluate, name) is not None
    for name in ("reconstruction", "calibration", "retrieval", "regression", "classification",
                 "novelty"):
        assert callable(getattr(evaluate, name))
    assert set(evaluate.__all__) <= set(dir(evaluate))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        evaluate.nothing


def test_bootstrap_error_of_a_mean():
    x = np.random.default_rng(0).normal(size=1000)
    estimate = evaluate.bootstrap(lambda rows: x[rows].mean(), 1000, n_resamples=2000)
    assert estimate.value == x.mean()
    assert estimate.error == pytest.approx(x.std() / np.sqrt(1000), rel=0.06)
    assert estimate.upper - estimate.lower == pytest.approx(2 * 1.96 * estimate.error, rel=0.08)


def test_repeated_observations_do_not_shrink_the_error():
    x = np.random.default_rng(0).normal(size=200)
    alone = evaluate.bootstrap(lambda rows: x[rows].mean(), 200, n_resamples=1000)
    many = np.repeat(x, 25)
    grouped = evaluate.bootstrap(lambda rows: many[rows].mean(), 5000,
                                 groups=np.repeat(np.arange(200), 25), n_resamples=1000)
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.error == pytest.approx(alone.error, rel=0.1)


def test_undefined_resamples_are_left_out():
    x = np.array([1.0, 2.0, np.nan])
    estimate = evaluate.bootstrap(lambda rows: x[rows].mean() if 2 not in rows else np.nan, 3)
    assert np.isnan(estimate.value) and np.isfinite(estimate.error)


@pytest.mark.parametrize("n, groups, message", [(0, None, "no rows"), (3, [1, 2], "groups")])
def test_bootstrap_says_what_is_wrong(n, groups, message):
    with pytest.raises(ValueError, match=message):
        evaluate.bootstrap(np.mean, n, groups=groups)


class Coin(Report):
    title, notes = "A coin", ("Fair.",)

    def __init__(self, heads):
        self.heads = heads

    def to_table(self):
        return figures([("heads", self.heads)], ["side", "share"])


def test_printing_and_comparing():
    assert str(Coin(0.5)).splitlines()[0] == "A coin"
    assert "0.500" in str(Coin(0.5)) and str(Coin(0.5)).endswith("Fair.")
    both = evaluate.Comparison("Two coins", {"one": Coin(0.5), "two": Coin(0.25)})
    assert list(both) == ["one", "two"] and len(both) == 2 and both["two"].heads == 0.25
    table = both.to_table()
    assert list(table["what"]) == ["one", "two"] and list(table["share"]) == [0.5, 0.25]
    assert "0.250" in str(both)
