"""Comparing two observations: tests with p-values that hold, and words that say no more."""

import numpy as np
import pytest
import stingray_align as sa
from scipy import stats
from small_sources import write_arf
from stingray_align.alignment import comparison
from stingray_align.alignment.comparison import (_Brightness, _drawn_given_total, _excess, _scaled,
                                                 _score, compare, holm, sigma)
from stingray_align.errors import DomainShiftWarning
from stingray_align.instruments import contamination
from stingray_align.photons import CHANNEL_EDGES, N_CHANNELS

CENTRES = np.sqrt(CHANNEL_EDGES[:-1] * CHANNEL_EDGES[1:])


@pytest.fixture(autouse=True)
def fewer_simulations(monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.setattr(comparison, "_N_DRAWS", 1000)
    monkeypatch.setattr(comparison, "_N_EMBEDDED", 20)  # too few to find a change of the form
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def events(n, seed=0, energies=(0.7, 5.0), duration=2e4, times=None, **options):
    rng = np.random.default_rng(seed)
    times = rng.uniform(0, duration, n) if times is None else times
    options = {"mission": "chandra", "instr": "ACIS-S"} | options
    return sa.EventList(np.sort(times), energy=rng.uniform(*energies, len(times)),
                        gti=[[0, duration]], **options)


def row(result, name):
    return result.tests[list(result.tests["test"]).index(name)]


def test_holm_by_hand_and_with_questions_left_out():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.6]), [0.02, np.nan, 0.6])
    assert holm([0.9, 0.8]).max() == 1 and np.isnan(holm([np.nan])).all()
    assert sigma(stats.norm.sf(3) * 2) == pytest.approx(3) and sigma(1.0) == 0


def _two(n, exposure, background=(0, 0), area=(1.0, 1.0), error=0.0):
    counts = np.zeros((2, N_CHANNELS), int)
    counts[:, 8] = n
    back = np.zeros((2, N_CHANNELS))
    back[:, 8] = background
    return _Brightness(counts, back, np.array(exposure, float),
                       np.ones((2, N_CHANNELS)) * np.array(area)[:, None], error)


def test_brightness_is_the_conditional_binomial_test():
    test = _two((30, 90), (1e4, 2e4))
    assert test.p_value == pytest.approx(stats.binomtest(30, 120, 1 / 3).pvalue)
    assert test.ratio == pytest.approx(1.5)
    low, high = test.interval(0.68)
    assert low < 1.5 < high and test.interval(0.95)[1] > high
    # twice the area, or a background that makes up half, are accounted for
    assert _two((30, 60), (1e4, 1e4), area=(1, 2)).p_value == pytest.approx(1)
    assert _two((30, 60), (1e4, 1e4), background=(0, 30)).p_value == pytest.approx(1)
    assert _two((60, 60), (1e4, 1e4), background=(0, 55)).p_value < 1e-3
    # within the error of the areas nothing is known
    assert _two((1000, 1080), (1e4, 1e4), error=0.1).p_value == 1
    assert _two((1000, 1080), (1e4, 1e4)).p_value < 0.1


def test_brightness_p_values_hold_with_a_background():
    rng = np.random.default_rng(1)
    p = np.array([_two(rng.poisson([20 + 5, 2 * 20 + 30]), (1e4, 2e4), background=(5, 30)).p_value
                  for _ in range(600)])
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p <= level) < level + 3 * np.sqrt(level * (1 - level) / 600)
    assert np.mean(p <= 0.5) > 0.3  # and are not worthlessly large


def test_no_photons_give_limits():
    test = _two((0, 40), (1e4, 1e4))
    assert test.ratio == np.inf and 5 < test.interval(0.9)[0] < 40
    assert "by a factor of more than" in test.words()[0]
    test = _two((40, 0), (1e4, 1e4))
    assert test.ratio == 0 and 0 < test.interval(0.9)[1] < 0.2
    assert "neither" in _two((3, 4), (1e4, 1e4), background=(5, 9)).words()[1]
    assert np.isnan(_two((0, 0), (1e4, 1e4)).ratio) and _two((0, 0), (1, 1)).p_value == 1


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_background_that_happened_to_give_few_photons_is_no_evidence_of_more(n):
    limits = [_two((n, 30), (1e4, 1e4), background=(b, b)).interval(0.9) for b in (0.1, 3, 10)]
    assert all(3 < low < 30 for low, _ in limits)
    assert all(high == np.inf for _, high in limits[1:])


def test_limits_of_the_ratio_hold_over_a_background():
    rng = np.random.default_rng(3)
    held = [low < 2 < high for low, high in (
        _two(rng.poisson([8 + 6, 16 + 12]), (1e4, 1e4), background=(6, 12)).interval(0.9)
        for _ in range(400))]
    assert 0.85 < np.mean(held) < 0.97


@pytest.mark.parametrize("area, background", [((1.0, 1.0), 0.0), ((1.0, 3.0), 0.0),
                                              ((1.0, 1.0), 0.4)])
def test_spectrum_p_values_hold_whatever_the_brightness(area, background):
    rng = np.random.default_rng(2)
    shape = CENTRES**-1.5
    tilt = np.stack([np.full(N_CHANNELS, area[0]), area[1] * CENTRES**0.5])
    sensitivity, p = tilt * 1.0, []
    back = background * np.stack([np.full(N_CHANNELS, 1.5), np.full(N_CHANNELS, 3.0)])
    for _ in range(80):
        expected = np.array([[1.0], [rng.uniform(0.5, 3)]]) * sensitivity * shape * 8 + back
        counts = rng.poisson(expected)
        facts = [type("F", (), {"hardness": 0.0})] * 2
        p.append(comparison._spectrum(counts, back, sensitivity, facts, rng)[0])
    p = np.array(p)
    for level in (0.02, 0.1, 0.3):
        assert np.mean(p <= level) < level + 3.2 * np.sqrt(level * (1 - level) / 80)
    assert np.mean(p <= 0.6) > 0.35


def test_permutation_keeps_both_totals():
    rng = np.random.default_rng(3)
    total = np.array([5, 3, 9])
    drawn = _drawn_given_total(rng, total, np.full(3, 0.4), 7)
    assert (drawn.sum(axis=1) == 7).all() and (drawn <= total).all()


def test_score_has_the_mean_of_its_degrees_of_freedom():
    rng = np.random.default_rng(4)
    total = np.full(N_CHANNELS, 200)
    drawn = rng.binomial(total, 0.3, size=(2000, N_CHANNELS)).astype(float)
    value, slope = _score(drawn, total, np.zeros((2, N_CHANNELS)), np.ones((2, N_CHANNELS)),
                          CENTRES)
    assert value.mean() == pytest.approx(3, abs=0.2) and abs(np.mean(slope > 0) - 0.5) < 0.05


def test_excess_variance_and_scaled_curves():
    rng = np.random.default_rng(5)
    exposed = np.ones(64)
    steady = _excess(rng.poisson(20, size=(2000, 64)), exposed)
    assert abs(steady.mean()) < 0.002
    curve = _scaled(1 + 0.1 * np.sin(np.arange(64)), exposed, 0.25)
    assert np.mean((curve - 1) ** 2) == pytest.approx(0.25, rel=0.02)
    assert curve.mean() == pytest.approx(1) and curve.min() > 0
    varied = _excess(rng.poisson(20 * curve, size=(2000, 64)), exposed)
    assert varied.mean() == pytest.approx(0.25, rel=0.05)


def test_brighter_and_nothing_else():
    result = compare(events(80), events(240, seed=1), names=("2009", "2024"))
    assert list(result.tests["changed"]) == [True, False, False, False]
    assert result.ratio == pytest.approx(3) and "brighter, by a factor of 3.0" in result.text
    assert "spectrum" in result.text.split(";")[-1]
    assert "2024 compared with 2009" in str(result)
    assert max(map(len, str(result).splitlines())) <= 96
    assert "nan" not in str(result)


def test_spectrum_changes_while_the_brightness_does_not():
    result = compare(events(200, energies=(0.6, 2.5)), events(200, seed=1, energies=(1.5, 6)))
    assert row(result, "spectrum")["changed"] and not row(result, "brightness")["changed"]
    assert "harder" in result.text and "in brightness" in result.text
    assert "softer" in compare(events(200, energies=(1.5, 6)),
                               events(200, seed=1, energies=(0.6, 2.5))).text
    # simulations end somewhere, which is said
    assert row(result, "spectrum")["limit"] and "more than" in str(result)


def test_variability_alone():
    rng = np.random.default_rng(6)
    t = rng.uniform(0, 2e4, 4000)
    t = t[rng.random(4000) < (1 + np.sin(2 * np.pi * 3 * t / 2e4)) / 2][:600]
    result = compare(events(600, seed=3), events(0, times=t, seed=4))
    assert row(result, "variability")["changed"] and not row(result, "spectrum")["changed"]
    assert "more variable" in result.text


@pytest.mark.parametrize("first, second", [(150, 0), (0, 150), (0, 0), (3, 150)])
def test_almost_no_photons_in_one(first, second):
    result = compare(events(first), events(second, seed=1))
    assert np.isnan(result.tests["p_value"][1:]).all()
    assert "Too few photons to compare the spectrum" in result.text
    assert ("95 % limit" in result.text) == (0 in (first, second) and first != second)
    result.plot().canvas.draw()


def test_another_camera_is_no_change():
    a, b = sa.datasets.simulate_through(1, 3, ("ACIS-S", "EPIC-pn"), counts=(300, 400),
                                        classes="coronal star").values()
    with pytest.warns(DomainShiftWarning):
        result = compare(a.event_lists[0], b.event_lists[0])
    assert not row(result, "brightness")["changed"] and not row(result, "spectrum")["changed"]
    assert b.photons.n_photons[0] > 1.5 * a.photons.n_photons[0]
    assert any("effective areas" in text for text in result.caveats)


def test_contamination_is_no_change(tmp_path):
    """It is known by date, approximately, and from response files."""
    def caveat(result):
        return any("contamination of ACIS grew" in text for text in result.caveats)

    def passed(events, transmission):
        return events.apply_mask(np.random.default_rng(2).random(events.ncounts) < transmission)

    early, late = events(2000, mjdref=51600), events(4000, seed=1, mjdref=57754)
    late = passed(late, contamination(late.energy, 2017.0) / contamination(late.energy, 2000.2))
    result = compare(early, late)
    assert not row(result, "spectrum")["changed"] and caveat(result)
    early.mjdref = late.mjdref = 0  # no dates
    result = compare(early, late)
    assert row(result, "spectrum")["changed"] and not caveat(result)

    early, late = events(400, mjdref=51600), events(1500, seed=1, mjdref=57754)
    late = passed(late, np.where(late.energy > 2, 1.0, 0.2))
    result = compare(early, late)
    assert row(result, "spectrum")["changed"] and caveat(result)
    early.arf_file = write_arf(tmp_path / "early.arf", lambda energy: 500.0)
    result = compare(early, late)  # the area of one by file, of the other by date
    assert any("approximate effective areas" in text for text in result.caveats)
    late.arf_file = write_arf(tmp_path / "late.arf",
                              lambda energy: np.where(energy > 2, 500.0, 100.0))
    result = compare(early, late)
    assert not row(result, "spectrum")["changed"]
    assert not any("contamination" in text for text in result.caveats)


def test_a_background_known_once_is_taken_for_both():
    a, b = events(100), events(100, seed=1)
    for name in ("soft", "medium", "hard", "top"):
        setattr(a, f"background_{name}", 5e-4)
    result = compare(a, b)
    assert not result.tests["changed"].any()
    assert any("for one observation only" in text for text in result.caveats)


def test_table_html_and_figure(tmp_path):
    result = compare(events(80), events(240, seed=1), names=("<b>", "x"))
    table = result.to_table()
    assert table["counts_2"][0] == 240 and table["brightness_p_value"][0] < 1e-6
    assert "&lt;b&gt;" in result._repr_html_() and "<b>" not in result._repr_html_()
    figure = result.plot()
    assert len(figure.axes) == 4
    for ax in figure.axes:
        assert ax.get_xlabel() and ax.get_title()
    table.write(tmp_path / "pair.ecsv")


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="level"):
        compare(events(9), events(9), level=0)
    with pytest.raises(ValueError, match="names"):
        compare(events(9), events(9), names=("one",))


def test_benchmark_counts_false_alarms_and_finds():
    seen = list(sa.datasets.simulate_through(4, 5, ("ACIS-S", "ACIS-S"), counts=(150, 300),
                                             classes="unobscured AGN").values())
    result = sa.evaluate.changes(seen[0].event_lists, seen[1].event_lists,
                                 sa.PoissonAutodecoder.pretrained(), n_h=1.0, progress=False)
    assert result.found["half as bright"][:, 0].mean() >= 0.75
    assert result.found["1e22 cm-2 of gas"][:, 1].mean() >= 0.75
    assert 0 <= result.primary <= 1 and "half as bright" in str(result)
