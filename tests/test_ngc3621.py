import numpy as np
import pytest

from stingray_align.datasets import ngc3621


@pytest.fixture(scope="module")
def galaxies():
    return [ngc3621(seed) for seed in range(8)]


def entry(galaxy, source, epoch):
    truth = galaxy.truth
    return int(np.flatnonzero((truth["source"] == source) & (truth["epoch"] == epoch))[0])


def value(galaxy, name, source, epoch):
    return galaxy.truth[name][entry(galaxy, source, epoch)]


def test_six_sources_in_two_epochs(galaxies):
    for galaxy in galaxies:
        assert len(galaxy) == len(galaxy.event_lists) == 12
        assert len(set(zip(galaxy.truth["source"], galaxy.truth["epoch"]))) == 12
        first, second = (galaxy.event_lists[entry(galaxy, "X2", epoch)] for epoch in (1, 2))
        assert first.gti[-1, 1] < second.gti[0, 0]
        assert "simulated" in galaxy.truth.meta["origin"]


def test_the_same_seed_gives_the_same_photons():
    one, two, other = ngc3621(3), ngc3621(3), ngc3621(4)
    np.testing.assert_array_equal(one.photons.phase, two.photons.phase)
    assert len(one.photons.phase) != len(other.photons.phase)


def test_photon_numbers_and_exposures_are_as_stated(galaxies):
    ranges = {("X1", 1): (15, 40), ("X1", 2): (0, 3), ("X2", 1): (1200, 1600),
              ("X2", 2): (1200, 1600), ("X3", 1): (360, 440), ("X3", 2): (360, 440),
              ("X4", 1): (450, 550), ("X4", 2): (450, 550), ("X5", 1): (360, 440),
              ("X5", 2): (0, 0), ("X6", 1): (0, 0), ("X6", 2): (100, 200)}
    for galaxy in galaxies:
        assert np.all((galaxy.truth["exposure"].to_value("ks") >= 8)
                      & (galaxy.truth["exposure"].to_value("ks") <= 40))
        background = galaxy.truth["background_counts"].value
        assert np.all((background >= 1) & (background <= 5))
        for (source, epoch), (low, high) in ranges.items():
            assert low <= value(galaxy, "source_counts", source, epoch).value <= high
    drawn = np.array([galaxy.truth["counts"].value for galaxy in galaxies], float)
    expected = np.array([(galaxy.truth["source_counts"] + galaxy.truth["background_counts"]).value
                         for galaxy in galaxies])
    chi2 = np.sum((drawn - expected) ** 2 / expected)
    assert abs(chi2 - drawn.size) < 5 * np.sqrt(2 * drawn.size)


def test_the_brightest_keeps_its_flux_and_changes_its_spectrum(galaxies):
    for galaxy in galaxies:
        flux = [value(galaxy, "flux", "X2", epoch).value for epoch in (1, 2)]
        hardness = [value(galaxy, "hardness", "X2", epoch) for epoch in (1, 2)]
        assert flux[0] == pytest.approx(flux[1], rel=1e-3)
        assert abs(hardness[0] - hardness[1]) > 0.05


def test_egress_and_heartbeats_show_in_the_true_rate(galaxies):
    for galaxy in galaxies:
        i = entry(galaxy, "X3", 2)
        window = np.linspace(0, 1, 2001)[:-1] * galaxy.truth["duration"][i].value
        rate = galaxy.true_rate(i, galaxy.photons.start[i] + window).sum(axis=1)
        assert rate[window < 0.39 * window[-1]].max() < 0.1 * rate[-1]
        late = rate[window > 0.4 * window[-1] + 1.1e3]
        assert late.min() > 0.99 * late.max()

        i = entry(galaxy, "X4", 1)
        assert 0.25 < galaxy.truth["fractional_variability"][i] < 0.55
        rate = galaxy.true_rate(i, galaxy.photons.start[i] + window).sum(axis=1)
        step = np.diff(rate)
        assert (step > 0).mean() > 0.7 and -step.min() > 3 * step.max()  # slow rise, quick fall
        assert value(galaxy, "fractional_variability", "X4", 2) < 0.03


def test_positions_say_which_are_published(galaxies):
    truth = galaxies[0].truth
    published = {str(name) for name in truth["source"][truth["position_published"]]}
    assert published == {"X1", "X4"}
    i = entry(galaxies[0], "X4", 1)  # 4XMM J111816.0-324910
    assert truth["ra"][i].to_value("hourangle") == pytest.approx(11 + 18 / 60 + 16.0 / 3600,
                                                                 abs=0.06 / 3600)
    assert truth["dec"][i].to_value("deg") == pytest.approx(-(32 + 49 / 60 + 10 / 3600),
                                                            abs=0.6 / 3600)


def test_every_source_is_documented():
    from stingray_align.datasets.ngc_3621 import ASSUMED, PUBLISHED

    assert list(PUBLISHED) == list(ASSUMED) == [f"X{i}" for i in range(1, 7)]
