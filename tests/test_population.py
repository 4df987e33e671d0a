import astropy.units as u
import numpy as np
import pytest
from scipy import stats

from stingray_align.datasets import CLASSES, simulate_photons, simulate_population
from stingray_align.datasets import _shapes, _simulate, _spectra
from stingray_align.instruments import INSTRUMENTS, effective_area
from stingray_align.photons import CHANNEL_EDGES, Photons, exposure_in_bins
from stingray_align.text.slots import CLASSES as SLOT_CLASSES


@pytest.fixture(scope="module")
def population():
    """Enough bright sources of every class for statements about each of them."""
    return simulate_population(1120, 42, counts="bright")


# ---- the population as a whole ----------------------------------------------------------------
def test_classes_are_those_of_the_text_slots_and_have_references():
    assert tuple(CLASSES) == SLOT_CLASSES
    for name, entry in CLASSES.items():
        assert entry.name == name
        assert entry.reference
        assert sum(shape.weight for shape in entry.shapes) == pytest.approx(1.0)


def test_every_class_is_present_about_equally_often(population):
    frequency = np.array([(population.truth["class"] == name).sum() for name in CLASSES])
    assert stats.chisquare(frequency).pvalue > 1e-3


def test_same_arguments_give_the_same_sources_and_another_seed_does_not():
    first, again, other = (simulate_population(30, seed) for seed in (5, 5, 6))
    for name in first.truth.colnames:
        np.testing.assert_array_equal(first.truth[name], again.truth[name])
    np.testing.assert_array_equal(first.photons.phase, again.photons.phase)
    assert not np.array_equal(first.photons.start, other.photons.start)


def test_first_sources_do_not_depend_on_how_many_follow():
    few = simulate_photons(_simulate.CHUNK, 3, counts=(1, 20))
    many = simulate_photons(_simulate.CHUNK + 40, 3, counts=(1, 20))
    assert len(many) == _simulate.CHUNK + 40
    np.testing.assert_array_equal(few.phase, many[:_simulate.CHUNK].phase)
    np.testing.assert_array_equal(few.background, many[:_simulate.CHUNK].background)


def test_photons_alone_are_those_of_the_population():
    alone = simulate_photons(40, 9, "csc")
    photons = simulate_population(40, 9, counts="csc").photons
    for name in ("offsets", "phase", "channel", "start", "duration", "exposed", "background",
                 "instrument"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(photons, name))


@pytest.mark.parametrize("counts, quantiles", [
    ("csc", {5: 13, 50: 41, 95: 297}),
    ("bright", {0: 20, 50: 245, 100: 3000}),
    ((5, 50), {0: 5, 50: np.sqrt(250), 100: 50}),
])
def test_expected_counts_have_the_promised_quantiles(counts, quantiles):
    drawn = _simulate.draw_counts(np.random.default_rng(1), counts, 100_000)
    for percent, value in quantiles.items():
        assert np.percentile(drawn, percent) == pytest.approx(value, rel=0.03)


def test_catalogue_counts_reach_far_and_end():
    drawn = _simulate.draw_counts(np.random.default_rng(2), "csc", 300_000)
    assert 3e4 < drawn.max() <= 1e5
    # No jump where the body meets the tail.
    near = _simulate._catalogue_counts(np.array([0.95 - 1e-6, 0.95, 0.95 + 1e-6]))
    np.testing.assert_allclose(near, 297.0, rtol=1e-3)


def test_training_counts_hold_single_photons_and_the_brightest():
    drawn = _simulate.draw_counts(np.random.default_rng(3), "training", 50_000)
    assert drawn.min() < 2 and drawn.max() > 5e4
    assert 0.02 < np.mean(drawn < 10) < 0.10


def test_instruments_follow_their_weights():
    default = simulate_photons(1000, 4, counts=(1, 5)).instrument
    acis = np.char.startswith(default, "ACIS").mean()
    assert acis == pytest.approx(0.6, abs=0.05)
    assert set(default) == set(INSTRUMENTS)
    assert set(simulate_photons(20, 4, counts=(1, 5), instruments="NICER").instrument) == {"NICER"}
    mixed = simulate_photons(400, 4, counts=(1, 5), instruments={"XRT": 3, "EPIC-pn": 1})
    assert (mixed.instrument == "XRT").mean() == pytest.approx(0.75, abs=0.08)


@pytest.mark.parametrize("arguments, words", [
    ({"n": 0}, "at least 1"), ({"n": 2.5}, "at least 1"),
    ({"counts": "many"}, "csc"), ({"counts": (5, 2)}, "low <= high"),
    ({"counts": 7}, "two numbers"),
    ({"classes": "blazar"}, "unknown classes"), ({"classes": []}, "unknown classes"),
    ({"instruments": "HRC"}, "unknown instruments"), ({"summaries": -1}, "how many"),
    ({"duration": (200, 100)}, "low <= high"), ({"duration": 100}, "two numbers"),
])
def test_wrong_arguments_say_what_is_right(arguments, words):
    with pytest.raises(ValueError, match=words):
        simulate_population(**({"n": 3, "seed": 1} | arguments))


def test_truth_has_units_and_descriptions(population):
    truth = population.truth
    assert truth["flux"].unit == u.erg / u.s / u.cm**2
    assert truth["n_h"].unit.is_equivalent(u.cm**-2)
    assert truth["exposure"].unit == u.s and truth["kT"].unit == u.keV
    assert all(truth[name].info.description for name in truth.colnames)
    assert truth["name"][3] == "SIM-42-3"
    facts = population.facts(3)
    assert type(facts["flux"]) is float and type(facts["class"]) is str
    assert type(facts["soft"]) is bool


def test_iterating_unpacks_into_events_truth_and_summaries():
    population = simulate_population(3, 1, counts=(5, 20), summaries=2)
    events, truth, summaries = population
    assert len(events) == len(truth) == len(summaries) == len(population) == 3
    assert [len(texts) for texts in summaries] == [2, 2, 2]
    assert summaries[0][0].text != summaries[0][1].text
    assert simulate_population(3, 1, counts=(5, 20)).summaries[2] == summaries[2][0]


# ---- photons and exposure ---------------------------------------------------------------------
def test_no_photon_lies_outside_the_good_times(population):
    for i, events in enumerate(population.event_lists[:300]):
        inside = (events.time[:, None] >= events.gti[:, 0]) & (
            events.time[:, None] <= events.gti[:, 1])
        assert inside.any(axis=1).all()
        assert np.all(np.diff(events.time) >= 0)
        assert np.all(np.diff(events.gti.ravel()) > 0)
        length = np.sum(events.gti[:, 1] - events.gti[:, 0])
        assert length == pytest.approx(population.truth["exposure"][i].value, rel=1e-6)
        assert np.all((events.energy >= 0.3) & (events.energy < 10.0))


def test_exposed_fraction_is_that_of_the_good_times(population):
    photons = population.photons
    gaps = 0
    for i, events in enumerate(population.event_lists[:150]):
        gaps += len(events.gti) > 1
        seconds = exposure_in_bins(events.gti - photons.start[i],
                                   np.linspace(0, photons.duration[i], 513))
        np.testing.assert_allclose(photons.exposed[i], seconds * 512 / photons.duration[i],
                                   atol=1e-4)
    assert gaps > 10


def test_windows_are_between_100_s_and_500_ks(population):
    duration = population.truth["duration"].value
    assert duration.min() >= 99 and duration.max() <= 5.1e5
    assert 0.75 < np.mean((duration > 1e3) & (duration < 2e5)) < 0.95


def test_event_lists_and_photons_agree(population):
    for i in range(0, 200, 5):
        events = population.event_lists[i]
        seen = Photons.from_events(events)
        mine = population.photons[i]
        assert seen.n_photons[0] == mine.n_photons[0] == population.truth["counts"][i].value
        assert seen.instrument[0] == mine.instrument[0]
        np.testing.assert_array_equal(np.sort(seen.channel), np.sort(mine.channel))
        np.testing.assert_allclose(seen.background, mine.background, rtol=1e-4)
        np.testing.assert_allclose(seen.duration, mine.duration, rtol=1e-9)
        frame = INSTRUMENTS[seen.instrument[0]].frame_time / mine.duration[0]
        np.testing.assert_allclose(seen.phase, mine.phase, atol=frame + 1e-6)


def test_camera_frames_quantise_the_times():
    population = simulate_population(5, 2, counts=(200, 500), instruments="ACIS-I",
                                     classes="cluster core")
    for events in population.event_lists:
        frames = (events.time - events.gti[0, 0]) / 3.24 - 0.5
        whole = events.time < events.gti[0, 1] - 3.24
        np.testing.assert_allclose(frames[whole], np.round(frames[whole]), atol=1e-4)


def test_drawn_counts_scatter_around_the_expected_ones(population):
    truth = population.truth
    expected = (truth["source_counts"] + truth["background_counts"]).value
    pull = (truth["counts"].value - expected) / np.sqrt(expected)
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
    assert pull.std() == pytest.approx(1.0, abs=0.08)


# ---- the true rate ----------------------------------------------------------------------------
def test_photons_follow_the_true_rate_in_time_and_band(population):
    photons = population.photons
    band = np.searchsorted([1.2, 2.0, 7.0], CHANNEL_EDGES[:-1] + 1e-6)[photons.channel]
    counts = np.zeros((len(population), 16, 3))
    keep = band < 3
    np.add.at(counts, (photons.source_index[keep], (photons.phase[keep] * 16).astype(int),
                       band[keep]), 1)
    expected = population.true_counts_grid().reshape(len(population), 16, 32, 3).sum(axis=2)
    assert np.all(counts[expected < 1e-9] == 0)
    good = expected > 5
    pull = (counts[good] - expected[good]) / np.sqrt(expected[good])
    assert good.sum() > 10_000
    assert np.mean(pull**2) == pytest.approx(1.0, abs=0.03)
    assert abs(pull.mean()) < 0.04


def test_true_rate_integrates_to_the_expected_counts(population):
    for i in (0, 700, 1100):
        photons, truth = population.photons[i], population.truth[i]
        times = photons.start[0] + (np.arange(4096) + 0.5) / 4096 * photons.duration[0]
        rate = population.true_rate(i, times)
        exposure = np.repeat(photons.exposed[0], 8) * photons.duration[0] / 4096
        counts = (rate * exposure[:, None]).sum()
        grid = population.true_counts_grid([i])
        assert counts == pytest.approx(grid.sum(), rel=0.02)
        in_three_bands = (truth["source_counts"] + truth["background_counts"]).value
        assert 0.5 * in_three_bands < counts <= 1.001 * in_three_bands


def test_true_rate_is_zero_outside_the_window(population):
    start, duration = population.photons.start[0], population.photons.duration[0]
    outside = population.true_rate(0, [start - 1.0, start + 1.01 * duration])
    assert np.all(outside == 0)
    assert np.all(population.true_rate(0, [start + 0.5 * duration]) > 0)


def test_log_rates_of_photons_are_those_of_true_rate(population):
    logs = population.true_log_rates()
    photons = population.photons
    for i in (1, 600):
        mine = photons[i]
        rate = population.true_rate(
            i, mine.start[0] + mine.phase.astype(float) * mine.duration[0])
        band = np.searchsorted([1.2, 2.0, 7.0], CHANNEL_EDGES[:-1] + 1e-6)[mine.channel]
        expected = np.append(rate, np.full((len(rate), 1), np.nan), axis=1)
        expected = expected[np.arange(len(band)), band]
        got = logs[photons.offsets[i]:photons.offsets[i + 1]]
        same = np.isclose(got, np.log(expected), atol=1e-4, equal_nan=True)
        assert same.mean() > 0.99       # float32 phases may fall into the neighbouring cell
    with pytest.raises(ValueError, match="sources given"):
        population.true_log_rates(photons[:3])


def test_oracle_beats_a_constant_rate_where_sources_vary(population):
    variable = np.flatnonzero(population.truth["fractional_variability"] > 0.5)
    grid = population.true_counts_grid(variable)
    photons = population.photons[variable]
    logs = population.true_log_rates()
    for row, i in enumerate(variable[:60]):
        mine = logs[population.photons.offsets[i]:population.photons.offsets[i + 1]]
        mine = mine[np.isfinite(mine)]
        exposure = population.truth["exposure"][i].value
        constant = np.log(grid[row].sum(axis=0) / exposure)
        band = np.searchsorted([1.2, 2.0, 7.0], CHANNEL_EDGES[:-1] + 1e-6)[photons[row].channel]
        gain = mine.sum() - constant[band[band < 3]].sum()
        assert gain > -4.0


# ---- truth columns ----------------------------------------------------------------------------
def test_flux_counts_area_and_spectrum_fit_together():
    # A power law without absorption to speak of, so that the flux can be had on paper.
    population = simulate_population(60, 8, counts=(5e3, 2e4), classes="unobscured AGN",
                                     instruments="EPIC-pn")
    truth = population.truth
    energy = np.geomspace(0.5, 8.0, 4001)
    middle, width = np.sqrt(energy[1:] * energy[:-1]), np.diff(energy)
    for row in truth:
        photons = middle ** -row["photon_index"] * width * np.exp(
            -row["n_h"].value * _spectra.cross_section(middle))
        rate = (photons * effective_area("EPIC-pn", middle)).sum()
        flux = (photons * middle)[middle < 7].sum() * 1.602e-9
        expected = row["source_counts"].value / row["exposure"].value / rate * flux
        assert row["flux"].value == pytest.approx(expected, rel=0.06)


def test_hardness_is_that_of_the_photons():
    population = simulate_population(28, 3, counts=(5e4, 1e5), instruments="ACIS-S")
    truth, photons = population.truth, population.photons
    middle = np.sqrt(CHANNEL_EDGES[1:] * CHANNEL_EDGES[:-1])[photons.channel]
    for i in np.flatnonzero(truth["source_counts"] > 0):
        mine = middle[photons.offsets[i]:photons.offsets[i + 1]]
        hard, soft = ((mine > 2) & (mine < 7)).sum(), (mine < 2).sum()
        assert (hard - soft) / (hard + soft) == pytest.approx(truth["hardness"][i], abs=0.03)


def test_numbers_are_given_where_the_spectrum_has_them(population):
    truth = population.truth
    for name, entry in CLASSES.items():
        mine = truth[truth["class"] == name]
        assert np.all(np.isfinite(mine["photon_index"]) == ("power law" in entry.spectrum))
        assert np.all(np.isfinite(mine["kT"].value) == (entry.kt is not None))
        assert np.all(np.isfinite(mine["n_h"].value) == (name != "background only"))
        if entry.kt:
            assert mine["kT"].value.min() >= entry.kt[0] and mine["kT"].value.max() <= entry.kt[1]


def test_background_only_has_no_source(population):
    truth = population.truth[population.truth["class"] == "background only"]
    assert np.all(truth["source_counts"] == 0)
    assert np.all(truth["background_counts"] > 0)
    assert np.all(np.isnan(truth["flux"]))


def test_flags_follow_their_definitions(population):
    truth = population.truth
    np.testing.assert_array_equal(truth["variable"], truth["fractional_variability"] > 0.1)
    np.testing.assert_array_equal(truth["absorbed"], truth["n_h"].value >= 1)
    np.testing.assert_array_equal(truth["soft"], truth["hardness"] < -0.75)
    known = np.isfinite(truth["period"].value)
    np.testing.assert_array_equal(
        truth["periodic"], known & (truth["period"] <= truth["duration"] / 2))


def _exposed_rate(population, i):
    photons = population.photons[i]
    times = photons.start[0] + (np.arange(4096) + 0.5) / 4096 * photons.duration[0]
    rate = population.true_rate(i, times).sum(axis=1)
    return rate[np.repeat(photons.exposed[0] > 0.99, 8)]


def test_flags_are_true_to_the_light_curve(population):
    truth = population.truth
    for i in range(len(truth)):
        rate = _exposed_rate(population, i)
        background = truth["background_counts"][i] / truth["exposure"][i]
        source = rate if truth["source_counts"][i] == 0 else rate - 0.98 * background.value
        if truth["time_shape"][i] == "constant":
            assert source.std() < 0.05 * source.mean()
        if truth["flaring"][i] and len(rate) > 3000 and truth["time_shape"][i] != "transient":
            assert source.max() > 1.25 * np.percentile(source, 2)
        if truth["eclipsing"][i] and len(rate) > 3900:
            assert source.min() < 0.7 * np.median(source) or np.median(source) < 0.2 * source.max()


def test_periodic_sources_show_their_period():
    population = simulate_population(60, 12, counts="bright", instruments="EPIC-MOS",
                                     classes=["heartbeat ULX", "intermediate polar", "polar"])
    found = tried = 0
    for i, row in enumerate(population.truth):
        cycles = (row["duration"] / row["period"]).value
        if not (5 < cycles < 200) or row["time_shape"] == "red noise":
            continue
        times = population.photons.start[i] + (np.arange(4096) + 0.5) / 4096 * row[
            "duration"].value
        rate = population.true_rate(i, times).sum(axis=1)
        power = np.abs(np.fft.rfft(rate - rate.mean())) ** 2
        peak = 3 + np.argmax(power[3:])
        harmonic = peak / cycles
        tried += 1
        found += min(abs(harmonic - 1), abs(harmonic - 2)) < 0.25
    assert tried > 25
    assert found > 0.8 * tried


def test_variability_is_the_rms_of_the_true_rate(population):
    truth = population.truth
    close = []
    for i in np.flatnonzero((truth["background_counts"] < 0.01 * truth["source_counts"])
                            & (truth["exposure"] > 0.999 * truth["duration"])):
        rate = _exposed_rate(population, i)
        # The column covers 0.5-8 keV, the rate 0.5-7 keV.
        close.append(np.isclose(rate.std() / rate.mean(), truth["fractional_variability"][i],
                                rtol=0.05, atol=0.02))
    assert len(close) > 100 and np.mean(close) > 0.97


def test_dips_harden_and_flares_of_stars_too():
    population = simulate_population(60, 1, counts=(2e3, 3e3), instruments="EPIC-MOS",
                                     classes=["dipping LMXB", "flaring young star"])
    higher = []
    for i, row in enumerate(population.truth):
        rate = population.true_rate(i, population.photons.start[i] + np.linspace(
            0.01, 0.99, 999) * population.photons.duration[i])
        total, hardness = rate.sum(axis=1), rate[:, 2] / rate.sum(axis=1)
        if row["fractional_variability"] > 0.2 and row["background_counts"] < 0.05 * row["counts"]:
            special = np.argmin(total) if row["time_shape"] == "dips" else np.argmax(total)
            usual = np.argmax(total) if row["time_shape"] == "dips" else np.argmin(total)
            higher.append(hardness[special] > hardness[usual])
    assert len(higher) > 20 and np.mean(higher) > 0.9


def test_background_estimate_scatters_like_an_annulus_and_is_sometimes_missing():
    population = simulate_population(1500, 6, counts=(100, 1000))
    estimate, truth = population.photons.background.sum(axis=1), population.truth
    given = estimate > 0
    assert np.mean(~given) == pytest.approx(0.3, abs=0.05)
    expected = truth["background_counts"].value[given]
    enough = expected > 3
    # Variance of a count in a region 10-16 times larger, scaled down.
    pull = (estimate[given] - expected)[enough] / np.sqrt(expected[enough] / 12.7)
    assert abs(pull.mean()) < 0.15
    assert pull.std() == pytest.approx(1.0, abs=0.1)


# ---- spectra and shapes -----------------------------------------------------------------------
def test_energy_bins_nest_in_channels():
    for edge in CHANNEL_EDGES:
        assert np.min(np.abs(_spectra.EDGES - edge)) < 1e-9
    for channel, (low, high) in enumerate(zip(CHANNEL_EDGES[:-1], CHANNEL_EDGES[1:])):
        mine = _spectra.ENERGY[_spectra.CHANNEL_OF_BIN == channel]
        assert len(mine) and mine.min() > low and mine.max() < high


def test_absorption_is_that_of_morrison_and_mccammon():
    # Their figure 1: sigma E^3 is about 120 + 169 - 48 at 1 keV, in 1e-24 cm2 keV3.
    assert _spectra.cross_section(np.array([1.0]))[0] == pytest.approx(2.422, rel=1e-3)
    energy = np.linspace(0.3, 9.9, 5000)
    value = _spectra.cross_section(energy)
    steps = np.abs(np.diff(np.log(value)))
    edges = [0.532, 0.707, 0.867, 1.303, 1.840, 2.471, 3.210, 4.038, 7.111, 8.331, 0.400]
    far = np.min(np.abs(energy[:-1, None] - edges), axis=1) > 0.003
    assert steps[far].max() < 0.025
    opaque = _spectra.transmission(np.array([1.0, 10.0]))
    assert np.all(opaque[1] <= opaque[0])


@pytest.mark.parametrize("model, low, high", [
    (lambda v: _spectra.power_law(-v, np.full(len(v), np.inf)), -2.5, -1.5),
    (_spectra.blackbody, 0.1, 0.3), (_spectra.disc_blackbody, 0.2, 1.0),
    (lambda v: _spectra.plasma(v, np.ones(len(v))), 0.5, 5.0)])
def test_spectra_are_normalised_and_harden(model, low, high):
    photons = model(np.array([low, high]))
    np.testing.assert_allclose(photons[:, _spectra.IN_BAND].sum(axis=1), 1.0)
    mean = photons[:, _spectra.IN_BAND] @ _spectra.ENERGY[_spectra.IN_BAND]
    assert mean[1] > mean[0]


@pytest.mark.parametrize("period", [0.01, 3.0, 90.0, 1e3, 3e5])
def test_folding_conserves_the_mean_and_averages_fast_modulation(period):
    profile = _shapes.sine_profile(np.array([0.8]))
    curve = _shapes.folded(profile, np.array([period]), np.array([9e3]), np.array([0.3]))[0]
    fine = (np.arange(4096 * 16) + 0.5) / (4096 * 16) * 9e3 / period + 0.3
    expected = (1 + 0.8 * np.cos(2 * np.pi * fine)).reshape(4096, 16).mean(axis=1)
    if period < 1:      # far below a cell of 2.2 s
        expected = 1.0
    np.testing.assert_allclose(curve, expected, atol=0.02)


def test_flares_keep_their_fluence_when_shorter_than_a_cell():
    duration = np.array([4e4, 4e4])
    rise, decay = np.array([0.01, 300.0]), np.array([1.0, 2000.0])
    curve = _shapes.flare(duration, np.array([5e3, 5e3]), rise, decay)
    time = np.arange(0, 3e4, 0.01)
    for k in range(2):
        shape = -np.expm1(-time / rise[k]) * np.exp(-time / decay[k])
        fluence = shape.sum() * 0.01 / shape.max()
        assert curve[k].sum() * 4e4 / 4096 == pytest.approx(fluence, rel=0.02)
    assert curve[1].max() == pytest.approx(1.0, abs=0.01)


def test_red_noise_has_mean_one_and_the_wanted_slope():
    rng = np.random.default_rng(1)
    slope = np.full(200, 1.5)
    noise = _shapes.red_noise(rng, slope, np.full(200, 0.1))
    np.testing.assert_allclose(noise.mean(axis=1), 1.0, rtol=1e-4)
    taper = np.hanning(4096)
    power = (np.abs(np.fft.rfft(np.log(noise) * taper, axis=1)) ** 2).mean(axis=0)
    frequency = np.arange(len(power))
    fit = np.polyfit(np.log(frequency[8:400]), np.log(power[8:400]), 1)
    assert -fit[0] == pytest.approx(1.5, abs=0.1)
    assert 0.05 < noise.std(axis=1).mean() < 0.12


def test_true_spectra_are_those_of_the_photons():
    population = simulate_population(60, seed=5, counts="bright", summaries=0)
    truth, counts = population.true_spectra(), population.photons.counts().sum(axis=1)
    expected = (population.truth["source_counts"] + population.truth["background_counts"]).value
    assert truth.shape == (60, 20)
    np.testing.assert_allclose(truth.sum(axis=1), expected, rtol=1e-3)
    pull = (counts - truth)[truth > 5] / np.sqrt(truth[truth > 5])
    assert abs(pull.mean()) < 0.2 and abs(pull.std() - 1) < 0.1
