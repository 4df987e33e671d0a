"""Calibration, retrieval, regression, classification and novelty on planted truths."""

import numpy as np
import pytest

from stingray_align import evaluate

# -- calibration ----------------------------------------------------------------------------------


def intervals(n, *, factor=1.0, m=None, seed=0):
    shape = (n,) if m is None else (n, m)
    measured = np.random.default_rng(seed).normal(size=shape)
    half = factor * np.array([0.99446, 1.95996]).reshape(2, *[1] * len(shape))
    return np.zeros(shape), measured - half, measured + half


def test_exact_gaussian_intervals_cover_as_they_say():
    truth, lower, upper = intervals(4000)
    result = evaluate.calibration(truth, lower, upper, np.arange(4000), what="mean")
    for level, estimate in result.coverage.items():
        exact = np.sqrt(level * (1 - level) / 4000)
        assert abs(estimate.value - level) < 4 * exact
        assert estimate.error == pytest.approx(exact, rel=0.15)
    table = result.to_table()
    assert len(table) == 11 and list(table["sources"][:10]) == [400] * 10
    assert "Coverage of mean" in str(result)


def test_overconfidence_at_the_faint_end_shows_in_its_decile():
    factor = np.where(np.arange(4000) < 400, 0.4, 1.0)
    truth, lower, upper = intervals(4000, factor=factor)
    table = evaluate.calibration(truth, lower, upper, np.arange(4000)).to_table()
    assert table["68%"][0] < 0.4 and table["68%"][1:].min() > 0.6


def test_chi_squared_tells_chance_from_wrong_intervals():
    exact = [evaluate.calibration(*intervals(1000, m=2, seed=seed), np.arange(1000),
                                  n_resamples=2).chi_squared() for seed in range(200)]
    for level in (0.68, 0.95):
        values = np.array([one[level] for one in exact])
        assert (values[:, 1] == 10).all()
        assert abs(values[:, 0].mean() - 10) < 4 * np.sqrt(20 / 200)
        assert 0.4 < (values[:, 2] < 0.5).mean() < 0.6
    wrong = evaluate.calibration(*intervals(1000, factor=np.where(np.arange(1000) < 100, 0.5, 1.0)),
                                 np.arange(1000), labels=np.repeat(["faint", "others"], [100, 900]))
    assert wrong.chi_squared()[0.68][2] < 1e-3
    (value, n, p) = wrong.chi_squared("label")[0.95]
    assert n == 2 and p < 1e-6
    assert f"{wrong.chi_squared()[0.95][0]:.1f} for 10 groups" in str(wrong)


def test_equal_answers_about_one_source_are_one_trial_of_chi_squared():
    truth, lower, upper = intervals(500)
    three = (np.repeat(x[..., None], 3, x.ndim) for x in (truth, lower, upper))
    for level, value in evaluate.calibration(*three, np.arange(500)).chi_squared().items():
        assert value == pytest.approx(
            evaluate.calibration(truth, lower, upper, np.arange(500)).chi_squared()[level])


def test_several_truths_per_source_are_one_trial_for_the_error():
    """Ten equal answers about one source carry no more than one."""
    truth, lower, upper = intervals(500)
    one = evaluate.calibration(truth, lower, upper, np.arange(500))
    ten = evaluate.calibration(np.repeat(truth[:, None], 10, 1), np.repeat(lower[..., None], 10, 2),
                               np.repeat(upper[..., None], 10, 2), np.arange(500))
    assert ten.primary == one.primary


def test_unknown_truths_are_left_out_and_labels_told_apart():
    truth, lower, upper = intervals(100, m=3)
    truth[:10] = np.nan
    upper[:, 90:] = lower[:, 90:]  # never holds
    labels = np.repeat(["a", "b"], [90, 10])
    result = evaluate.calibration(truth, lower, upper, np.arange(100), labels=labels)
    table = result.to_table("label")
    assert list(table["kind"]) == ["a", "b", "all"]
    assert list(table["sources"]) == [80, 10, 90]
    assert table["68%"][1] == 0
    assert len(result.tables()) == 2


@pytest.mark.parametrize("change, message", [
    ({"truth": np.zeros(3)}, "truth has shape"), ({"lower": np.zeros((1, 9))}, "lower has shape"),
    ({"upper": np.full((2, 9), np.nan)}, "nan"), ({"labels": ["a"]}, "labels has shape"),
    ({"upper": np.full((2, 9), -2.0)}, "lower end above")])
def test_calibration_says_what_is_wrong(change, message):
    given = {"truth": np.zeros(9), "lower": -np.ones((2, 9)), "upper": np.ones((2, 9)),
             "counts": np.arange(9), "labels": None} | change
    with pytest.raises(ValueError, match=message):
        evaluate.calibration(**given)
    plain = evaluate.calibration(np.zeros(9), -np.ones((2, 9)), np.ones((2, 9)), np.arange(9))
    with pytest.raises(ValueError, match="No labels"):
        plain.to_table("label")
    with pytest.raises(ValueError, match='"counts" or "label"'):
        plain.to_table("labels")


PROBABILITIES = np.linspace(0.01, 0.99, 50)


def test_crps_of_a_gaussian_is_the_closed_form():
    from scipy.stats import norm

    z = np.linspace(-2, 2, 9)
    exact = z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)
    fine = np.linspace(0.001, 0.999, 999)
    np.testing.assert_allclose(evaluate.crps(z, np.tile(norm.ppf(fine), (9, 1)), fine), exact,
                               rtol=2e-3)
    coarse = evaluate.crps(z, np.tile(norm.ppf(PROBABILITIES), (9, 1)), PROBABILITIES)
    np.testing.assert_allclose(coarse, exact, rtol=0.03)


def test_crps_of_draws_is_mean_distance_minus_half_the_spread():
    draws = np.sort(np.random.default_rng(0).gamma(2, size=2000))
    levels = (np.arange(2000) + 0.5) / 2000
    spread = np.abs(draws[:, None] - draws).mean()
    for truth in (0.1, 2.0, 9.0):
        expected = np.abs(draws - truth).mean() - spread / 2
        assert evaluate.crps(truth, draws, levels) == pytest.approx(expected, rel=3e-3)


def test_interval_score_counts_width_and_distance():
    lower, upper = np.array([[2.0], [0.0]]), np.array([[4.0], [10.0]])
    result = evaluate.calibration([5.0], lower, upper, [1], levels=(0.5, 0.9))
    # (0.25 * 2 + 1 beyond the end) and (0.05 * 10)
    assert result.score["ours"][0] == pytest.approx((1.5 + 0.5) / 2)
    assert result.score_name == "interval score" and result.width["ours"][0] == 2


def test_quantiles_and_intervals_of_them_cover_alike():
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    sd = rng.uniform(0.5, 2, (400, 3))
    measured = sd * rng.normal(size=(400, 3))
    quantiles = measured[..., None] + sd[..., None] * norm.ppf(PROBABILITIES)
    by_quantiles = evaluate.quantile_calibration(
        np.zeros((400, 3)), quantiles, PROBABILITIES, np.arange(400), levels=(0.68, 0.9))
    ends = [np.stack([np.apply_along_axis(lambda q, p=p: np.interp(p, PROBABILITIES, q), 2,
                                          quantiles) for p in at])
            for at in ((0.16, 0.05), (0.84, 0.95))]
    by_ends = evaluate.calibration(np.zeros((400, 3)), *ends, np.arange(400), levels=(0.68, 0.9))
    np.testing.assert_allclose(by_quantiles.held["ours"], by_ends.held["ours"])
    np.testing.assert_allclose(by_quantiles.width["ours"], by_ends.width["ours"])


def test_an_exact_posterior_with_an_atom_covers_as_it_says():
    """Zero with probability w, else exponential: closed intervals would hold too much."""
    rng = np.random.default_rng(2)
    weight = rng.uniform(0, 1, 6000)
    truth = np.where(rng.random(6000) < weight, 0, rng.exponential(size=6000))
    above = np.clip((PROBABILITIES - weight[:, None]) / (1 - weight[:, None]), 0, None)
    quantiles = -np.log1p(-above)
    result = evaluate.quantile_calibration(truth, quantiles, PROBABILITIES, np.arange(6000))
    for level, estimate in result.coverage.items():
        assert abs(estimate.value - level) < max(4 * estimate.error, 0.01)


def test_sharpness_is_measured_against_rivals():
    from scipy.stats import norm

    measured = np.random.default_rng(1).normal(size=2000)
    own = measured[:, None] + norm.ppf(PROBABILITIES)
    wide = measured[:, None] + 3 * norm.ppf(PROBABILITIES)
    result = evaluate.quantile_calibration(np.zeros(2000), own, PROBABILITIES, np.arange(2000),
                                           rivals={"wide": wide}, labels=np.repeat("a", 2000))
    ratio = result.score_ratio("wide")
    assert ratio.value + 5 * ratio.error < 1
    assert result.width_ratio("wide").value == pytest.approx(1 / 3)
    assert result.coverage_of("wide")[0.68].value > 0.99
    table = result.to_table()
    assert {"CRPS", "wide 68%", "CRPS / wide", "width / wide"} <= set(table.colnames)
    assert "CRPS / wide" in str(result) and "±" in str(result)


@pytest.mark.parametrize("change, message", [
    ({"quantiles": np.zeros((9, 3))}, "shape"), ({"quantiles": np.full((9, 2), np.nan)}, "nan"),
    ({"quantiles": np.tile([1.0, 0.0], (9, 1))}, "fall"), ({"probabilities": [0.5, 0.4]}, "rise"),
    ({"probabilities": [0.0, 0.4]}, "rise")])
def test_quantile_calibration_says_what_is_wrong(change, message):
    given = {"truth": np.zeros(9), "quantiles": np.zeros((9, 2)), "probabilities": [0.2, 0.8],
             "counts": np.arange(9)} | change
    with pytest.raises(ValueError, match=message):
        evaluate.quantile_calibration(**given)


# -- retrieval ------------------------------------------------------------------------------------


def test_planted_ranks_are_found():
    """Text j at angle j; event i points at text i + shift, so its own comes at a known rank."""
    n, shift = 40, 3
    angle = 2 * np.pi * np.arange(n) / n
    texts = np.column_stack([np.cos(angle), np.sin(angle)])
    tilt = angle + shift * 2 * np.pi / n + 1e-3  # a little on, so that no two are equally far
    events = np.column_stack([np.cos(tilt), np.sin(tilt)])
    result = evaluate.retrieval(events, texts)
    # nearer: the shift - 1 texts between and the pointed one, and as many beyond it
    assert (result.ranks["events to texts"] == 2 * shift + 1).all()
    assert result.estimates["events to texts"]["mean reciprocal rank"].value == 1 / 7
    assert result.estimates["events to texts"]["median rank / N"].value == 7 / 40
    assert result.primary.value == 0


def test_rank_is_the_same_as_by_sorting():
    rng = np.random.default_rng(0)
    events, texts = rng.normal(size=(2, 1100, 5))  # more rows than one block
    events += texts
    result = evaluate.retrieval(events, texts)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (events, texts)]
    similarity = unit[0] @ unit[1].T
    for direction, s in (("events to texts", similarity), ("texts to events", similarity.T)):
        order = np.argsort(-s, axis=1)
        expected = 1 + np.argmax(order == np.arange(1100)[:, None], axis=1)
        np.testing.assert_array_equal(result.ranks[direction], expected)


def test_unrelated_vectors_score_as_chance():
    rng = np.random.default_rng(1)
    result = evaluate.retrieval(rng.normal(size=(1500, 8)), rng.normal(size=(1500, 8)),
                                labels=rng.integers(10, size=1500))
    for figures in result.estimates.values():
        for name, estimate in figures.items():
            assert abs(estimate.value - result.chance[name]) < 4.5 * estimate.error, name


def test_a_collapsed_space_scores_as_chance_and_not_as_perfect():
    same = np.ones((200, 4))
    result = evaluate.retrieval(same, same, labels=np.zeros(200))
    figures = result.estimates["events to texts"]
    assert figures["Recall@1 %"].value == 0
    assert figures["median rank / N"].value == pytest.approx(result.chance["median rank / N"])
    assert figures["median rank in class"].value == 0.5


def test_a_class_score_is_told_from_a_finer_match():
    labels = np.repeat(np.arange(20), 25)
    centres = np.eye(20)[labels]
    by_class = evaluate.retrieval(centres, centres, labels=labels)
    figures = by_class.estimates["events to texts"]
    assert figures["Recall@5 %"].value == 1
    assert figures["median rank in class"].value == 0.5
    own = np.hstack([centres, 0.1 * np.random.default_rng(0).normal(size=(500, 30))])
    finer = evaluate.retrieval(own, own, labels=labels)
    assert finer.estimates["events to texts"]["median rank in class"].value == 0.5 / 25


def test_other_observations_of_a_source_are_no_competitors():
    vectors = np.repeat(np.eye(50), 4, axis=0)
    groups = np.repeat(np.arange(50), 4)
    result = evaluate.retrieval(vectors, vectors, groups=groups)
    assert (result.ranks["texts to events"] == 1).all()
    assert (result.candidates == 197).all()
    blind = evaluate.retrieval(vectors, vectors)
    assert (blind.ranks["texts to events"] == 2.5).all()


def test_retrieval_prints_chance_beside():
    table = evaluate.retrieval(np.eye(100), np.eye(100)).to_table()
    assert list(table["figure"]) == ["Recall@1 %", "Recall@5 %", "Recall@10 %",
                                     "median rank / N", "mean reciprocal rank"]
    np.testing.assert_allclose(table["chance"][:3], [0.01, 0.05, 0.1])
    assert table["lift"][0] == pytest.approx(100)


@pytest.mark.parametrize("events, texts, options, message", [
    (np.eye(3), np.eye(4), {}, "pairs in one space"),
    (np.ones(3), np.ones(3), {}, "event_vectors has shape"),
    (np.eye(3), np.eye(3) * np.nan, {}, "not finite"),
    (np.eye(3), np.eye(3), {"labels": [1]}, "labels has shape"),
    (np.eye(3), np.eye(3), {"groups": [1]}, "groups has shape")])
def test_retrieval_says_what_is_wrong(events, texts, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate.retrieval(events, texts, **options)


def test_linear_baselines_find_a_linear_relation_and_shuffling_kills_it():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(1200, 6))
    events = truth @ rng.normal(size=(6, 20)) + 0.1 * rng.normal(size=(1200, 20))
    texts = truth @ rng.normal(size=(6, 15)) + 0.1 * rng.normal(size=(1200, 15)) + 5
    results = evaluate.retrieval_baselines(events[:800], texts[:800], events[800:], texts[800:])
    assert list(results) == ["ridge", "CCA", "shuffled pairs"]
    recall = {name: result.estimates["events to texts"]["Recall@5 %"]
              for name, result in results.items()}
    assert recall["ridge"].value > 0.9 and recall["CCA"].value > 0.9
    assert abs(recall["shuffled pairs"].value - 0.05) < 4 * recall["shuffled pairs"].error
    assert set(results.to_table()["method"]) == {*results, "chance"}


def noisy_pairs(noise, seed=0, n=600):
    """Texts stand for themselves, events are the same with noise of its own for each row."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(n, 12))
    return texts + np.asarray(noise).reshape(-1, 1) * rng.normal(size=(n, 12)), texts


def test_recall_by_counts_and_class_is_that_of_the_part():
    noise = np.where(np.arange(600) < 300, 0.1, 20.0)
    labels = np.array(["bright", "faint"])[(noise > 1).astype(int)]
    counts = np.where(noise > 1, 10, 1000) + np.arange(600) % 7
    result = evaluate.retrieval(*noisy_pairs(noise), labels=labels, counts=counts)
    table = result.by_counts(2)
    assert list(table["photons"]) == ["10 to 16", "1000 to 1006"]
    assert table["n"].tolist() == [300, 300]
    assert table["events to texts"][1] == 1 and table["events to texts"][0] < 0.3
    assert table["rank in class"][1] < 0.01 < 0.2 < table["rank in class"][0]
    by_class = result.by_class()
    assert list(by_class["class"]) == ["bright", "faint"]
    np.testing.assert_array_equal(by_class["texts to events"], table["texts to events"][::-1])
    assert by_class["events to texts"].mean() == pytest.approx(result.hits()[0].mean())
    plain = evaluate.retrieval(*noisy_pairs(noise))
    with pytest.raises(ValueError, match="counts"):
        plain.by_counts()
    with pytest.raises(ValueError, match="labels"):
        plain.by_class()


def test_share_of_the_ceiling_and_lead_use_the_same_sources():
    good, best, chance = (evaluate.retrieval(*noisy_pairs(noise)) for noise in (1.5, 0.7, 1e9))
    share = evaluate.fraction_of_ceiling(good, best)
    recall = [r.hits().mean() for r in (good, best)]
    assert share.value == pytest.approx((recall[0] - 0.05) / (recall[1] - 0.05))
    assert evaluate.fraction_of_ceiling(best, best) == (1, 0, 1, 1)
    assert abs(evaluate.fraction_of_ceiling(chance, best).value) < 0.05
    one_way = evaluate.fraction_of_ceiling(good, best, direction="texts to events", percent=10)
    hits = [r.hits(10)[1].mean() for r in (good, best)]
    assert one_way.value == pytest.approx((hits[0] - 0.1) / (hits[1] - 0.1))
    lead = evaluate.lead_over(best, good)
    assert lead.value == pytest.approx(recall[1] - recall[0]) and lead.value > 5 * lead.error
    separate = np.hypot(*(r.estimates["events to texts"]["Recall@5 %"].error
                          for r in (good, best)))
    assert 0 < lead.error < separate
    assert evaluate.lead_over(good, good)[:2] == (0, 0)
    with pytest.raises(ValueError, match="same pairs"):
        evaluate.lead_over(good, evaluate.retrieval(*noisy_pairs(1.0, n=500)))


def test_a_retrieval_report_puts_methods_beside_the_ceiling():
    labels = np.arange(600) % 5
    methods = {name: evaluate.retrieval(*noisy_pairs(noise), labels=labels,
                                        counts=np.arange(600))
               for name, noise in (("ours", 1.0), ("features", 3.0), ("truth", 0.5))}
    comparison = evaluate.RetrievalComparison("familiar", methods)
    rows = comparison.to_table()
    assert list(rows["method"][::2]) == ["ours", "features", "truth", "chance"]
    assert rows["Recall@5 %"][0] == pytest.approx(methods["ours"].hits()[0].mean())
    assert rows["Recall@5 %"][-1] == pytest.approx(0.05)
    report = evaluate.RetrievalReport("test", {"familiar": comparison}, ceiling="truth",
                                      beside="features")
    table = {row["method"]: row for row in report.to_table()}
    share = evaluate.fraction_of_ceiling(methods["ours"], methods["truth"])
    row = table["share of the ceiling"]
    assert (row["familiar"], row["familiar error"]) == share[:2]
    assert table["features"]["familiar"] == methods["features"].hits().mean()
    ahead = evaluate.lead_over(methods["ours"], methods["features"])
    assert table["lead in sigma"]["familiar"] == ahead.value / ahead.error > 3
    report = evaluate.RetrievalReport("test", {"familiar": comparison}, ceiling="truth",
                                      beside="ours", equal="features")
    table = {row["method"]: row["familiar"] for row in report.to_table()}
    assert table["share of the ceiling"] == share.value > table["share, features"]
    assert table["lead over ours"] == -ahead.value
    printed = str(report)
    for words in ("Recall@1 %", "ours by photon counts: familiar", "ours by class", "MRR", "±"):
        assert words in printed
    assert max(map(len, printed.splitlines())) < 140


def test_truth_vectors_hold_what_is_known_and_mask_the_rest():
    from stingray_align.datasets import simulate_population

    truth = simulate_population(60, seed=2, summaries=0).truth
    vectors = evaluate.truth_vectors(truth)
    assert np.isfinite(vectors).all() and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[:, :41].sum(axis=1), 2)  # one class, one time shape
    np.testing.assert_array_equal(evaluate.truth_vectors(truth, with_class=False), vectors[:, 28:])
    values, known = vectors[:, 41::2], vectors[:, 42::2]
    periods = np.asarray(truth["period"].value)
    np.testing.assert_array_equal(known[:, 5] == 1, np.isfinite(periods))
    assert (values[known == 0] == 0).all() and values.min() >= -4
    some = np.isfinite(periods)
    np.testing.assert_allclose(values[some, 5], (np.log10(periods[some]) - 3) / 1.5, atol=1e-5)


# -- regression -----------------------------------------------------------------------------------


def test_r2_is_the_share_of_variance_that_features_explain():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 600))
    result = evaluate.regression({"good": x, "useless": rng.normal(size=(600, 3))},
                                 {"y": 2 * x + noise}, experts=("k-NN (3)", "ridge"),
                                 progress=False)
    scores = result.scores["y"]
    ridge = scores["good", "ridge"]
    assert abs(ridge["R2"].value - 0.8) < 4 * ridge["R2"].error
    assert ridge["MAE"].value == pytest.approx(np.sqrt(2 / np.pi), rel=0.1)
    assert ridge["R2"].value > scores["good", "k-NN (3)"]["R2"].value
    assert abs(scores["useless", "ridge"]["R2"].value) < 0.05
    assert abs(scores["none", "mean"]["R2"].value) < 0.02
    assert scores["best", "nested choice"]["R2"].value == ridge["R2"].value
    assert result.primary == ridge["R2"]
    assert len(result.to_table()) == 2 * 2 + 2 + 2  # a choice for each set, and of both


def test_boosting_learns_what_a_line_cannot():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (500, 2))
    scores = evaluate.regression({"x": x}, {"y": np.abs(x[:, 0])}, experts=("ridge", "boosting"),
                                 progress=False).scores["y"]
    assert scores["x", "boosting"]["R2"].value > 0.9
    assert scores["x", "ridge"]["R2"].value < 0.1


def test_no_source_is_on_both_sides():
    """Twin rows give a nearest neighbour the answer away, unless folds are by source."""
    rng = np.random.default_rng(0)
    x, y = np.repeat(rng.normal(size=(100, 5)), 3, axis=0), np.repeat(rng.normal(size=100), 3)
    options = {"experts": ("k-NN (3)",), "progress": False}
    leaky = evaluate.regression({"x": x}, {"y": y}, **options)
    honest = evaluate.regression({"x": x}, {"y": y}, groups=np.repeat(np.arange(100), 3),
                                 **options)
    assert leaky.scores["y"]["x", "k-NN (3)"]["R2"].value > 0.5
    assert honest.scores["y"]["x", "k-NN (3)"]["R2"].value < 0


def test_unknown_targets_are_left_out():
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    y = np.where(np.arange(100) < 60, x, np.nan)
    result = evaluate.regression({"x": x}, {"y": y}, experts=("ridge",), progress=False)
    assert len(result.predicted["y"]["x", "ridge"]) == 60
    assert list(result.to_table()["rows"]) == [60] * 4
    assert result.scores["y"]["x", "ridge"]["R2"].value > 0.99


@pytest.mark.parametrize("features, options, message", [
    (np.zeros(9), {}, "different numbers of rows"), (np.full(10, np.nan), {}, "finite"),
    (np.zeros(10), {"experts": ("oracle",)}, "oracle"),
    (np.zeros(10), {"groups": np.zeros(10)}, "cannot be split"),
    (np.zeros(10), {"groups": np.zeros(3)}, "groups has shape")])
def test_regression_says_what_is_wrong(features, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate.regression({"x": features}, {"y": np.arange(10.0)}, progress=False, **options)


# -- classification -------------------------------------------------------------------------------


def clouds(n, *, seed=0, spread=0.05):
    """Three classes (one of them large) around the axes."""
    rng = np.random.default_rng(seed)
    code = np.repeat([0, 1, 2], [n, n // 4, n // 4])
    return np.eye(3)[code] + spread * rng.normal(size=(len(code), 3)), np.array(list("abc"))[code]


def test_separate_classes_are_all_told():
    vectors, labels = clouds(80)
    result = evaluate.classification(vectors, labels, class_vectors=dict(zip("abc", np.eye(3))))
    for method in ("k-NN (10)", "zero-shot"):
        assert all(e.value == 1 for e in result.scores[method].values())
        assert np.array_equal(result.confusion[method], np.diag([80, 20, 20]))
    assert result.chance["accuracy"] == pytest.approx(80 / 120)
    assert result.chance["balanced accuracy"] == pytest.approx(1 / 3)


def test_scores_agree_with_those_of_scikit_learn():
    from sklearn import metrics

    vectors, labels = clouds(120, spread=0.6)
    result = evaluate.classification(vectors, labels, class_vectors=dict(zip("abc", np.eye(3))))
    for method, guess in result.predicted.items():
        scores = result.scores[method]
        assert scores["accuracy"].value == pytest.approx(metrics.accuracy_score(labels, guess))
        assert scores["balanced accuracy"].value == pytest.approx(
            metrics.balanced_accuracy_score(labels, guess))
        assert scores["macro F1"].value == pytest.approx(
            metrics.f1_score(labels, guess, average="macro"))
        np.testing.assert_array_equal(result.confusion[method],
                                      metrics.confusion_matrix(labels, guess))
    table = result.to_table()
    assert list(table["method"]) == ["k-NN (10)", "zero-shot", "chance"]
    assert list(result.to_table("zero-shot")["true class"]) == list("abc")


def test_shuffled_labels_score_as_chance():
    vectors, labels = clouds(400)
    labels = np.random.default_rng(0).permutation(labels)
    score = evaluate.classification(vectors, labels).primary
    assert abs(score.value - 1 / 3) < 4 * score.error


def test_several_descriptions_are_averaged_and_missing_ones_refused():
    vectors, labels = clouds(40)
    pairs = {name: np.eye(3)[i] + [[0.2, 0, 0], [-0.2, 0, 0]] for i, name in enumerate("abc")}
    result = evaluate.classification(vectors, labels, class_vectors=pairs)
    assert result.scores["zero-shot"]["accuracy"].value == 1
    with pytest.raises(ValueError, match="no description"):
        evaluate.classification(vectors, labels, class_vectors={"a": np.ones(3)})
    with pytest.raises(ValueError, match="do not fit"):
        evaluate.classification(vectors, labels[:5])


# -- novelty --------------------------------------------------------------------------------------


def test_a_far_class_is_found_and_a_hidden_one_is_not():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, 4))
    labels = np.array(["usual"] * 300 + ["hidden"] * 200 + ["other"] * 150 + ["far"] * 50)
    vectors[labels == "far"] += 12
    result = evaluate.novelty(vectors, labels, classes=["far", "hidden"], progress=False,
                              n_resamples=20)
    for scores in result.scores["far"].values():
        assert scores["average precision"].value > 0.99 and scores["ROC AUC"].value > 0.99
    for scores in result.scores["hidden"].values():
        assert scores["ROC AUC"].value < 0.65
        assert abs(scores["average precision"].value
                   - result.chance["hidden"]["average precision"]) < 0.15
    # half of the 650 others are ranked beside the 50
    assert result.chance["far"]["average precision"] == pytest.approx(50 / 375)


def test_areas_agree_with_the_definition():
    """AUC: the share of pairs in which the member is ahead; errors as Hanley & McNeil's."""
    from stingray_align.evaluate._novelty import _judge

    rng = np.random.default_rng(0)
    member = np.arange(400) < 100
    score = rng.normal(size=400) + member
    area = _judge(score, member, np.arange(400), 0, 200)[1]
    pairs = score[member][:, None] > score[~member]
    assert area.value == pytest.approx(pairs.mean())
    a, q1, q2 = area.value, area.value / (2 - area.value), 2 * area.value**2 / (1 + area.value)
    exact = np.sqrt((a * (1 - a) + 99 * (q1 - a**2) + 299 * (q2 - a**2)) / (100 * 300))
    assert area.error == pytest.approx(exact, rel=0.2)


def test_novelty_table_and_errors():
    vectors, labels = clouds(80)
    result = evaluate.novelty(vectors, labels, progress=False, n_resamples=20)
    table = result.to_table()
    assert len(table) == (3 + 1) * 2
    assert result.primary == pytest.approx(table["ROC AUC"][-1])
    assert "left out in turn" in str(result)
    with pytest.raises(ValueError, match="No row is labelled"):
        evaluate.novelty(vectors, labels, classes=["z"], progress=False)
    with pytest.raises(ValueError, match="do not fit"):
        evaluate.novelty(vectors, labels[:5], progress=False)
    with pytest.raises(ValueError, match="give more"):
        evaluate.novelty(vectors[:3], labels[:3], progress=False)
