import warnings

import numpy as np
import pytest
import stingray
import torch
from astropy import units as u
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from small_sources import write_arf

import stingray_align as sa
from stingray_align.autodecoder import draw_vectors, embed_vectors
from stingray_align.autodecoder.areas import seen_through
from stingray_align.errors import DomainShiftWarning, EventDataError, EventDataWarning
from stingray_align.instruments import effective_area
from stingray_align.photons import CHANNEL_EDGES, Photons

LATE = 7.3e8  # mission times of today's telescopes


def make(times, energies, gti, cls=sa.EventList, **kwargs):
    ev = cls(np.asarray(times, dtype=float), energy=np.asarray(energies, dtype=float),
             gti=None if gti is None else np.asarray(gti, dtype=float), mission="chandra",
             instr="ACIS", **kwargs)
    return ev


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(0)
    times = np.sort(np.concatenate([rng.uniform(0, 8e3, 250), rng.uniform(1.2e4, 1.4e4, 250)]))
    return make(LATE + times, rng.uniform(0.5, 7.5, 500),
                [[LATE, LATE + 8e3], [LATE + 9e3, LATE + 2e4]])


@pytest.fixture(scope="module")
def embedding(events):
    return sa.embed(events)


def test_threads_share_the_sources_and_change_nothing():
    photons = sa.datasets.simulate_photons(600, seed=3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = embed_vectors(photons)
        torch.set_num_threads(3)
        assert_array_equal(embed_vectors(photons), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    photons = sa.datasets.simulate_photons(600, seed=3)
    model = sa.PoissonAutodecoder.pretrained()

    def infer(photons):
        raise MemoryError("none left")

    monkeypatch.setattr(model, "infer", infer)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(MemoryError, match="none left"):
            embed_vectors(photons, model)
    finally:
        torch.set_num_threads(before)


def test_one_list_and_a_sequence_and_the_method_agree(events, embedding):
    stock = stingray.EventList(events.time, energy=events.energy, gti=events.gti,
                               mission="chandra", instr="ACIS")
    for other in (events.embed(), sa.embed(stock), sa.embed([stock, events])[1]):
        assert_allclose(other.vector, embedding.vector, atol=1e-4)
    assert sa.embed([]) == []


def test_vector_has_a_name_and_a_unit_for_each_entry(embedding):
    names = embedding.feature_names
    assert len(names) == len(set(names)) == len(embedding.vector) == len(embedding.feature_units)
    assert embedding.vector.dtype == np.float32
    assert_allclose(embedding.vector[names.index("log_counts")], np.log10(500.5), rtol=1e-6)
    assert_allclose(embedding.vector[names.index("log_exposure")], np.log10(1.9e4), rtol=1e-5)
    latent = [embedding.vector[names.index(f"latent_{i}")] for i in range(96)]
    assert_allclose(latent, embedding._inferred.latent[0], atol=1e-5)


def test_covariance_is_one(embedding):
    covariance = embedding.covariance
    assert covariance.shape == (96, 96)
    assert_allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_rate_integrates_to_the_counts(events, embedding):
    lc = embedding.to_lightcurve(50 * u.s)
    inside = ((lc.time < LATE + 8e3) | (lc.time > LATE + 9e3))
    assert_allclose(lc.counts[inside].sum(), 500.5, rtol=0.01)
    spectrum = embedding.spectrum()
    assert_allclose((spectrum.flux.value * np.diff(CHANNEL_EDGES)).sum(), 500.5, rtol=1e-4)
    assert spectrum.flux.unit == u.ct / u.keV


def test_rate_shows_the_flare_and_is_split_by_energy(embedding):
    quiet, loud = embedding.rate(LATE + np.array([1.8e4, 1.3e4]))
    assert loud > 3 * quiet
    times = LATE + np.linspace(0, 2e4, 50)
    parts = embedding.rate(times, (0.5, 3)) + embedding.rate(times, (3, 8) * u.keV)
    assert_allclose(parts, embedding.rate(times), rtol=1e-6)
    assert parts.unit == 1 / u.s


def test_interval_holds_the_rate_and_grows_with_its_level(embedding):
    times = LATE + np.linspace(0, 2e4, 40)
    rate = embedding.rate(times)
    low, high = embedding.rate_interval(times, 0.68)
    lower, higher = embedding.rate_interval(times, 0.95)
    assert ((low < rate) & (rate < high)).mean() > 0.7
    assert (lower <= low).all() and (higher >= high).all()
    assert (lower >= 0).all()


def test_intervals_are_wide_where_nothing_was_exposed():
    rng = np.random.default_rng(2)
    times = np.sort(rng.choice([0, 6e4], 20_000) + rng.uniform(0, 4e4, 20_000))
    found = make(times, rng.uniform(0.6, 6, 20_000), [[0, 4e4], [6e4, 1e5]]).embed()
    gap, seen = np.linspace(4.5e4, 5.5e4, 5), np.linspace(1e4, 3e4, 5)
    lower, upper = found.rate_interval(gap, 0.95)
    assert (lower < found.rate(gap)).all() and (found.rate(gap) < upper).all()
    assert (upper - lower).min() > 1.5 * np.subtract(*found.rate_interval(seen, 0.95)[::-1]).max()


def test_intervals_hold_the_rate_where_nothing_was_exposed():
    population = sa.datasets.simulate_population(250, 777, counts="bright", summaries=0)
    photons, keep = population.photons, np.ones(512, dtype=bool)
    keep[200:300] = False
    cut = photons.select(keep[photons.time_bin]).replace(exposed=photons.exposed * keep)
    chosen = np.flatnonzero((photons.exposed.min(axis=1) > 0.999) & (cut.n_photons > 0))
    lower, upper = sa.PoissonAutodecoder.pretrained().quantiles(
        cut[chosen], [0.025, 0.975])["rate"].transpose(2, 0, 1)
    inside, covered = np.arange(205, 300, 10), []
    for i, low, high in zip(chosen, lower, upper):
        start = population.event_lists[i].gti[0, 0]
        times = start + (inside + 0.5) / 512 * photons.duration[i]
        true = population.true_rate(i, times).sum(axis=1)
        covered.append(((low[inside] < true) & (true < high[inside])).mean())
    assert np.mean(covered) > 0.9
    width = upper - lower
    assert np.median(width[:, inside].mean(axis=1) / width[:, keep].mean(axis=1)) > 1.1


def test_good_time_intervals_shorter_than_the_bins_are_no_variability():
    rng = np.random.default_rng(3)
    number, inside = rng.integers(0, 1000, 40_000), rng.uniform(0, 6, 40_000)
    found = make(np.sort(60 * number + inside), rng.uniform(0.6, 6, 40_000),
                 [[60 * k, 60 * k + 6] for k in range(1000)]).embed()
    lower, upper = found.rate_interval(60 * np.arange(0, 1000, 50) + 3, 0.95)
    held = (lower.value < 40_000 / 6000) & (40_000 / 6000 < upper.value)
    assert held.mean() > 0.9 and (upper > 1.02 * lower).all()
    with pytest.raises(ValueError, match="no eclipse"):
        found.edit(remove="eclipse")


def test_intervals_of_the_whole_band_are_those_of_its_draws(embedding):
    times = LATE + np.linspace(0, 2e4, 40)
    ends = np.log([end.value for end in embedding.rate_interval(times, 0.8)])
    drawn = np.log([end.value for end in
                    embedding.rate_interval(times, 0.8, (0.5, 8), n_draws=3000)])
    width = np.diff(drawn, axis=0)
    assert np.abs((ends - drawn) / width).max() < 0.1
    assert np.abs(((ends - drawn) / width).mean(axis=1)).max() < 0.02


def test_log_likelihood_is_the_poisson_process_one(events, embedding):
    by_hand = 0.0
    inside = (events.energy >= 0.5) & (events.energy < 8)
    for time, energy in zip(events.time[inside], events.energy[inside]):
        k = np.searchsorted(CHANNEL_EDGES, energy, side="right") - 1
        low, high = CHANNEL_EDGES[k:k + 2]
        by_hand += np.log(embedding.rate(time, (low, high)).value[0] / (high - low))
    assert_allclose(embedding.log_likelihood(events), by_hand - 500.5, rtol=1e-4)


def test_log_likelihood_follows_the_other_exposure(events, embedding):
    first = make([], [], [[LATE + 100, LATE + 5100]])
    expected = embedding.to_lightcurve(1.0)
    inside = (expected.time > LATE + 100) & (expected.time < LATE + 5100)
    assert_allclose(embedding.log_likelihood(first), -expected.counts[inside].sum(), rtol=1e-3)
    with pytest.raises(EventDataError, match="apply GTIs inside"):
        embedding.log_likelihood(make([], [], [[LATE - 50, LATE + 50]]))


def test_right_hypothesis_wins(events, embedding):
    shuffled = make(np.sort(np.random.default_rng(1).uniform(LATE + 9e3, LATE + 2e4, 500)),
                    events.energy, events.gti)
    assert embedding.log_likelihood(events) > embedding.log_likelihood(shuffled)


def test_simulated_lists_look_like_the_data(events, embedding):
    drawn = embedding.simulate(seed=1)
    assert isinstance(drawn, sa.EventList)
    assert_allclose(drawn.gti, events.gti)
    assert abs(len(drawn) - 500.5) < 5 * 500**0.5
    assert not ((drawn.time > LATE + 8e3) & (drawn.time < LATE + 9e3)).any()
    assert_array_equal(embedding.simulate(seed=1).time, drawn.time)
    again = sa.embed(drawn)  # and can be embedded without a warning
    assert again.rate(LATE + 1.3e4) > 2 * again.rate(LATE + 1.8e4)


def test_draws_keep_what_is_measured_and_vary_what_is_inferred(embedding):
    draws = embedding.draws(16, seed=2)
    names = embedding.feature_names
    assert draws.shape == (16, len(names))
    for name in ("log_exposure", "counts_hardness_hard_soft", "kuiper_statistic"):
        assert np.ptp(draws[:, names.index(name)]) < 1e-5
    for name in ("latent_0", "decoded_rms", "log_counts"):
        assert np.ptp(draws[:, names.index(name)]) > 0
    assert_array_equal(draws, embedding.draws(16, seed=2))


def test_draws_in_batches_have_the_same_distribution(events, embedding):
    one = embedding.draws(200, seed=1)
    many = draw_vectors(Photons.from_events([events, events]), 200, seed=2)
    assert many.shape == (2, 200, one.shape[1])
    spread = one.std(axis=0) + 1e-3
    assert_allclose(many.mean(axis=(0, 1)) / spread, one.mean(axis=0) / spread, atol=0.35)
    assert_allclose(many.std(axis=(0, 1)) + 1e-3, spread, rtol=0.3)


def test_times_and_energies_outside_are_refused(embedding):
    with pytest.raises(ValueError, match="observed window"):
        embedding.rate(LATE - 10)
    with pytest.raises(ValueError, match="energy_range"):
        embedding.rate(LATE, (0.1, 3))
    with pytest.raises(ValueError, match="level"):
        embedding.rate_interval(LATE, level=68)
    with pytest.raises(ValueError, match="dt"):
        embedding.to_lightcurve(1e9)


def test_plot_draws_on_the_given_axes(embedding):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert embedding.plot(ax) is ax
    assert "ks" in ax.get_xlabel()
    assert len(ax.lines) >= 2


# -- input that is odd, and input that is wrong ----------------------------------------------


def test_an_exposure_without_photons_is_data():
    empty = sa.embed(make([], [], [[0, 1e4]]))
    assert empty.n_photons == 0
    assert np.isfinite(empty.vector).all()
    low, high = empty.rate_interval([5e3])
    assert 0 <= low[0] < empty.rate([5e3])[0] < 5e-4 / u.s
    assert high[0] < 1e-3 / u.s


def test_summaries_come_with_their_intervals(embedding):
    for summary in (embedding.hardness, embedding.fractional_variability):
        median, lower, upper = summary()
        assert lower < median < upper
        wide = summary(level=0.95)
        assert wide[0] == median and wide[1] < lower and wide[2] > upper
    assert -1 <= embedding.hardness(0.99)[1] and embedding.hardness(0.99)[2] <= 1
    assert embedding.fractional_variability(0.99)[1] > 0
    with pytest.raises(ValueError, match="level"):
        embedding.hardness(level=68)


def test_parameters_are_those_of_the_vector_and_of_the_posteriors(embedding):
    table, wide = embedding.parameters(), embedding.parameters(level=0.95)
    given = {row["parameter"]: tuple(row)[1:] for row in table}
    assert list(given) == ["hardness", "fractional_variability", "photon_index", "kT", "n_h",
                           "timescale"]
    assert given["hardness"] == (*embedding.hardness(), "")
    assert given["fractional_variability"] == (*embedding.fractional_variability(), "")
    assert [given[name][3] for name in ("kT", "n_h", "timescale")] == ["keV", "1e22 cm-2", "s"]
    entry = dict(zip(embedding.feature_names, embedding.vector))
    # The vector holds means and spreads (of the population: 0.5 and 0.8 dex), these medians.
    spread = 0.5 * np.exp(entry["spread_photon_index"])
    assert abs(given["photon_index"][0] - entry["estimated_photon_index"]) < spread
    spread = 0.8 * np.exp(entry["spread_log_n_h"])
    value, lower, upper, _ = given["n_h"]
    assert abs(np.log10(value) - entry["estimated_log_n_h"]) < spread
    assert 0.5 < np.log10(upper / lower) / (2 * spread) < 1.5
    assert (table["value"] == wide["value"]).all()
    assert (wide["lower"] < table["lower"]).all() and (table["upper"] < wide["upper"]).all()
    with pytest.raises(ValueError, match="level"):
        embedding.parameters(level=68)


def test_one_photon_and_photons_in_one_instant():
    assert np.isfinite(sa.embed(make([5.0], [1.0], [[0, 1e4]])).vector).all()
    together = sa.embed(make([5e3] * 50, [1.0] * 50, [[0, 1e4]]))
    assert np.isfinite(together.vector).all()
    assert np.isfinite(together.covariance).all()


def test_a_million_photons():
    rng = np.random.default_rng(0)
    bright = make(np.sort(rng.uniform(0, 2e4, 1_000_000)), rng.uniform(0.5, 8, 1_000_000),
                  [[0, 2e4]])
    assert_allclose(sa.embed(bright).rate([1e4]).value, 50, rtol=0.1)


@pytest.mark.parametrize("times, energies, gti, message", [
    ([], [], None, "no events and no good time intervals"),
    ([1, 2], [np.nan, -1], [[0, 10]], "NaN or negative"),
    ([1, 2], [1, 1], np.empty((0, 2)), "no exposure"),
    ([1, 2], [1, 1], [[50, 60]], "GTI|good time"),
    ([3, 3], [1, 1], None, "instant|GTI|good time"),
])
def test_lists_that_cannot_be_used_say_why(times, energies, gti, message):
    ev = make(times, energies, None)
    if gti is not None:
        ev._gti = np.asarray(gti, dtype=float)
    with pytest.raises(EventDataError, match=message):
        sa.embed(ev)


def test_no_energies_at_all():
    with pytest.raises(EventDataError, match="energ"):
        sa.embed(sa.EventList([1.0, 2.0], gti=[[0, 10]]))


def test_unsorted_times_give_the_same_embedding(events, embedding):
    order = np.random.default_rng(0).permutation(500)
    with pytest.warns(UserWarning, match="not sorted"):  # Stingray's own
        mixed = sa.embed(make(events.time[order], events.energy[order], events.gti))
    assert_allclose(mixed.vector, embedding.vector, atol=1e-4)


@pytest.mark.parametrize("mission, instr, message", [
    ("xmm", "EPN", "EPIC-pn"), ("nustar", "FPMA", "not know"), (None, None, "not know")])
def test_other_instruments_are_accepted_with_a_warning(mission, instr, message):
    ev = sa.EventList([1.0, 200.0], energy=[1.0, 2.0], gti=[[0, 1e3]], mission=mission,
                      instr=instr)
    with pytest.warns(DomainShiftWarning, match=message):
        assert np.isfinite(sa.embed(ev).vector).all()


def test_an_effective_area_of_its_own_quiets_the_warning(tmp_path):
    """For instruments of the training; of others the energy resolution stays unknown."""
    path = write_arf(tmp_path / "pn.arf", lambda energy: effective_area("EPIC-pn", energy))
    ev = sa.EventList(np.linspace(1, 900, 60), energy=np.linspace(0.6, 5, 60), gti=[[0, 1e3]],
                      mission="xmm", instr="EPN")
    with pytest.warns(DomainShiftWarning, match="arf_file"):
        usual = sa.embed(ev)
    ev.arf_file = path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = sa.embed(ev)
    assert_allclose(own.vector, usual.vector, atol=0.02)
    assert own.simulate(seed=0).arf_file == own.edit(n_h=0.1).simulate(seed=0).arf_file == path
    assert sa.evaluate.rivals.constant(ev).simulate(seed=0).arf_file == path
    ev.instr = "RGS"
    with pytest.warns(DomainShiftWarning, match="but not its energy resolution"):
        sa.embed(ev)


def test_photons_that_late_acis_misses_are_not_taken_for_absorbed():
    """The same lists look the less absorbed, the later they were taken."""
    lists = sa.datasets.simulate_population(40, seed=8, counts="bright", instruments="ACIS-S",
                                            classes="unobscured AGN", summaries=0).event_lists

    def median_column(mjd):
        dated = [sa.EventList(ev.time, energy=ev.energy, gti=ev.gti, mission="chandra",
                              instr="ACIS-S", mjdref=mjd - ev.time[0] / 86400) for ev in lists]
        columns = [one.parameters()["value"][4] for one in sa.embed(dated)]
        return np.median(columns)

    in_2000, in_2010, in_2020 = map(median_column, (51600, 55200, 58850))
    assert in_2000 > 1.2 * in_2010 > 1.2**2 * in_2020


def test_a_contaminated_camera_does_not_look_like_absorption():
    """Photons that a layer on the camera took away are not missed if its area says so."""
    seen = sa.datasets.simulate_population(120, seed=8, counts="bright", instruments="ACIS-S",
                                           classes=["unobscured AGN", "HMXB pulsar"], summaries=0)
    photons = Photons.from_events(seen.event_lists)
    transmission = np.tile(np.exp(-2 * (CHANNEL_EDGES[:-1] / 0.67) ** -2.5), (120, 1))
    known = seen_through(photons, transmission, np.random.default_rng(1))
    unknown = known.replace(arf=photons.arf)
    names = sa.autodecoder.readouts.feature_names(sa.PoissonAutodecoder.pretrained().n_latent)
    at = names.index("estimated_log_n_h")
    truth = np.log10(np.asarray(seen.truth["n_h"], float))
    off, right = (np.median(embed_vectors(one)[:, at] - truth) for one in (unknown, known))
    assert off > 0.25 and abs(right) < 0.5 * off


def test_windows_outside_the_trained_lengths_are_named():
    with pytest.warns(DomainShiftWarning, match="window of 5 s"):
        sa.embed(make([1.0], [1.0], [[0, 5]]))


def test_a_model_of_another_kind_is_refused(events):
    with pytest.raises(TypeError, match="PoissonAutodecoder"):
        sa.embed(events, model=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_valid_list_gives_finite_numbers(data):
    start = data.draw(st.floats(0, 1e9))
    length = data.draw(st.floats(100, 5e5))
    n = data.draw(st.integers(0, 200))
    phases = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    energies = data.draw(st.lists(st.floats(0, 20), min_size=n, max_size=n))
    cut = data.draw(st.floats(0.1, 0.9))
    gti = [[start, start + length * cut], [start + length * (cut + 0.05), start + length]]
    ev = make(start + length * np.sort(phases), energies, gti)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EventDataWarning)
        try:
            emb = sa.embed(ev)
        except EventDataError as error:
            assert "good time" in str(error) or "GTI" in str(error)
            return
        assert emb.n_photons == Photons.from_events(ev).n_photons[0] <= n
    assert np.isfinite(emb.vector).all()
    times = np.linspace(emb.start, emb.stop, 5)
    low, high = emb.rate_interval(times, n_draws=50)
    assert (low >= 0).all() and (high >= low).all() and np.isfinite(high.value).all()


def test_spectrum_and_rates_in_ranges_are_those_of_the_posterior():
    population = sa.datasets.simulate_population(
        12, seed=77, counts=(300, 3000), classes="supersoft source", instruments="ACIS-S")
    for one in sa.embed(population.event_lists):
        middle = [(one.start + one.stop) / 2]
        for band in ((0.5, 1.2), (1.2, 2), (2, 7)):
            lower, upper = one.rate_interval(middle, 0.95, energy_range=band)
            assert lower[0] < one.rate(middle, energy_range=band)[0] < upper[0]
        counts = one.spectrum().flux.value * np.diff(CHANNEL_EDGES)
        assert_allclose(counts.sum(), one.n_photons + 0.5, rtol=1e-4)


def test_draws_and_light_curves_keep_time_zero_mission_and_background(events):
    from stingray_align.photons import BACKGROUND_ATTRIBUTES

    other = events.apply_mask(np.ones(len(events), bool))
    other.mjdref = 40000.0
    for name, rate in zip(BACKGROUND_ATTRIBUTES, (1e-3, 1e-3, 5e-3, 1e-3)):
        setattr(other, name, rate)
    one = other.embed()
    drawn = one.simulate(seed=2)
    assert drawn.mjdref == 40000.0 and drawn.mission == "chandra"
    assert drawn.arf_file is None
    assert drawn.background_hard == pytest.approx(5e-3, rel=1e-5)
    assert drawn.embed().mjdref == one.edit(n_h=0.1).mjdref == 40000.0
    assert one.to_lightcurve(1000).mjdref == 40000.0
    assert sa.embed([other])[0].mjdref == 40000.0
    assert sa.evaluate.rivals.constant(other).to_lightcurve(1000).mjdref == 40000.0


def test_fine_light_curves_are_those_of_coarse_ones(embedding):
    fine, coarse = embedding.to_lightcurve(2), embedding.to_lightcurve(2000)
    assert_allclose(fine.counts.reshape(10, -1).sum(axis=1), coarse.counts, rtol=1e-9)
    assert np.isfinite(fine.counts_err).all() and len(fine.counts_err) == 10_000


def test_units_are_converted_and_energies_out_of_band_are_named():
    times, kev = np.linspace(1, 9e3, 200), np.linspace(0.6, 7, 200)
    plain = make(times, kev, [[0, 1e4]])
    with_units = sa.EventList(times, energy=1000 * kev * u.eV, gti=[[0, 10]] * u.ks,
                              mission="chandra", instr="ACIS")
    assert_array_equal(with_units.embed().vector, plain.embed().vector)
    with pytest.warns(EventDataWarning, match="none of the 200 events lies in 0.5-8 keV"):
        assert make(times, 1000 * kev, [[0, 1e4]]).embed().n_photons == 0


def test_a_background_of_zero_is_known_and_a_negative_one_refused():
    from stingray_align.photons import BACKGROUND_ATTRIBUTES

    rng = np.random.default_rng(0)
    for n in (1000, 20_000):
        widths = []
        for _ in range(6):
            events = make(np.sort(rng.uniform(0, 1e4, n)), rng.gamma(2, 0.6, n) + 0.5, [[0, 1e4]])
            unknown = events.embed().hardness(0.95)
            for name in BACKGROUND_ATTRIBUTES:
                setattr(events, name, 0.0)
            known = events.embed().hardness(0.95)
            widths.append([known[2] - known[1], unknown[2] - unknown[1]])
        assert np.less(*np.mean(widths, axis=0))
    events.background_hard = -1e-3
    with pytest.raises(EventDataError, match="negative"):
        events.embed()


def test_times_of_any_shape_and_no_time_at_all(embedding):
    times = embedding.start + np.array([[10.0, 20.0, 30.0], [1e3, 2e3, 3e3]])
    lower, upper = embedding.rate_interval(times)
    assert lower.shape == upper.shape == embedding.rate(times).shape == (2, 3)
    assert_allclose(lower[1], embedding.rate_interval(times[1])[0])
    assert embedding.rate_interval([])[0].shape == embedding.rate([]).shape == (0,)
    with pytest.raises(ValueError, match="times must lie"):
        embedding.rate([np.nan])


def test_data_points_are_drawn_where_there_was_exposure():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rng = np.random.default_rng(5)
    gti = np.array([[5e3 * k, 5e3 * k + 400] for k in range(11)])
    times = rng.choice(gti[:, 0], 4000) + rng.uniform(0, 400, 4000)
    ax = make(np.sort(times), rng.uniform(0.6, 6, 4000), gti).embed().plot(plt.figure().gca())
    (line, _, _), = [c.lines for c in ax.containers]
    seconds = 1000 * line.get_xdata()
    assert len(seconds) > 25
    assert all(((gti[:, 0] <= second) & (second <= gti[:, 1])).any() for second in seconds)
    plt.close("all")
