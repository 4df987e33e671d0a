"""Artefacts put into photons are found, and clean photons pass."""

import numpy as np
import pytest
import stingray_align as sa
from stingray_align.artefacts import find_artefacts

T = 1e4


def events(times, energies=None, seed=0, gti=((0, T),), **options):
    rng = np.random.default_rng(seed)
    times = np.asarray(times, float)
    energies = rng.uniform(0.7, 4, len(times)) if energies is None else np.asarray(energies)
    order = np.argsort(times)
    options = {"mission": "chandra", "instr": "ACIS-S"} | options
    return sa.EventList(times[order], energy=energies[order], gti=np.array(gti, float), **options)


def row(table, name):
    return table[list(table["test"]).index(name)]


def steady(n=300, seed=0):
    return np.random.default_rng(seed).uniform(0, T, n)


def test_clean_photons_pass_with_valid_p_values():
    tables = [find_artefacts(events(steady(seed=s), seed=s)) for s in range(60)]
    for name in tables[0]["test"]:
        p = np.array([row(table, name)["p_value"] for table in tables])
        assert np.isfinite(p).all() and ((p >= 0) & (p <= 1)).all()
        assert not any(row(table, name)["found"] for table in tables)
        assert np.mean(p < 0.1) < 0.1 + 3.2 * np.sqrt(0.09 / 60)


def test_empty_time_and_events_outside():
    times = steady()
    assert row(find_artefacts(events(times[times < 0.85 * T])), "good time intervals")["found"]
    outside = np.concatenate([times, np.linspace(T + 1, T + 300, 30)])
    found = row(find_artefacts(events(outside)), "good time intervals")
    assert found["found"] and found["measure"] == pytest.approx(30 / 330)


def test_many_photons_at_the_very_border():
    times = np.concatenate([np.zeros(40), steady()])
    found = row(find_artefacts(events(times, mission="nicer", instr="XTI")), "good time intervals")
    assert 0 <= found["p_value"] <= 1


def test_a_flare_of_the_background_and_one_of_the_source():
    rng = np.random.default_rng(1)
    times = np.concatenate([steady(), rng.uniform(4e3, 4.5e3, 150)])
    soft = rng.uniform(0.7, 3, 450)
    flat = np.concatenate([soft[:300], rng.uniform(0.5, 8, 150)])
    assert row(find_artefacts(events(times, flat)), "background flare")["found"]
    source = row(find_artefacts(events(times, soft)), "background flare")
    assert not source["found"] and source["p_value"] > 0.05


def test_more_hard_photons_than_known():
    rng = np.random.default_rng(2)
    energies = np.concatenate([rng.uniform(0.7, 3, 300), rng.uniform(0.5, 8, 200)])
    spoilt = events(np.concatenate([steady(), steady(200, 5)]), energies)
    assert row(find_artefacts(spoilt), "hard background")["found"]
    for name, width in (("soft", 0.7), ("medium", 0.8), ("hard", 5.0), ("top", 1.0)):
        setattr(spoilt, f"background_{name}", 200 / T * width / 7.5)
    assert not row(find_artefacts(spoilt), "hard background")["found"]


def test_pile_up_by_the_rate_and_by_missing_pairs():
    bright = steady(3000)
    assert row(find_artefacts(events(bright)), "pile-up")["measure"] > 0.3
    frames = np.unique(np.floor(bright / 3.24))
    single = row(find_artefacts(events(np.minimum((frames + 0.5) * 3.24, T))), "pile-up")
    assert single["p_value"] < 1e-6 and single["found"]
    assert not row(find_artefacts(events(steady(300))), "pile-up")["found"]
    nicer = find_artefacts(events(bright, mission="nicer", instr="XTI"))
    assert np.isnan(row(nicer, "pile-up")["p_value"])


def test_frames_are_harmless_where_they_are_spread():
    comb = (np.floor(steady(1000) / 3.24) + 0.5) * 3.24
    found = row(find_artefacts(events(comb)), "frame time")
    assert found["measure"] > 0.8 and not found["found"] and "3.24" in found["note"]


@pytest.mark.parametrize("n", [0, 1, 6])
def test_almost_nothing(n):
    table = find_artefacts(events(steady(n)))
    assert len(table) == 5 and not table["found"].any()


def test_an_embedding_is_enough():
    times = steady()
    embedding = sa.embed(events(times[times < 0.85 * T]))
    assert row(find_artefacts(embedding), "good time intervals")["found"]


def test_benchmark_finds_what_it_put_in():
    population = sa.datasets.simulate_population(12, 3, counts=(600, 1500), summaries=0,
                                                 classes="coronal star", instruments="ACIS-S")
    result = sa.evaluate.artefacts(population, progress=False)
    assert result.primary > 0.6 and result.found.mean() < 0.25
    assert "background flare" in str(result)


def test_what_needs_the_effective_area_is_not_judged_without_it():
    hard = np.random.default_rng(1).uniform(3, 8, 300)
    known = find_artefacts(events(steady(), hard))
    assert row(known, "hard background")["found"]
    unknown = find_artefacts(events(steady(), hard, mission="nustar", instr="FPMA"))
    for name in ("hard background", "background flare"):
        assert not row(unknown, name)["found"] and np.isnan(row(unknown, name)["p_value"])
        assert "area" in row(unknown, name)["note"]
