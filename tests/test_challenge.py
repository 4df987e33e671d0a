"""The challenge population, one source through several instruments, and extreme observations."""

import numpy as np
import pytest

from stingray_align.datasets import (CLASSES, simulate_challenge, simulate_photons,
                                     simulate_population, simulate_through)
from stingray_align.datasets import _challenge_shapes, _shapes, _simulate, _spectra
from stingray_align.datasets.challenge import BACKGROUNDS, GAPS, SHAPES, SPECTRA
from stingray_align.instruments import INSTRUMENTS, effective_area
from stingray_align.photons import BAND_OF_CHANNEL, Photons


@pytest.fixture(scope="module")
def challenge():
    """Enough bright sources for statements about each kind."""
    return simulate_challenge(400, 3, counts=(300, 3000))


def _rate(sources, i):
    """True source and background rate on the cells of the window, in 0.5-7 keV."""
    times = (np.arange(4096) + 0.5) / 4096 * sources.photons.duration[i]
    return sources.true_rate(i, sources.photons.start[i] + times).sum(axis=1)


# ---- the challenge ----------------------------------------------------------------------------
def test_everything_unusual_is_there_and_labelled(challenge):
    truth = challenge.truth
    assert set(truth["time_shape"]) == {*SHAPES, "flaring background"}
    assert set(truth["spectrum"]) == set(SPECTRA)
    assert set(truth["gaps"]) == set(GAPS)
    assert set(truth["background"]) == set(BACKGROUNDS)
    assert set(truth["instrument"]) == set(INSTRUMENTS)
    assert all(truth[name].info.description for name in truth.colnames)
    for name in SPECTRA:
        mine = truth[truth["spectrum"] == name]
        assert np.isfinite(mine["n_h"].value).all()
        assert np.isfinite(mine["kT"].value).all() == (name in ("two temperatures",
                                                                "soft excess"))


def test_time_shapes_are_none_of_the_population():
    known = {shape.kind for entry in CLASSES.values() for shape in entry.shapes}
    assert set(SHAPES) & known == {"constant"}


def test_same_arguments_give_the_same_sources_and_another_seed_does_not():
    first, again, other = (simulate_challenge(20, seed, counts="csc") for seed in (5, 5, 6))
    for name in first.truth.colnames:
        np.testing.assert_array_equal(first.truth[name], again.truth[name])
    np.testing.assert_array_equal(first.photons.phase, again.photons.phase)
    np.testing.assert_array_equal(first.photons.background, again.photons.background)
    assert not np.array_equal(first.photons.start, other.photons.start)


@pytest.mark.parametrize("column", ["time_shape", "gaps", "background", "spectrum"])
def test_photons_follow_the_true_rate_in_time_and_band(challenge, column):
    photons, n = challenge.photons, len(challenge)
    band = BAND_OF_CHANNEL[photons.channel]
    keep = band < 3
    counts = np.zeros((n, 32, 3))
    np.add.at(counts, (photons.source_index[keep], photons.time_bin[keep] // 16, band[keep]), 1)
    expected = challenge.true_counts_grid().reshape(n, 32, 16, 3).sum(axis=2)
    assert np.all(counts[expected < 1e-9] == 0)
    for name in np.unique(challenge.truth[column]):
        mine = np.asarray(challenge.truth[column] == name)[:, None, None] & (expected > 5)
        pull = (counts[mine] - expected[mine]) / np.sqrt(expected[mine])
        assert np.mean(pull**2) == pytest.approx(1.0, abs=6 * np.sqrt(2 / mine.sum())), name
        assert abs(pull.mean()) < 5 / np.sqrt(mine.sum()), name


def test_log_rates_are_those_of_the_true_rate(challenge):
    logs, photons = challenge.true_log_rates(), challenge.photons
    mine = slice(photons.offsets[7], photons.offsets[8])
    times = photons.start[7] + photons.phase[mine].astype(float) * photons.duration[7]
    band = BAND_OF_CHANNEL[photons.channel[mine]]
    rate = np.append(challenge.true_rate(7, times), np.full((len(times), 1), np.nan), axis=1)
    rate = np.log(rate[np.arange(len(times)), band])
    assert np.isclose(logs[mine], rate, atol=1e-4, equal_nan=True).mean() > 0.99


def test_event_lists_keep_to_their_good_times_and_agree_with_the_photons(challenge):
    few = simulate_challenge(40, 9, counts=(5, 100))
    for i, events in enumerate(few.event_lists):
        inside = (events.time[:, None] >= events.gti[:, 0]) & (
            events.time[:, None] <= events.gti[:, 1])
        assert inside.any(axis=1).all()
        assert np.all(np.diff(events.gti.ravel()) > 0)
        assert len(events.gti) > 1 or few.truth["gaps"][i] == "none"
        seen = Photons.from_events(events)
        assert seen.n_photons[0] == few.truth["counts"][i].value
        np.testing.assert_allclose(seen.exposed[0], few.photons.exposed[i], atol=1e-4)


def test_gaps_are_what_they_are_called(challenge):
    share = (challenge.truth["exposure"] / challenge.truth["duration"]).value
    gaps = np.asarray(challenge.truth["gaps"])
    number = np.array([len(gti) for gti in challenge._gti])
    assert np.all(share[gaps == "none"] > 0.999)
    assert np.all(number[gaps == "two visits"] == 2) and np.all(share[gaps == "two visits"] < 0.61)
    assert np.all(number[gaps == "snapshots"] >= 6) and np.all(share[gaps == "snapshots"] <= 0.5)
    np.testing.assert_allclose(share[gaps == "dropouts"], 0.85, atol=1e-6)
    assert np.all(share[gaps == "belt passages"] > 0.5)


def test_wrong_estimates_of_the_background_are_wrong_and_others_are_not(challenge):
    estimate, truth = challenge.photons.background.sum(axis=1), challenge.truth
    expected = truth["background_counts"].value
    known = (estimate > 0) & (expected > 60)
    ratio = np.log(estimate[known] / expected[known])
    wrong = np.asarray(truth["background"] == "mis-estimated")[known]
    assert wrong.sum() > 20 and np.abs(ratio[wrong]).min() > 0.15
    assert np.abs(ratio[~wrong]).mean() < 0.05


def test_background_flares_move_the_rate_of_constant_sources(challenge):
    for i in np.flatnonzero(challenge.truth["time_shape"] == "flaring background"):
        assert challenge.truth["background"][i] == "flaring"
        assert challenge.truth["fractional_variability"][i] < 0.03
        assert _rate(challenge, i).std() > 0.02 * _rate(challenge, i).mean()
    for i in np.flatnonzero((challenge.truth["time_shape"] == "constant")
                            & (challenge.truth["background"] != "flaring")):
        assert np.ptp(_rate(challenge, i)) < 1e-5 * _rate(challenge, i).mean()


def test_bursts_are_short(challenge):
    rows = np.flatnonzero((challenge.truth["time_shape"] == "short bursts")
                          & (challenge.truth["background"] == "steady"))
    for i in rows:
        rate, cell = _rate(challenge, i), challenge.photons.duration[i] / 4096
        edges = np.flatnonzero(np.diff(rate > 0.5 * rate.max(), prepend=False, append=False))
        assert np.diff(edges)[::2].max() * cell < 30.0 + 2.0 * cell     # two may overlap
    assert len(rows) > 10


# ---- light curves with known integrals --------------------------------------------------------
def test_a_clock_that_runs_evenly_folds_as_folded_does():
    rng = np.random.default_rng(1)
    profile = _shapes.pulse_profile(rng, np.array([0.5, 0.9]))
    duration, period, phase = np.array([1e3, 2e4]), np.array([70.0, 900.0]), np.array([0.2, 0.7])
    cycles = duration[:, None] * np.linspace(0, 1, 4097) / period[:, None] + phase[:, None]
    np.testing.assert_allclose(_shapes.cycled(profile, cycles),
                               _shapes.folded(profile, period, duration, phase), rtol=1e-4)


def test_trapezoids_have_their_area_height_and_place():
    centre, width, slope = np.array([0.3, 0.62]), np.array([0.1, 0.004]), np.array([0.05, 0.002])
    curve = _challenge_shapes._trapezoid(centre, width, slope)
    np.testing.assert_allclose(curve.mean(axis=1), width, rtol=1e-9)
    np.testing.assert_allclose(curve.max(axis=1), 1.0, rtol=1e-9)
    middle = (np.arange(4096) + 0.5) / 4096
    np.testing.assert_allclose((curve * middle).mean(axis=1) / width, centre, atol=1e-6)


def test_the_frequency_of_pulses_changes_and_their_number_is_that_of_the_period():
    n = 200
    windows = _simulate.Windows.of([np.array([[0.0, 1e4]])] * n)
    curve, period, _ = _challenge_shapes.period_change(np.random.default_rng(4), windows)
    above = curve > curve.mean(axis=1, keepdims=True)
    rises = np.diff(above.astype(int), axis=1) == 1
    early, late = (part.sum(axis=1) for part in np.split(rises[:, :4094], 2, axis=1))
    ratio = np.maximum(early, late) / np.maximum(np.minimum(early, late), 1)
    assert np.median(ratio) > 1.3
    total = rises.sum(axis=1) * period / 1e4        # one or two pulses per cycle
    assert np.mean((np.abs(total - 1) < 0.3) | (np.abs(total - 2) < 0.4)) > 0.85


def test_oscillations_are_damped_around_their_period():
    windows = _simulate.Windows.of([np.array([[0.0, 1e4]])] * 200)
    curve, period, _ = _challenge_shapes.quasi_periodic(np.random.default_rng(2), windows)
    power = np.abs(np.fft.rfft(np.log(curve), axis=1)[:, 1:]) ** 2
    frequency = np.arange(1, power.shape[1] + 1) / 1e4
    centre = (power * frequency).sum(axis=1) / power.sum(axis=1)
    assert np.median(centre * period) == pytest.approx(1.0, abs=0.15)
    spread = np.sqrt((power * (frequency - centre[:, None]) ** 2).sum(axis=1) / power.sum(axis=1))
    assert np.median(spread * period) > 0.03


# ---- the same sources through several instruments ---------------------------------------------
@pytest.fixture(scope="module")
def seen():
    return simulate_through(60, 8, ["ACIS-S", "ACIS-S", "EPIC-pn", "XRT"], counts=(2e3, 2e4),
                            classes=["unobscured AGN", "coronal star", "dipping LMXB"])


def test_the_truth_is_the_same_through_every_instrument(seen):
    assert list(seen) == ["ACIS-S", "ACIS-S again", "EPIC-pn", "XRT"]
    own = {"instrument", "counts", "source_counts", "background_counts", "pileup", "hardness"}
    first = seen["ACIS-S"]
    for name, sources in seen.items():
        assert set(sources.truth["instrument"]) == {name.removesuffix(" again")}
        for column in set(first.truth.colnames) - own:
            np.testing.assert_array_equal(sources.truth[column], first.truth[column])
        np.testing.assert_array_equal(sources.photons.start, first.photons.start)
        np.testing.assert_array_equal(sources.photons.duration, first.photons.duration)
        np.testing.assert_allclose(sources.photons.exposed, 1.0, rtol=1e-6)
        assert [ev.instr for ev in sources.event_lists[:2]] == [name.removesuffix(" again")] * 2


def test_counts_follow_from_the_effective_area(seen):
    energy = np.geomspace(0.5, 8.0, 4001)
    middle, width = np.sqrt(energy[1:] * energy[:-1]), np.diff(energy)
    truth = seen["ACIS-S"].truth
    for i in np.flatnonzero(truth["class"] == "unobscured AGN"):
        photons = middle ** -truth["photon_index"][i] * width * np.exp(
            -truth["n_h"][i].value * _spectra.cross_section(middle))
        expected = [(photons * effective_area(name, middle)).sum()
                    for name in ("EPIC-pn", "ACIS-S")]
        got = (seen["EPIC-pn"].truth["source_counts"][i] / truth["source_counts"][i]).value
        assert got == pytest.approx(expected[0] / expected[1], rel=0.06)


def test_light_curves_are_the_same_and_photons_are_not(seen):
    first, again, other = (seen[name] for name in ("ACIS-S", "ACIS-S again", "XRT"))
    assert not np.array_equal(first.photons.n_photons, again.photons.n_photons)
    variable = np.flatnonzero(first.truth["fractional_variability"] > 0.1)
    assert len(variable) > 20
    for i in variable[:10]:
        curves = []
        for sources in (first, again, other):
            truth = sources.truth
            background = (truth["background_counts"] / truth["exposure"])[i].value
            curve = _rate(sources, i) - background      # 0.5-8 keV: a little too much
            curves.append(curve / curve.mean())
        np.testing.assert_allclose(curves[0], curves[1], atol=0.02)
        # Flares and dips have spectra of their own, so shapes agree only about.
        assert np.corrcoef(curves[0], curves[2])[0, 1] > 0.9
    # Independent Poisson numbers: their differences scatter as they should.
    total = [s.truth["source_counts"].value + s.truth["background_counts"].value
             for s in (first, again)]
    pull = ((first.photons.n_photons - total[0]) - (again.photons.n_photons - total[1])) / np.sqrt(
        total[0] + total[1])
    assert 0.7 < pull.std() < 1.3


@pytest.mark.parametrize("arguments, words", [
    ({"instruments": "ACIS-S"}, "sequence"), ({"instruments": ["HRC"]}, "unknown instruments"),
    ({"classes": "background only"}, "background"), ({"counts": "many"}, "not known"),
    ({"duration": (5, 1)}, "low <= high")])
def test_wrong_arguments_of_through_say_what_is_right(arguments, words):
    with pytest.raises(ValueError, match=words):
        simulate_through(2, 1, **arguments)


def test_wrong_arguments_of_the_challenge_say_what_is_right():
    with pytest.raises(ValueError, match="not known"):
        simulate_challenge(2, 1, counts="many")
    with pytest.raises(ValueError, match="at least 1"):
        simulate_challenge(0, 1)


# ---- extremes ---------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [100.0, 5e5])
def test_windows_have_the_length_asked_for(length):
    photons = simulate_photons(40, 2, (50, 100), instruments="EPIC-pn",
                               duration=(length, length))
    np.testing.assert_allclose(photons.duration, length)
    # In a low orbit, the last visit may end up to two revolutions before the window would.
    orbits = simulate_photons(40, 2, (50, 100), instruments="NICER", duration=(length, length))
    assert np.all(orbits.duration > length - 1.2e4) and np.all(orbits.duration <= length)


def test_sources_of_one_photon():
    population = simulate_population(60, 4, counts=(1, 1), summaries=0)
    assert population.photons.n_photons.mean() == pytest.approx(1.0, abs=0.5)
    assert set(population.photons.n_photons) >= {0, 1, 2}
    assert len(population.event_lists) == 60
    assert np.isfinite(population.true_log_rates()[BAND_OF_CHANNEL[population.photons.channel]
                                                   < 3]).all()


def test_a_source_of_a_million_photons():
    photons = simulate_photons(1, 1, (1e6, 1e6), classes="black-hole transient")
    assert photons.n_photons[0] == pytest.approx(1e6, rel=0.01)
    assert photons.counts().sum() == photons.n_photons[0]
    assert np.all((photons.phase >= 0) & (photons.phase <= 1))
