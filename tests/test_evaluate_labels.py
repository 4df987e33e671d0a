"""Gains, conformal intervals, label curves, class probabilities, questions, and their figures."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table

from stingray_align import evaluate
from stingray_align.text import CLASSES

CSC = Path(__file__).parents[2] / "shared" / "data" / "csc_sample.ecsv"


# -- targets out of tables ------------------------------------------------------------------------


def test_targets_of_a_table_are_logarithms_where_meant_and_nan_where_unknown():
    table = QTable({"n_h": [1.0, 0.0, 100.0] * u.cm**-2, "hardness": [0.5, -0.5, 0.1],
                    "same": [1.0, 1.0, 1.0],
                    "kT": MaskedColumn([10, 1, 1], mask=[False, False, True])})
    targets = evaluate.table_targets(table, {"n_h": True, "hardness": False, "same": False,
                                             "kT": True})
    assert list(targets) == ["log n_h", "hardness", "log kT"]
    np.testing.assert_array_equal(targets["log n_h"], [0, np.nan, 2])
    np.testing.assert_array_equal(targets["log kT"], [1, 0, np.nan])
    with pytest.raises(ValueError, match="no column period"):
        evaluate.table_targets(table, {"period": True})
    with pytest.raises(ValueError, match="no column to regress"):
        evaluate.table_targets(table["same", "n_h"])


def test_the_columns_of_the_chandra_source_catalog():
    assert len(evaluate.CSC_TARGETS) == 20
    if not CSC.exists():
        pytest.skip("the shared sample of the Chandra Source Catalog is not there")
    targets = evaluate.table_targets(Table.read(CSC))
    assert {"hard_hs", "powlaw_gamma", "log powlaw_nh", "var_prob_b"} <= set(targets)
    assert all(np.isfinite(values).sum() >= 2 for values in targets.values())


# -- regression -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def regressed():
    """Events know one half of the target, texts the other; faint sources have larger errors."""
    rng = np.random.default_rng(4)
    a, b, noise = rng.normal(size=(3, 600))
    counts = rng.integers(5, 500, 600)
    y = a + b + noise * np.where(counts < 100, 1.0, 0.1)
    z = np.where(np.arange(600) < 300, a, np.nan)
    return evaluate.regression(
        {"events": a, "text": b, "both": np.stack([a, b], 1)}, {"y": y, "z": z}, counts=counts,
        experts=("ridge",), choices={"one": ("events", "text")}, gains=(("both", "one"),),
        n_resamples=60, progress=False)


def test_gain_is_the_share_of_the_error_that_goes_away(regressed):
    known = np.abs(regressed.truth["y"] - regressed.predicted["y"]["one", "nested choice"])
    less = np.abs(regressed.truth["y"] - regressed.predicted["y"]["both", "nested choice"])
    gain = regressed.gain("both", "one", "y")
    assert gain.value == pytest.approx(1 - less.mean() / known.mean())
    assert gain.value > 0.4 > 5 * gain.error > 0
    mean = regressed.gain("both", "one")
    assert regressed.primary == mean and "both over one" in regressed.headline()
    assert mean.value == pytest.approx((gain.value + regressed.gain("both", "one", "z").value) / 2)


def test_choices_are_made_in_the_training_folds_and_told(regressed):
    assert regressed.chosen["y"]["best"] == [("both", "ridge")] * 5
    assert set(regressed.chosen["z"]["one"]) == {("events", "ridge")}


def test_intervals_hold_the_truth_as_often_as_they_say_at_all_photon_counts(regressed):
    counts = regressed.counts
    for where in (None, counts < 80, counts > 150):
        for level, found in regressed.coverage("y", where).items():
            assert abs(found.value - level) < max(4 * found.error, 0.03)
    width = regressed.intervals["y"][1, 0] - regressed.intervals["y"][0, 0]
    assert np.median(width[counts < 80]) > 4 * np.median(width[counts > 150])


def test_too_few_sources_give_no_limit_rather_than_a_wrong_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=16)
    result = evaluate.regression({"x": x}, {"y": x + rng.normal(size=16)}, experts=("ridge",),
                                 n_splits=4, n_resamples=10, progress=False)
    assert np.isinf(result.intervals["y"][:, 1]).all()  # 12 errors cannot tell 95 %
    assert np.isfinite(result.intervals["y"][:, 0]).all()
    assert result.coverage("y")[0.95].value == 1


def test_printed_tables_are_compact_and_the_saved_one_is_complete(regressed):
    assert [len(table) for table in regressed.tables()] == [2, 2, 3, 2]
    assert len(regressed.to_table()) == 2 * (3 + 5 + 1)
    assert "mean of targets" in str(regressed) and "68% faint" in str(regressed)


@pytest.mark.parametrize("options, message", [
    ({"choices": {"some": ("oracle",)}}, "No features are called 'oracle'"),
    ({"gains": (("x", "oracle"),)}, "No choice is called 'oracle'")])
def test_unknown_names_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate.regression({"x": np.zeros(9)}, {"y": np.arange(9.0)}, progress=False, **options)


# -- labels ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curve():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(700, 30))
    y = x[:, 0] + 0.1 * rng.normal(size=700)
    return evaluate.label_curve({"wide": x, "own": x[:, :1]},
                                {"y": y, "rare": np.where(np.arange(700) < 200, y, np.nan)},
                                sizes=(50, 400), n_resamples=50, progress=False)


def test_more_labels_help_and_good_features_need_fewer(curve):
    few, many = (curve.relative_error(size, "wide", "k-NN (3)", "y") for size in (50, 400))
    assert few.value > many.value + few.error
    assert curve.relative_error(50, "own", "k-NN (3)", "y").value < 0.5 * few.value
    # the error of a mean is sqrt(2 / pi) for a standard normal, that of the line a tenth of it
    assert curve.relative_error(400, "own", "ridge", "y").value == pytest.approx(0.1, abs=0.02)


def test_targets_with_few_labels_are_left_out_of_large_samples(curve):
    assert ("rare", 50) in curve.errors and ("rare", 400) not in curve.errors
    assert curve.sizes == [50, 400] and curve.targets == ["y"]  # rising lines mean one thing only
    assert len(curve.summary()) == 4 and "others predicted" in str(curve)
    with pytest.raises(ValueError, match="Too few sources"):
        evaluate.label_curve({"x": np.zeros(20)}, {"y": np.arange(20.0)}, progress=False)


def test_no_source_is_learned_from_and_predicted():
    rng = np.random.default_rng(0)
    x, y = np.repeat(rng.normal(size=(100, 5)), 3, axis=0), np.repeat(rng.normal(size=100), 3)
    options = {"sizes": (60,), "experts": ("k-NN (3)",), "n_resamples": 20, "progress": False}
    honest = evaluate.label_curve({"x": x}, {"y": y}, groups=np.repeat(np.arange(100), 3),
                                  **options)
    assert honest.relative_error(60, "x", "k-NN (3)").value > 0.9


# -- class probabilities --------------------------------------------------------------------------


def drawn_classes(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.5] * 4, n)
    true = (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, np.array(list("abcd"))[true]


def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not():
    probabilities, labels = drawn_classes()
    result = evaluate.class_probabilities(probabilities, labels, "abcd", n_resamples=60)
    assert result.primary.value < 2.5 * result.chance["ECE"]
    assert result.scores["log loss"].value < result.chance["log loss"]
    sharp = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    wrong = evaluate.class_probabilities(sharp, labels, "abcd", n_resamples=60)
    assert wrong.primary.value > 4 * wrong.chance["ECE"]
    assert wrong.scores["accuracy"].value == pytest.approx(result.scores["accuracy"].value)
    assert wrong.scores["Brier score"].value > result.scores["Brier score"].value
    table = result.reliability()
    assert table["sources"].sum() == 3000 and "perfect probabilities" in str(result)
    assert (np.abs(table["right"] - table["probability"]) < 4 * table["right error"] + 0.01).all()


def test_scores_of_known_probabilities():
    result = evaluate.class_probabilities([[0.5, 0.3, 0.1, 0.1]] * 4, list("abcd"), "abcd",
                                          n_resamples=5)
    assert result.scores["accuracy"].value == 0.25
    assert result.scores["among first 3"].value == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    assert result.scores["log loss"].value == pytest.approx(-np.log([0.5, 0.3, 0.1, 0.1]).mean())
    assert result.scores["ECE"].value == pytest.approx((3 * 0.5 + 0.5) / 4)


@pytest.mark.parametrize("given, message", [
    (([[1.0]], ["a"], "ab"), "do not fit"), (([[0.5, 0.1]], ["a"], "ab"), "sum to 1"),
    (([[0.5, 0.5]], ["c"], "ab"), "no column")])
def test_class_probabilities_say_what_is_wrong(given, message):
    with pytest.raises(ValueError, match=message):
        evaluate.class_probabilities(*given)


# -- questions ------------------------------------------------------------------------------------


def asked():
    sources, classes = np.repeat(np.eye(3), 20, axis=0), np.repeat(["a", "b", "c"], 20)
    right, wrong = np.eye(3), np.roll(np.eye(3), 1, axis=0)
    return evaluate.queries({"bad": np.tile(wrong, (2, 1)), "good": np.tile(right, (2, 1))},
                            list("abcabc"), sources, classes,
                            parts=["seen"] * 3 + ["unseen"] * 3, n_resamples=20)


def test_questions_find_sources_of_their_class():
    result = asked()
    assert result.scores("good", "unseen")["Recall@1"].value == 1
    assert result.scores("bad", "seen")["Recall@10"].value == 0
    assert result.primary.value == 1 and "unseen questions, good" in result.primary_is
    chance = result.to_table()[-1]
    assert chance["asked"] == "chance" and chance["Recall@1"] == pytest.approx(1 / 3)
    assert chance["Recall@5"] == pytest.approx(1 - (2 / 3) ** 5)
    with pytest.raises(ValueError, match="class"):
        evaluate.queries({"x": np.eye(2)}, ["a", "z"], np.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match="shape"):
        evaluate.queries({"x": np.eye(3)}, ["a", "b"], np.eye(2), ["a", "b"])


def test_bundled_questions_ask_for_every_class():
    questions = evaluate.plain_queries()
    assert len(questions) >= 100
    assert {question["class"] for question in questions} == set(CLASSES)
    assert questions[-1]["split"] == "held-out"  # the part that is quoted


# -- figures --------------------------------------------------------------------------------------


def drawn(figure, path):
    from matplotlib import pyplot as plt

    figure.savefig(path)
    plt.close(figure)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figure


def texts(figure):
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_figures_of_regression(regressed, curve, tmp_path):
    figure = drawn(evaluate.plot_regression(regressed), tmp_path / "a.png")
    assert figure.get_figwidth() == 7.1 and "held" in texts(figure) and "simulated" in texts(figure)
    shown = texts(drawn(evaluate.plot_scores(regressed), tmp_path / "b.png"))
    assert all(name in shown for name in ("events", "text", "both", "best"))
    shown = texts(drawn(evaluate.plot_labels(curve), tmp_path / "c.png"))
    assert "400" in shown and "k-NN (3)" in shown


def test_figures_of_classes_and_questions(tmp_path):
    figure = drawn(evaluate.plot_confusion([[3, 1], [0, 0]], ["a", "b"], title="told"),
                   tmp_path / "a.png")
    assert "75" in texts(figure) and "told" in texts(figure)
    probabilities, labels = drawn_classes(200)
    result = evaluate.class_probabilities(probabilities, labels, "abcd", n_resamples=10)
    assert "ECE" in texts(drawn(evaluate.plot_class_reliability(result), tmp_path / "b.png"))
    shown = texts(drawn(evaluate.plot_queries(asked()), tmp_path / "c.png"))
    assert "first 10" in shown and "unseen: 3 questions" in shown and "chance" in shown


def test_figures_of_retrieval_and_novelty(tmp_path):
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(60, 4))
    result = evaluate.retrieval(pairs, pairs + rng.normal(size=pairs.shape), n_resamples=5)
    figure = drawn(evaluate.plot_retrieval({"ours": result}), tmp_path / "a.png")
    assert "ours" in texts(figure) and "chance" in texts(figure) and len(figure.axes) == 1
    found = evaluate.novelty(pairs, np.repeat(["a", "b", "c"], 20), n_resamples=5, progress=False)
    assert "k-NN distance" in texts(drawn(evaluate.plot_novelty(found), tmp_path / "b.png"))


def test_figure_of_the_reconstruction(tmp_path):
    from stingray_align.evaluate import ReconstructionResult

    rng = np.random.default_rng(0)
    oracle = rng.gamma(2, 5, 60)
    gain = {"ours": 0.8 * oracle, "blocks": 0.6 * oracle, "oracle": oracle}
    shapes = np.repeat(["flares", "dips", "constant"], 20)
    gain["oracle"] = np.where(shapes == "constant", 0.01, oracle)  # nothing to be gained
    result = ReconstructionResult(
        names=("ours",), rivals=("blocks",), gain=gain, counts=rng.integers(20, 900, 60),
        time_shape=shapes, fraction_seen=0.5, seed=0, n_resamples=20)
    shown = texts(drawn(evaluate.plot_reconstruction(result), tmp_path / "a.png"))
    assert "flares (20)" in shown and "constant" not in shown.replace("constant rate", "")


def test_novelty_scores_are_those_of_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    from stingray_align.evaluate._novelty import _average_precision_and_auc

    rng = np.random.default_rng(3)
    member = rng.random(300) < 0.2
    for score in (rng.normal(size=300) + member, rng.integers(5, size=300) + member):
        found = _average_precision_and_auc(score.astype(float), member)
        assert np.allclose(found, [average_precision_score(member, score),
                                   roc_auc_score(member, score)], rtol=1e-12)
    assert np.isnan(_average_precision_and_auc(np.ones(3), np.ones(3, bool))).all()
