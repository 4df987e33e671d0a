"""Counterfactuals: what is taken out is gone, and the rest is as it was."""

import numpy as np
import pytest
import stingray_align as sa
from astropy import units as u
from stingray_align.autodecoder.editing import _absorption
from stingray_align.photons import CHANNEL_EDGES


def source(times, seed=0, duration=2e4):
    rng = np.random.default_rng(seed)
    return sa.embed(sa.EventList(np.sort(times), energy=rng.uniform(0.6, 4, len(times)),
                                 gti=[[0, duration]], mission="chandra", instr="ACIS-S"))


@pytest.fixture(scope="module")
def flaring():
    rng = np.random.default_rng(1)
    return source(np.concatenate([rng.uniform(0, 2e4, 300), rng.uniform(8e3, 9e3, 300)]))


def test_a_flare_goes_and_the_rest_stays(flaring):
    edited = flaring.edit(remove="flare")
    (start, stop), = edited.intervals
    assert 7e3 < start < 8.2e3 and 8.8e3 < stop < 1.05e4
    inside = [r.value for r in (flaring.rate(8500), edited.rate(8500))]
    assert inside[0] > 5 * inside[1] and inside[1] == pytest.approx(300 / 2e4, rel=0.5)
    np.testing.assert_allclose(edited.rate([2e3, 1.5e4]), flaring.rate([2e3, 1.5e4]))
    # outside, every photon is an observed one
    phase = edited.photons.phase * 2e4
    outside = phase[(phase < start) | (phase > stop)]
    assert np.isin(outside, flaring.photons.phase * 2e4).all()
    assert 240 < edited.n_photons < 400 and edited.changes == ("flare removed",)
    assert "flare removed" in repr(edited)


def test_an_eclipse_is_filled():
    rng = np.random.default_rng(2)
    times = rng.uniform(0, 2e4, 900)
    eclipsed = source(times[(times < 8e3) | (times > 1.2e4)])
    edited = eclipsed.edit(remove="eclipse")
    assert edited.n_photons > eclipsed.n_photons + 80
    assert edited.rate(1e4).value == pytest.approx(900 / 2e4, rel=0.4)
    assert eclipsed.rate(1e4).value < 0.3 * edited.rate(1e4).value


def test_a_period_is_flattened():
    rng = np.random.default_rng(3)
    times = rng.uniform(0, 2e4, 2500)
    times = times[rng.random(2500) < (1 + np.sin(2 * np.pi * times / 4e3)) / 2]
    pulsed = source(times)
    strength = pulsed.feature_names.index("period_strength")
    for edited in (pulsed.edit(remove="period"),
                   pulsed.edit(remove="period", period=4 * u.ks)):
        assert edited.vector[strength] < pulsed.vector[strength] - 0.4
        rates = edited.rate(np.linspace(1, 2e4 - 1, 200)).value
        assert rates.std() / rates.mean() < 0.35
    with pytest.raises(ValueError, match="cannot be removed"):
        pulsed.edit(remove="period", period=1)


def test_absorption_follows_the_cross_section():
    counts = np.ones(20)
    thin, thick = _absorption("ACIS-S", counts, 0.1), _absorption("ACIS-S", counts, 3.0)
    assert (np.diff(thick[:16]) > 0).all() and (thick < thin).all() and thin.max() < 1
    from stingray_align.datasets._spectra import cross_section

    one_kev = np.searchsorted(CHANNEL_EDGES, 1.0) - 1
    assert thin[one_kev] == pytest.approx(np.exp(-0.1 * cross_section(0.97)), abs=0.02)
    np.testing.assert_allclose(_absorption("ACIS-S", counts, -0.1) * thin, 1, rtol=0.03)


def test_more_gas_hardens_and_less_softens(flaring):
    behind = flaring.edit(n_h=2 * 1e22 / u.cm**2)
    hardness = flaring.feature_names.index("counts_hardness_hard_soft")
    assert behind.vector[hardness] > flaring.vector[hardness] + 0.3
    assert behind.n_photons < flaring.n_photons
    assert flaring.edit(n_h=-0.2).n_photons > flaring.n_photons
    both = flaring.edit(remove="flare", n_h=2)
    assert both.n_photons < behind.n_photons and len(both.changes) == 2


def test_same_edit_twice_and_no_change_without_a_reason(flaring):
    a, b = (flaring.edit(n_h=0.5, seed=3) for _ in range(2))
    np.testing.assert_array_equal(a.vector, b.vector)
    tiny = flaring.edit(n_h=1e-9)
    np.testing.assert_allclose(tiny.vector, flaring.vector, atol=2e-3)


def test_it_is_a_rate_estimate(flaring):
    edited = flaring.edit(remove="flare")
    low, high = (x.value for x in edited.rate_interval([3e3, 8.5e3]))
    assert (low < edited.rate([3e3, 8.5e3]).value).all() and (low < high).all()
    assert edited.spectrum().flux.value.sum() < flaring.spectrum().flux.value.sum()
    assert edited.draws(3).shape == (3, len(edited.feature_names))
    assert edited.simulate(seed=1).n > 100
    edited.plot().figure.canvas.draw()
    given = dict(zip(edited.parameters()["parameter"], edited.parameters()["value"]))
    assert given["hardness"] == pytest.approx(flaring.hardness()[0], abs=0.2)
    assert given["fractional_variability"] < 0.5 < flaring.fractional_variability()[0]


def test_it_can_be_interpreted(flaring):
    reading = sa.AlignedCatalog.pretrained().interpret(flaring.edit(remove="flare"))
    assert "Inferred from the photons" in str(reading)


def test_refuses_what_is_not_there(flaring):
    for options, message in (({}, "nothing is changed"), ({"remove": "noise"}, "not known"),
                             ({"remove": "eclipse"}, "no eclipse"),
                             ({"period": 3}, "not removed")):
        with pytest.raises(ValueError, match=message):
            flaring.edit(**options)
    steady = source(np.linspace(1, 2e4 - 1, 120))
    with pytest.raises(ValueError, match="no significant period|no flare"):
        steady.edit(remove="flare")


def pulses(period, seed=0):
    rng = np.random.default_rng(seed)
    inside = (rng.normal(0, 0.05, 2000) + rng.integers(0, int(2e4 / period), 2000)) * period
    return source(np.concatenate([rng.uniform(0, 2e4, 1000), inside % 2e4]))


@pytest.mark.parametrize("period", [400, 70, 45])
def test_the_right_period_is_removed(period):
    pulsed = pulses(period)
    edited = pulsed.edit(remove="period")
    assert edited.changes[0].startswith("period of")
    assert float(edited.changes[0].split()[2]) == pytest.approx(period, rel=1e-3)
    scatter = [e._rates.sum(axis=1).std() / e._rates.sum(axis=1).mean() for e in (pulsed, edited)]
    assert scatter[1] < 0.25 * scatter[0]


def test_a_flare_is_no_period(flaring):
    with pytest.raises(ValueError, match="no significant period"):
        flaring.edit(remove="period")
    with pytest.raises(ValueError, match="reach|shows periods from"):
        pulses(14).edit(remove="period")


@pytest.mark.parametrize(("n_h", "message"), [(np.nan, "finite"), (-100, "take away less")])
def test_columns_that_make_no_sense(flaring, n_h, message):
    with pytest.raises(ValueError, match=message):
        flaring.edit(n_h=n_h)
