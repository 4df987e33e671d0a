from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal
from stingray import EventList
from small_sources import write_arf

import stingray_align as sa
from stingray_align.errors import EventDataError, EventDataWarning
from stingray_align.instruments import mean_area
from stingray_align.photons import (
    BAND_EDGES, BAND_OF_CHANNEL, CHANNEL_EDGES, N_TIME_BINS, Photons, exposure_in_bins,
    spread_frames, to_channels)

SHARED = Path(__file__).parents[2] / "shared" / "data"


def events(times, energies=1.0, gti=((0, 100),), **attributes):
    times = np.asarray(times, dtype=float)
    ev = EventList(times, energy=np.broadcast_to(energies, times.shape).astype(float),
                   gti=np.asarray(gti, dtype=float))
    for name, value in attributes.items():
        setattr(ev, name, value)
    return ev


def test_channels_and_bands_share_their_edges():
    assert len(CHANNEL_EDGES) == 21
    for edge in BAND_EDGES:
        assert np.isclose(CHANNEL_EDGES, edge).any()
    assert_array_equal(np.bincount(BAND_OF_CHANNEL), [6, 4, 9, 1])


@pytest.mark.parametrize("energy, channel", [(0.49, -1), (0.5, 0), (1.2, 6), (2.0, 10),
                                             (7.0, 19), (7.99, 19), (8.0, -1)])
def test_channel_of_an_energy(energy, channel):
    assert to_channels(energy) == channel


def test_exposure_agrees_with_a_fine_sum():
    rng = np.random.default_rng(0)
    borders = np.sort(rng.uniform(0, 1000, 12)).reshape(-1, 2)
    edges = np.linspace(-50, 1100, 38)
    fine = np.linspace(-50, 1100, 1_150_001)[:-1] + 0.0005
    inside = ((fine >= borders[:, :1]) & (fine < borders[:, 1:])).any(axis=0)
    expected = np.histogram(fine[inside], edges)[0] * 0.001
    assert_allclose(exposure_in_bins(borders, edges), expected, atol=0.02)
    assert_allclose(exposure_in_bins(borders, edges).sum(), np.diff(borders).sum())


def test_window_phase_and_exposure_follow_the_gtis():
    p = Photons.from_events(events([10, 20, 90], gti=[[10, 30], [80, 110]]))
    assert p.start[0] == 10 and p.duration[0] == 100
    assert_allclose(p.phase, [0, 0.1, 0.8], atol=1e-6)
    assert_allclose(p.exposure, 50, rtol=1e-5)
    assert p.exposed[0, N_TIME_BINS // 2] == 0  # the gap


def test_mission_times_keep_their_precision():
    late = 7.3e8
    p = Photons.from_events(events(late + np.array([0.0, 1.0, 2.0]), gti=[[late, late + 4]]))
    assert_allclose(p.phase, [0, 0.25, 0.5], atol=1e-6)


def test_photons_outside_the_band_do_not_count():
    p = Photons.from_events(events([1, 2, 3], [0.3, 1.0, 9.0]))
    assert p.n_photons[0] == 1


def test_background_attributes_become_expected_counts():
    p = Photons.from_events(events([1.0], background_soft=0.01, background_medium=0.0,
                                   background_hard=0.02, background_top=0.03))
    assert_allclose(p.background[0], [1, 0, 2, 3], atol=1e-5)
    assert (Photons.from_events(events([1.0])).background == 0).all()


def test_a_background_far_above_the_counts_is_no_rate_in_seconds():
    names = ("background_soft", "background_medium", "background_hard", "background_top")
    times = np.linspace(1, 99, 200)
    with pytest.warns(EventDataWarning, match="80000 background counts .* only 200 photons"
                                              ".*counts per second"):
        Photons.from_events(events(times, **dict.fromkeys(names, 200.0)))
    Photons.from_events(events(times, **dict.fromkeys(names, 0.6)))  # 240: chance is enough


def test_rows_are_the_sources_asked_for():
    sets = Photons.from_events([events(np.arange(k) + 0.5, gti=[[0, 50 + k]]) for k in range(5)])
    assert_array_equal(sets.n_photons, range(5))
    chosen = sets[[4, 0, 2]]
    assert_array_equal(chosen.n_photons, [4, 0, 2])
    assert_allclose(chosen.phase[:4], (np.arange(4) + 0.5) / 54, atol=1e-6)
    assert_array_equal(sets[sets.n_photons > 2].duration, [53, 54])
    assert len(sets[1]) == 1


def test_counts_hold_every_photon_once():
    rng = np.random.default_rng(1)
    sets = Photons.from_events([events(np.sort(rng.uniform(0, 100, 300)),
                                       rng.uniform(0.5, 8, 300)) for _ in range(3)])
    counts = sets.counts()
    assert counts.shape == (3, 512, 20)
    assert_array_equal(counts.sum(axis=(1, 2)), sets.n_photons)
    in_bins = np.histogram(sets[1].phase, np.linspace(0, 1, 513))[0]
    assert_array_equal(counts[1].sum(axis=1), in_bins)


def test_coarser_light_curves_keep_photons_and_exposure():
    rng = np.random.default_rng(4)
    sets = Photons.from_events([events(np.sort(rng.uniform(0, 40, 200)), gti=[[0, 40], [70, 100]]),
                                events([])])
    counts, exposed = sets.rebinned(8)
    assert_array_equal(counts.sum(axis=1), sets.n_photons)
    assert_array_equal(counts[0], np.histogram(sets[0].phase, np.linspace(0, 1, 9))[0])
    assert_allclose(exposed.mean(axis=1) * sets.duration, sets.exposure)
    assert exposed[0, 4] < 1e-6 < exposed[0, 7]
    with pytest.raises(ValueError, match="divide 512"):
        sets.rebinned(7)


def test_thinning_splits_without_loss_and_in_proportion():
    one = events(np.linspace(0.1, 99.9, 20_000), background_soft=1.0, background_medium=0,
                 background_hard=0, background_top=0)
    sets = Photons.from_events([one] * 2)
    first, second = sets.thin(np.array([0.2, 0.7]), np.random.default_rng(0))
    assert_array_equal(first.n_photons + second.n_photons, sets.n_photons)
    # five standard deviations of a binomial draw
    assert_allclose(first.n_photons / sets.n_photons, [0.2, 0.7], atol=5 * 0.0033)
    assert_allclose(first.background + second.background, sets.background, rtol=1e-6)
    assert_allclose(first.background[:, 0], [20, 70], rtol=1e-5)


def test_effective_area_of_each_source(tmp_path):
    """From its ancillary response file, else the usual one of the instrument."""
    path = write_arf(tmp_path / "step.arf", lambda energy: np.where(energy < 1.2, 0.0, 300.0))
    sets = Photons.from_events([
        events([1, 2], [1.0, 3.0], instr="ACIS-I"),
        events([1, 2, 3], [1.0, 3.0, 5.0], instr="ACIS-I", arf_file=path)])
    assert sets.has_arf.tolist() == [False, True]
    assert_array_equal(sets.area[0], mean_area("ACIS-I", tuple(CHANNEL_EDGES)))
    assert_allclose(sets.area[1, 6:], 300, rtol=0.02)
    # No area at all would be an infinite logarithm.
    assert_allclose(sets.area[1, :5], 0.01 * sets.arf[1].mean())
    for same in (sets[::-1][::-1], sets.select(np.ones(5, bool)), sets.replace(start=sets.start),
                 sets.thin(0.5, np.random.default_rng(0))[0],
                 Photons.concatenate([sets[0], sets[1]])):
        assert_array_equal(same.area, sets.area)


def test_area_of_acis_is_that_of_its_date(tmp_path):
    """Where the list has a date, and no ancillary response file knows the area better."""
    def area(**attributes):
        one = Photons.from_events(events([1, 2], **attributes))
        return one.area[0], one.has_arf[0]

    edges = tuple(CHANNEL_EDGES)
    for instr, mjd, year in (("ACIS-S", 51600, 2000.2), ("ACIS-I", 57754, 2017.0)):
        found, known = area(mission="chandra", instr=instr, mjdref=mjd)
        assert known
        assert_allclose(found, mean_area(instr, edges, year), rtol=1e-6)
    late = events([5e8 + 1], gti=[[5e8, 5e8 + 100]], instr="ACIS-S", mjdref=50814)
    assert_allclose(Photons.from_events(late).area[0], mean_area("ACIS-S", edges, 2013.8),
                    rtol=1e-6)
    for attributes in (dict(instr="ACIS-S"), dict(instr="ACIS-S", mjdref=np.nan),
                       dict(instr="ACIS-S", mjdref=40000), dict(instr="EPIC-pn", mjdref=57754)):
        found, known = area(**attributes)
        assert not known
        assert_array_equal(found, mean_area(attributes["instr"], edges))
    path = write_arf(tmp_path / "flat.arf", lambda energy: 300.0)
    assert_allclose(area(instr="ACIS-S", mjdref=57754, arf_file=path)[0], 300, rtol=1e-5)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data in ../shared/data")
@pytest.mark.filterwarnings("ignore::stingray_align.errors.EventDataWarning")  # thinned lists
def test_area_by_date_gives_the_hardness_of_the_catalogue():
    """The Chandra Source Catalog divides photons by the area of each observation."""
    sample = Table.read(SHARED / "csc_sample.ecsv")
    use = (sample["theta"] > 4) & np.isfinite(sample["hard_hs"])  # far off axis: on ACIS-I
    off = {"first years": [], "date": []}
    for row in sample[use]:
        one = sa.EventList.read(SHARED / "csc" / Path(row["file"]).name)
        one.instr = "ACIS-I"
        one = Photons.from_events(one)
        seen = np.bincount(one.channel, minlength=20)
        for how, area in (("first years", mean_area("ACIS-I", tuple(CHANNEL_EDGES))),
                          ("date", one.area[0])):
            soft, hard = ((seen / area)[band].sum() for band in (slice(0, 6), slice(10, 19)))
            off[how].append(abs((hard - soft) / (hard + soft) - row["hard_hs"]))
    assert use.sum() >= 7
    assert np.mean(off["date"]) < 0.6 * np.mean(off["first years"])


@pytest.mark.parametrize("telescope, camera, mission, instr", [
    ("ASCA", "SIS0", "chandra", "ACIS"), ("XMM", "EPN", "xmm", "EMOS1"),
    ("CHANDRA", "ACIS", "nustar", "FPMA"), ("CHANDRA", "HRC", "swift", "XRT"),
    ("XMM", "EMOS2", None, "ACIS-S")])
def test_a_response_file_of_another_instrument_is_warned_about(
        tmp_path, telescope, camera, mission, instr):
    path = write_arf(tmp_path / "a.arf", lambda energy: 300.0, TELESCOP=telescope, INSTRUME=camera)
    with pytest.warns(EventDataWarning, match=f"a.arf is .* file of {telescope} {camera}, and the"):
        Photons.from_events(events([1, 2], mission=mission, instr=instr, arf_file=path))


@pytest.mark.parametrize("header, mission, instr", [
    ({"TELESCOP": "CHANDRA", "INSTRUME": "ACIS"}, "axaf", "ACIS-I"),
    ({"TELESCOP": "XMM", "INSTRUME": "EMOS1"}, "XMM-Newton", ("EMOS2", "EMOS1")),
    ({"TELESCOP": "NuSTAR", "INSTRUME": "FPMA"}, "nustar", "FPMB"),
    ({"TELESCOP": "XMM", "INSTRUME": "EPN"}, None, None), ({}, "chandra", "ACIS")])
def test_response_files_of_the_same_instrument_are_not(tmp_path, header, mission, instr):
    path = write_arf(tmp_path / "a.arf", lambda energy: 300.0, **header)
    one = Photons.from_events(events([1, 2], mission=mission, instr=instr, arf_file=path))
    assert one.has_arf[0]


def test_a_response_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(EventDataError, match="no ancillary response file .*gone.arf"):
        Photons.from_events(events([1, 2], arf_file=tmp_path / "gone.arf"))


def test_joining_nothing_says_so():
    with pytest.raises(EventDataError, match="nothing to join"):
        Photons.from_events([])


def test_a_comb_of_frames_is_spread_and_nothing_else_is():
    rng = np.random.default_rng(2)
    times = np.sort(rng.uniform(0, 1000, 400))
    assert_array_equal(spread_frames(times, 2.0), times)
    frames = np.floor(times / 3.2) * 3.2 + 1.6
    spread = spread_frames(frames, 2.0)
    assert np.abs(spread - frames).max() <= 1.6001
    assert len(np.unique(spread)) == 400
    # uniform inside the frame: half a frame of spread has this rms
    assert_allclose((spread - frames).std(), 3.2 / 12**0.5, rtol=0.1)
    assert_array_equal(spread_frames(frames, 50.0), frames)  # bins of many frames show no comb
    assert_array_equal(spread_frames(frames, 2.0), spread)
    cut = np.concatenate([[0.4], frames[frames > 2], [999.0]])  # a frame cut by a GTI
    assert len(np.unique(spread_frames(cut, 2.0))) == len(cut)
    few = np.array([3.2, 6.4, 9.6])
    assert_array_equal(spread_frames(few, 2.0), few)


@pytest.mark.parametrize("n_photons, frame, n_frames", [(15, 3.24104, 900), (40, 3.24104, 5000),
                                                        (100, 0.44104, 15_000), (25, 3.14, 300)])
def test_a_comb_is_found_although_no_two_photons_are_neighbours_on_it(n_photons, frame, n_frames):
    rng = np.random.default_rng(n_photons)
    start = 7.3e8  # as missions count seconds
    length = n_frames * frame / 4096
    for _ in range(5):
        times = start + frame * np.sort(rng.choice(n_frames, n_photons, replace=False))
        assert_allclose(spread_frames(times, length) - times,
                        frame * np.random.default_rng(0).uniform(-0.5, 0.5, n_photons), atol=0.02)
        other = start + np.sort(rng.uniform(0, n_frames * frame, n_photons))
        assert_array_equal(spread_frames(other, length), other)


def test_photons_of_two_intervals_have_two_combs():
    rng = np.random.default_rng(5)
    first, second = (np.sort(rng.choice(400, 30, replace=False)) for _ in range(2))
    times = np.concatenate([3.2 * first, 5000.7 + 3.2 * second])
    assert (spread_frames(times, 1.6) != times).all()
