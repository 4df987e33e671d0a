"""Classification of the time behaviour, and the feature sets it compares, on planted truths."""

import numpy as np
import pytest

from stingray_align import evaluate


def planted(n=400, seed=0):
    """Three kinds; the first feature tells all, the second nothing."""
    rng = np.random.default_rng(seed)
    kinds = np.array(["constant", "flares", "dips"])[rng.choice(3, n, p=[0.6, 0.3, 0.1])]
    place = {"constant": 0.0, "flares": 5.0, "dips": 10.0}
    told = np.array([place[kind] for kind in kinds]) + 0.3 * rng.normal(size=n)
    return {"told": told, "blind": rng.normal(size=(n, 2))}, kinds, rng.integers(1, 1000, n)


@pytest.fixture(scope="module")
def result():
    features, kinds, counts = planted()
    return evaluate.time_shape(features, kinds, counts, classifiers=["logistic"], n_resamples=50,
                               progress=False)


def test_what_tells_is_chosen_and_what_does_not_is_no_better_than_the_largest_class(result):
    scores, share = result.scores, np.mean(result.shapes == "constant")
    assert scores["told", "logistic"]["accuracy"].value > 0.97
    assert result.primary == scores["told", "logistic"]["accuracy"]
    assert scores["none", "largest class"]["accuracy"].value == share
    assert scores["none", "largest class"]["balanced accuracy"].value == pytest.approx(1 / 3)
    assert abs(scores["blind", "logistic"]["accuracy"].value - share) < 0.05


def test_scores_are_those_of_the_confusion(result):
    for selection in ("", " > 300 ct"):
        table = result.confusion(("blind", "logistic"), selection)
        cells = np.array([list(row)[1:] for row in table])
        score = result.scores["blind", "logistic"]
        assert cells.sum() == result.selections[selection].sum()
        assert score[f"accuracy{selection}"].value == pytest.approx(np.trace(cells) / cells.sum())
        assert score[f"balanced accuracy{selection}"].value == pytest.approx(
            (np.diag(cells) / cells.sum(axis=1)).mean())
    assert len(result.selections[""]) == 400 > result.selections[" > 300 ct"].sum()


def test_boosting_tells_what_no_line_can():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (300, 2))
    kinds = np.where(x[:, 0] * x[:, 1] > 0, "flares", "dips")
    scores = evaluate.time_shape({"x": x}, kinds, n_splits=3, n_resamples=20,
                                 progress=False).scores
    assert scores["x", "boosting"]["accuracy"].value > 0.85
    assert scores["x", "logistic"]["accuracy"].value < 0.7
    assert set(scores["x", "boosting"]) == {"accuracy", "balanced accuracy"}


def test_no_source_is_on_both_sides():
    """Twin rows are told by their number alone, unless folds are by source."""
    rng = np.random.default_rng(2)
    x = np.repeat(np.eye(60), 4, axis=0)
    kinds = np.repeat(rng.choice(["flares", "dips"], 60), 4)
    options = {"classifiers": ["logistic"], "n_resamples": 20, "progress": False}
    leaky = evaluate.time_shape({"x": x}, kinds, **options)
    honest = evaluate.time_shape({"x": x}, kinds, groups=np.repeat(np.arange(60), 4), **options)
    assert leaky.primary.value > 0.95 and honest.primary.value < 0.7


def test_the_table_prints_errors_and_the_largest_class(result):
    table = result.to_table()
    assert list(table["features"]) == ["told", "blind", "best", "none"]
    assert {"accuracy error", "balanced accuracy > 300 ct"} <= set(table.colnames)
    assert "one of 3 kinds" in str(result) and "largest class" in str(result)


@pytest.mark.parametrize("change, message", [
    ({"classifiers": ["oracle"]}, "oracle"), ({"counts": np.arange(3)}, "counts has shape"),
    ({"features": {"x": np.zeros(3)}}, "different numbers of rows"),
    ({"features": {"x": np.full(400, np.nan)}}, "finite")])
def test_time_shape_says_what_is_wrong(change, message):
    features, kinds, counts = planted()
    given = {"features": features, "shapes": kinds, "counts": counts, "progress": False} | change
    with pytest.raises(ValueError, match=message):
        evaluate.time_shape(**given)


def test_bright_sources_have_their_own_r2():
    rng = np.random.default_rng(3)
    counts = np.repeat([10, 1000], 200)
    x = rng.normal(size=400)
    y = x + rng.normal(size=400) * np.where(counts > 300, 0.1, 2.0)
    result = evaluate.regression({"x": x}, {"y": y}, counts=counts, experts=["ridge"],
                                 n_resamples=50, progress=False)
    score = result.scores["y"]["x", "ridge"]
    assert score["R2 > 300 ct"].value > 0.9 > 0.5 > score["R2"].value
    assert {"R2 > 300 ct low", "R2 > 300 ct high"} <= set(result.to_table().colnames)
    few = evaluate.regression({"x": x}, {"y": y}, counts=counts, bright=10**6, experts=["ridge"],
                              n_resamples=50, progress=False)
    assert np.isnan(few.scores["y"]["x", "ridge"]["R2 > 1000000 ct"].value)


def test_feature_sets_take_what_a_catalogue_lists_and_no_estimates():
    names = ["log_counts", "log_rate", "counts_hardness_hard_soft", "excess_variance_8",
             "log_probability_flares", "decoded_rms", "latent_0", "latent_1"]
    sets = evaluate.feature_sets(np.arange(16.0).reshape(2, 8), names)
    assert sets["catalogue features"][0].tolist() == [0, 1, 2, 3]
    assert sets["latent"][0].tolist() == [6, 7] and sets["embedding"].shape == (2, 8)
    assert sets["descriptors"][0].tolist() == [4]
    with pytest.raises(ValueError, match="do not fit"):
        evaluate.feature_sets(np.zeros((2, 3)), names)
