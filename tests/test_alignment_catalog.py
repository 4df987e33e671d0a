"""Catalogues: exact search, selections, the neighbours' vote, novelty, files."""

import gzip

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable
from stingray_align import _files
from stingray_align.alignment import AlignedCatalog, Aligner
from stingray_align.alignment._search import top_k
from stingray_align.errors import ModelFileError
from stingray_align.text.summary import Summary

CLASSES = ("coronal star", "polar", "steady ULX")
N_EVENTS, N_PROSE = 6, 8


class WordEncoder:
    """Encodes a text by the words it holds: no download, no model."""

    name, dim = "words", N_PROSE

    def encode(self, texts):
        vectors = np.full((len(texts), N_PROSE), 0.1, np.float32)
        for row, text in zip(vectors, texts):
            for word in text.lower().replace(".", " ").split():
                row[sum(map(ord, word)) % N_PROSE] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class FakeEmbedding:
    """The part of an embedding that a query needs."""

    feature_names = tuple(f"f{i}" for i in range(N_EVENTS))

    def __init__(self, vector):
        self.vector = np.asarray(vector, np.float32)

    def draws(self, n=32, seed=0):
        return self.vector + 0.1 * np.random.default_rng(seed).normal(size=(n, N_EVENTS))


def world(n=90, seed=0):
    """Event vectors, summaries and a table of three classes that differ in all of them."""
    rng = np.random.default_rng(seed)
    number = np.arange(n) % 3
    centres = 2.5 * np.eye(3, N_EVENTS)
    events = centres[number] + rng.normal(size=(n, N_EVENTS))
    prose = ["flares and corona", "strong magnetic pole", "luminous steady accretion"]
    texts = [Summary(f"{prose[i]} case {j}", {"class": CLASSES[i]}, {"kind": "simulated"})
             for j, i in enumerate(number)]
    table = QTable({
        "name": [f"S{j}" for j in range(n)], "class": np.array(CLASSES)[number],
        "counts": np.round(10 ** rng.uniform(1, 3, n)) * u.ct,
        "photon_index": np.where(number == 1, np.nan, 1.5 + 0.3 * number),
        "n_h": 10 ** rng.normal(-1, 0.3, n) * u.Unit("1e22 cm-2"),
        "ra": rng.uniform(0, 360, n) * u.deg, "dec": rng.uniform(-60, 60, n) * u.deg})
    return events, texts, table, number


@pytest.fixture(scope="module")
def aligner():
    from stingray_align.text.encoder import text_vectors

    events, texts, _, _ = world(300, seed=1)
    return Aligner(n_shared=8, n_hidden=32, n_steps=250, batch_size=64).fit(
        events, text_vectors(texts, WordEncoder()), feature_names=FakeEmbedding.feature_names,
        text_model="words")


def make(aligner, n=90, seed=0, **changes):
    from stingray_align.text.encoder import text_vectors

    events, texts, table, _ = world(n, seed)
    return AlignedCatalog(**dict(
        aligner=aligner, table=table, source_vectors=aligner.transform_events(events),
        texts=texts, text_vectors=aligner.transform_texts(text_vectors(texts, WordEncoder())),
        text_sources=np.arange(n), encoder=WordEncoder()) | changes)


@pytest.fixture(scope="module")
def catalogue(aligner):
    return make(aligner)


# -- search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, k", [(1, 1), (7, 3), (500, 10), (500, 499), (500, 800)])
def test_search_is_exact_whatever_the_chunks(n, k, monkeypatch):
    rng = np.random.default_rng(n)
    vectors = rng.normal(size=(n, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[n // 2:] = vectors[: n - n // 2]  # ties: the lower row number comes first
    vectors = vectors.astype(np.float16)
    queries = rng.normal(size=(30, 5)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    mask = rng.random(n) < 0.7 if n > 7 else np.ones(n, bool)
    monkeypatch.setattr("stingray_align.alignment._search._ROWS", 64)
    monkeypatch.setattr("stingray_align.alignment._search._QUERIES", 7)
    similarity, index = top_k(queries, vectors, k, mask=mask)
    rows = np.flatnonzero(mask)
    exact = queries @ vectors[rows].astype(np.float32).T
    order = np.lexsort((np.broadcast_to(rows, exact.shape), -exact.round(5)), axis=1)[:, :k]
    assert similarity.shape == (30, min(k, len(rows)))
    np.testing.assert_allclose(similarity, np.take_along_axis(exact, order, axis=1), atol=2e-5)
    assert (np.diff(similarity, axis=1) <= 1e-6).all()
    assert all(len(set(row)) == len(row) for row in index.tolist())
    assert mask[index].all()


def test_ties_come_in_row_order():
    vectors = np.ones((200, 2)) / np.sqrt(2)
    _, index = top_k(vectors[:1], vectors, 5)
    assert index.tolist() == [[0, 1, 2, 3, 4]]


def test_search_can_leave_a_row_out_for_each_query():
    vectors = np.eye(6)
    similarity, index = top_k(vectors, vectors, 6, exclude=np.arange(6))
    assert index.shape == (6, 5)
    assert (index != np.arange(6)[:, None]).all()
    assert top_k(vectors[:1], vectors[:1], 3, exclude=np.array([0]))[0].shape == (1, 0)


# -- queries --------------------------------------------------------------------------------------


def test_query_by_events_agrees_with_brute_force(catalogue, aligner):
    vector = world(5, seed=7)[0][3]
    answer = catalogue.query(FakeEmbedding(vector), k=15)
    exact = (aligner.transform_events(vector[None])
             @ catalogue.source_vectors.astype(np.float32).T)[0]
    order = np.argsort(-exact, kind="stable")[:15]
    assert answer["name"].tolist() == catalogue.table["name"][order].tolist()
    np.testing.assert_allclose(answer["similarity"], exact[order], atol=1e-6)
    assert answer["rank"].tolist() == list(range(1, 16))
    assert answer["ra"].unit == u.deg
    assert set(catalogue.table.colnames) < set(answer.colnames)


@pytest.mark.parametrize("target", ["sources", "texts"])
def test_words_find_their_class(catalogue, target):
    summary = Summary("luminous steady accretion", {"class": "steady ULX"}, {})
    answer = catalogue.query(summary, k=10, target=target)
    assert (answer["class"] == "steady ULX").mean() > 0.8
    if target == "texts":
        assert all("accretion" in text for text in answer["text"][:5])
        assert set(answer["text_kind"]) == {"simulated"}


def test_what_was_understood_is_told(catalogue):
    from stingray_align.text.glossary import understand

    answer = catalogue.query("a polar", k=30)
    understood = understand("a polar", encoder=WordEncoder())
    assert answer.meta["query"] == "a polar"
    assert answer.meta["understood"] == understood.note
    assert understood.slots["class"] == "polar"
    same = catalogue.query(understood.summary, k=30)
    assert answer["name"].tolist() == same["name"].tolist()


def test_photons_find_texts(catalogue):
    vector = 4 * np.eye(3, N_EVENTS)[1]
    answer = catalogue.query(FakeEmbedding(vector), target="texts")
    assert (answer["class"] == "polar").mean() > 0.8


def test_order_of_the_rows_does_not_matter(catalogue, aligner):
    from stingray_align.text.encoder import text_vectors

    order = np.random.default_rng(0).permutation(90)
    events, texts, table, _ = world()
    texts = [texts[i] for i in order]
    shuffled = AlignedCatalog(
        aligner=aligner, table=table[order],
        source_vectors=aligner.transform_events(events[order]), texts=texts[::-1],
        text_vectors=aligner.transform_texts(text_vectors(texts[::-1], WordEncoder())),
        text_sources=np.arange(90)[::-1], encoder=WordEncoder())
    probe = FakeEmbedding(world(5, seed=7)[0][2])
    for target in ("sources", "texts"):
        a, b = (c.query(probe, k=20, target=target) for c in (catalogue, shuffled))
        np.testing.assert_allclose(a["similarity"], b["similarity"], atol=1e-6)
        # equal texts have equal similarities, so only the sources have one order
        assert target == "texts" or a["name"].tolist() == b["name"].tolist()
    vector = catalogue.project(probe)
    np.testing.assert_allclose(shuffled.class_probabilities(vector),
                               catalogue.class_probabilities(vector), atol=2e-3)
    assert shuffled.novelty(vector, 50)[:2] == pytest.approx(catalogue.novelty(vector, 50)[:2],
                                                             abs=1e-3)


@pytest.mark.parametrize("target", ["sources", "texts"])
def test_cone(catalogue, target):
    centre, radius = SkyCoord(120 * u.deg, 10 * u.deg), 50 * u.deg
    answer = catalogue.query(FakeEmbedding(np.zeros(N_EVENTS)), k=90, target=target,
                             cone=(centre, radius))
    inside = SkyCoord(catalogue.table["ra"], catalogue.table["dec"]).separation(centre) <= radius
    assert 0 < inside.sum() < 90
    assert set(answer["name"]) == set(catalogue.table["name"][inside])
    for cone in ((centre, 3.0), ("10 10", "1deg"), (centre, 1 * u.s), centre):
        with pytest.raises(ValueError, match="a cone is a pair of a SkyCoord and an angle"):
            catalogue.query(FakeEmbedding(np.zeros(N_EVENTS)), cone=cone)


@pytest.mark.parametrize("unit", [None, "deg"])
def test_masked_positions_are_in_no_cone(aligner, unit):
    table = world()[2]
    mask = np.arange(90) % 2 == 0
    del table["ra"], table["dec"]
    for name, values in (("ra", 10.0), ("dec", -20.0)):
        table[name] = MaskedColumn(np.full(90, values), mask=mask, unit=unit)
    answer = make(aligner, table=table).query(
        FakeEmbedding(np.zeros(N_EVENTS)), k=90, cone=(SkyCoord(10, -20, unit="deg"), 1 * u.deg))
    assert set(answer["name"]) == set(table["name"][~mask])


def test_masked_conditions_are_not_met(aligner):
    table = world()[2]
    mask = np.arange(90) % 2 == 0
    table["n_obs"] = MaskedColumn(np.ones(90, int), mask=mask)
    table["kT"] = MaskedColumn(np.ones(90), mask=mask, unit="keV")
    catalogue, probe = make(aligner, table=table), FakeEmbedding(np.zeros(N_EVENTS))
    for where in (lambda table: table["n_obs"] > 0, lambda table: table["kT"] > 0 * u.keV,
                  table["n_obs"] > 0, np.ma.array(np.ones(90, bool), mask=mask)):
        answer = catalogue.query(probe, k=90, where=where)
        assert set(answer["name"]) == set(table["name"][~mask])


def test_where_as_mask_and_as_callable(catalogue):
    probe = FakeEmbedding(np.zeros(N_EVENTS))
    mask = np.asarray(catalogue.table["class"] == "polar")
    by_mask = catalogue.query(probe, k=100, where=mask)
    by_call = catalogue.query(probe, k=100, where=lambda table: table["class"] == "polar")
    assert by_mask["name"].tolist() == by_call["name"].tolist()
    assert len(by_mask) == 30 and set(by_mask["class"]) == {"polar"}
    bright = catalogue.query(probe, k=100, where=lambda table: table["counts"] > 100 * u.ct)
    assert (bright["counts"] > 100 * u.ct).all()
    nothing = catalogue.query(probe, where=np.zeros(90, bool))
    assert len(nothing) == 0 and "similarity" in nothing.colnames


def test_more_than_there_is_gives_all(catalogue):
    assert len(catalogue.query(FakeEmbedding(np.zeros(N_EVENTS)), k=1000)) == 90


@pytest.mark.parametrize("options, message", [
    ({"target": "papers"}, "papers"), ({"k": 0}, "k must"), ({"where": np.ones(3, bool)}, "where"),
    ({"where": np.ones(90)}, "float64"),
])
def test_refuses_bad_questions(catalogue, options, message):
    with pytest.raises(ValueError, match=message):
        catalogue.query(FakeEmbedding(np.zeros(N_EVENTS)), **options)


def test_refuses_empty_words_and_lists(catalogue):
    with pytest.raises(ValueError, match="empty"):
        catalogue.query("  ")
    with pytest.raises(TypeError, match="list"):
        catalogue.query([FakeEmbedding(np.zeros(N_EVENTS))])
    with pytest.raises(TypeError, match="one event list or embedding is needed, not NoneType"):
        catalogue.query(None)


def test_cone_without_positions(aligner):
    table = world()[2]
    table.remove_column("ra")
    with pytest.raises(ValueError, match="positions"):
        make(aligner, table=table).query(FakeEmbedding(np.zeros(N_EVENTS)),
                                         cone=(SkyCoord(0, 0, unit="deg"), 1 * u.deg))


def test_embedding_of_another_model_is_refused(catalogue):
    other = FakeEmbedding(np.zeros(N_EVENTS))
    other.feature_names = tuple(f"g{i}" for i in range(N_EVENTS))
    with pytest.raises(ModelFileError, match="g0"):
        catalogue.query(other)
    with pytest.raises(ModelFileError, match="features"):
        catalogue.query(FakeEmbedding(np.zeros(N_EVENTS + 1)))


def test_another_text_encoder_is_refused(aligner):
    class Other(WordEncoder):
        name = "other words"

    with pytest.raises(ModelFileError, match="'other words'.*'words'"):
        make(aligner, encoder=Other()).query("a polar")


# -- votes and novelty ----------------------------------------------------------------------------


def test_class_probabilities_are_right_and_calibrated(aligner):
    catalogue = make(aligner, n=600)
    events, _, table, number = world(300, seed=5)
    vectors = aligner.transform_events(events)
    probabilities = np.array([catalogue.class_probabilities(v[None]) for v in vectors])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    order = [catalogue.classes.index(name) for name in CLASSES]
    probabilities = probabilities[:, order]
    right = probabilities.argmax(axis=1) == number
    assert right.mean() > 0.8
    assert probabilities.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.05)
    assert -np.log(probabilities[np.arange(300), number]).mean() < 0.5 * np.log(3)
    assert catalogue.calibrate(vectors, table["class"]) < 0.5 * np.log(3)  # of the vote


def test_a_classifier_of_another_shape_is_refused(aligner):
    with pytest.raises(ValueError, match=r"classifier has shape \(2, 9\), expected \(3, 9\)"):
        make(aligner, classifier=np.zeros((2, 9)))


@pytest.mark.parametrize("classes", [["rare", "common"], ["rare", "common", "common too"]])
def test_class_probabilities_know_the_shares_of_the_catalogue(aligner, classes):
    """Where all sources look the same, nothing else is known."""
    table = world(90)[2]
    table["class"] = classes[:1] * 9 + classes[1:2] * 41 + classes[-1:] * 40
    catalogue = AlignedCatalog(aligner=aligner, table=table, temperature=0.1,
                               source_vectors=np.ones((90, 1)) * np.eye(1, aligner.n_shared))
    found = catalogue.class_probabilities(np.eye(1, aligner.n_shared))
    assert catalogue.classifier.shape == (len(classes), aligner.n_shared + 1)
    assert found[catalogue.classes.index("rare")] == pytest.approx(
        0.1 * 0.99 + 0.01 / len(classes), abs=1e-3)


def test_a_large_catalogue_is_classified_by_some_of_each_class(aligner, monkeypatch):
    events, _, table, _ = world(600)
    table["class"][0] = "once"
    vectors = aligner.transform_events(events)
    catalogue = AlignedCatalog(aligner=aligner, table=table, source_vectors=vectors)
    with monkeypatch.context() as patch:
        patch.setattr("stingray_align.alignment.catalog._MOST_FITTED", 60)
        assert len(catalogue.classifier) == len(catalogue.classes) == 4
    found = np.array([catalogue.class_probabilities(v[None]) for v in vectors[1:]])
    right = np.array(catalogue.classes)[found.argmax(axis=1)] == table["class"][1:]
    assert right.mean() > 0.8


def test_uncertain_draws_spread_the_probabilities(catalogue):
    vectors = catalogue.aligner.transform_events(4 * np.eye(3, N_EVENTS))
    sure = catalogue.class_probabilities(vectors[:1])
    mixed = catalogue.class_probabilities(vectors)
    assert sure.max() > mixed.max() + 0.1
    np.testing.assert_allclose(
        mixed, np.mean([catalogue.class_probabilities(v[None]) for v in vectors], axis=0),
        rtol=1e-5)


def test_calibrating_on_draws_averages_their_votes(aligner):
    catalogue = make(aligner)
    events, _, table, number = world(60, seed=6)
    rng = np.random.default_rng(0)
    draws = np.stack([aligner.transform_events(events + rng.normal(size=events.shape))
                      for _ in range(5)], axis=1)
    loss = catalogue.calibrate(draws, table["class"])

    def by_vote():
        own = np.array([catalogue.neighbour_weights(d)[catalogue.table["class"] == name].sum()
                        for d, name in zip(draws, table["class"])])
        return -np.log(0.99 * own + 0.01 / 3).mean()

    assert loss == pytest.approx(by_vote(), rel=1e-5)
    # no other temperature does better
    kept = catalogue.temperature
    for factor in (0.3, 3):
        catalogue.temperature = factor * kept
        assert by_vote() > loss
    catalogue.temperature = kept
    alone = catalogue.temperature, loss
    assert catalogue.calibrate(draws[:, :1], table["class"]) == pytest.approx(
        catalogue.calibrate(draws[:, 0], table["class"]))
    assert catalogue.calibrate(draws, table["class"]) == alone[1]


def test_calibrate_needs_known_classes(catalogue):
    with pytest.raises(ValueError, match="none of these"):
        catalogue.calibrate(np.zeros((2, 8)), ["dog", "cat"])


def test_novelty_is_uniform_for_ordinary_sources_and_small_for_strange_ones(aligner):
    catalogue = make(aligner, n=600)
    events, _, table, _ = world(1200, seed=9)
    p = np.array([catalogue.novelty(aligner.transform_events(row[None]), counts.value)[0]
                  for row, counts in zip(events, table["counts"])])
    assert p.min() > 0 and p.max() <= 1
    for level in (0.1, 0.3, 0.5):
        assert (p < level).mean() == pytest.approx(level, abs=0.06)
    distances = 1 - catalogue.source_vectors.astype(float) @ -catalogue.source_vectors.mean(axis=0)
    strange = -catalogue.source_vectors[[distances.argmax()]].astype(np.float32)
    p_value, distance, n_peers = catalogue.novelty(strange, 50)
    assert p_value < 0.02 and distance > catalogue.held_out["loneliness"].mean()
    assert n_peers == 200


def test_held_out_sources_calibrate_novelty_and_intervals(aligner, tmp_path):
    catalogue = make(aligner, n=300)
    events, _, table, _ = world(1200, seed=11)
    vectors = aligner.transform_events(events)
    alone = catalogue.held_out["loneliness"].copy()
    loss = catalogue.calibrate(vectors[:600], table["class"][:600], table=table[:600])
    assert loss > 0 and catalogue.held_out["loneliness"].shape == (600,) != alone.shape
    p = np.array([catalogue.novelty(v[None], n)[0]
                  for v, n in zip(vectors[600:], table["counts"][600:].value)])
    for level in (0.1, 0.3, 0.5):
        assert (p < level).mean() == pytest.approx(level, abs=0.08)
    catalogue.save(tmp_path / "mine")
    again = AlignedCatalog.load(tmp_path / "mine", encoder=WordEncoder())
    for name, values in catalogue.held_out.items():
        np.testing.assert_array_equal(again.held_out[name], values)


def test_rank_among_the_catalogue(catalogue):
    asked = catalogue.project("a polar")[0]
    probes = [FakeEmbedding(4 * row) for row in np.eye(3, N_EVENTS)]
    probe = probes[0]
    table = catalogue.rank_of(probes, "a polar", names=CLASSES)
    for row, one in zip(table, probes):
        similarity = float(catalogue.project(one)[0] @ asked)
        better = int((catalogue.source_vectors.astype(np.float32) @ asked > similarity).sum())
        assert row["similarity"] == pytest.approx(similarity, abs=1e-5)
        assert row["rank"] == better + 1 and row["percentile"] == pytest.approx(100 * better / 90)
    assert table.meta["n_sources"] == len(catalogue) == 90
    assert (table["rank_lower"] <= table["rank_upper"]).all()
    assert len(catalogue.rank_of(probe, "a polar")) == 1
    with pytest.raises(ValueError, match="names"):
        catalogue.rank_of([probe], "a polar", names=["a", "b"])


def test_map_is_that_of_a_singular_value_decomposition(catalogue):
    vectors = catalogue.source_vectors.astype(float)
    places = catalogue.plane(catalogue.source_vectors)
    left, size, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(places), np.abs(left * size)[:, :2], atol=1e-4)


# -- making and keeping ---------------------------------------------------------------------------


def test_round_trip(catalogue, tmp_path):
    path = tmp_path / "mine"
    catalogue.save(path)
    again = AlignedCatalog.load(path, encoder=WordEncoder())
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert again.table.colnames == catalogue.table.colnames
    for name in again.table.colnames:
        np.testing.assert_array_equal(again.table[name], catalogue.table[name])
        assert again.table[name].unit == catalogue.table[name].unit
    np.testing.assert_array_equal(again.source_vectors, catalogue.source_vectors)
    assert again.source_vectors.dtype == np.float16
    assert again.texts == catalogue.texts
    assert again.temperature == catalogue.temperature
    np.testing.assert_array_equal(again.classifier, catalogue.classifier)
    assert again._held_out is None
    for question in ("a polar", FakeEmbedding(np.zeros(N_EVENTS))):
        for target in ("sources", "texts"):
            a, b = (c.query(question, target=target) for c in (catalogue, again))
            assert a["name"].tolist() == b["name"].tolist()
            np.testing.assert_array_equal(a["similarity"], b["similarity"])


def test_a_catalogue_without_texts_or_classes(aligner, tmp_path):
    table = world()[2]
    table.remove_column("class")
    catalogue = make(aligner, table=table, texts=(), text_vectors=None, text_sources=None)
    catalogue.save(tmp_path / "bare")
    again = AlignedCatalog.load(tmp_path / "bare")
    probe = FakeEmbedding(np.zeros(N_EVENTS))
    assert len(again.query(probe, target="texts")) == 0
    assert len(again.query(probe)) == 10
    assert again.classes == () and len(again.class_probabilities(again.project(probe))) == 0


def test_a_masked_class_is_unknown_and_stays_so(aligner, tmp_path):
    table = world()[2]
    table["class"] = MaskedColumn(table["class"], mask=np.arange(90) < 9)
    catalogue = make(aligner, table=table)
    assert catalogue.classes == ("", *CLASSES) and np.bincount(catalogue._class)[0] == 9
    catalogue.save(tmp_path / "mine")
    again = AlignedCatalog.load(tmp_path / "mine")
    assert again.classes == catalogue.classes
    np.testing.assert_array_equal(again._class, catalogue._class)


def test_a_catalogue_of_one(aligner):
    events, texts, table, _ = world(1)
    catalogue = make(aligner, n=1)
    probe = FakeEmbedding(events[0])
    assert len(catalogue.query(probe)) == 1
    assert catalogue.class_probabilities(catalogue.project(probe)) == pytest.approx([1])
    assert 0 < catalogue.novelty(catalogue.project(probe), 10)[0] <= 1


def test_save_replaces_a_catalogue_and_nothing_else(catalogue, tmp_path):
    catalogue.save(tmp_path / "mine")
    catalogue.save(tmp_path / "mine")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="thesis|other files"):
        catalogue.save(precious)
    assert (precious / "thesis.tex").read_text() == "years of work"
    with pytest.raises(FileExistsError, match="not a directory"):
        catalogue.save(precious / "thesis.tex")


def test_an_interrupted_save_leaves_the_old_catalogue(catalogue, tmp_path, monkeypatch):
    catalogue.save(tmp_path / "mine")
    before = {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()}

    def broken(*args, **kwargs):
        raise OSError("disc full")

    monkeypatch.setattr("gzip.compress", broken)
    with pytest.raises(OSError, match="disc full"):
        catalogue.save(tmp_path / "mine")
    assert {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["aligner.safetensors", "vectors.safetensors",
                                  "sources.ecsv.gz", "texts.json.gz"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "flipped"])
def test_damaged_catalogues(catalogue, tmp_path, name, damage):
    catalogue.save(tmp_path / "mine")
    file = tmp_path / "mine" / name
    if damage == "missing":
        file.unlink()
    elif damage == "flipped":
        content = bytearray(file.read_bytes())
        content[10 if name.endswith("gz") else -len(content) // 4] ^= 0xff  # behind the header
        file.write_bytes(content)
    else:
        file.write_bytes(file.read_bytes()[:200 if damage == "truncated" else 0])
    with pytest.raises(ModelFileError, match="stingray-align align|make it again"):
        AlignedCatalog.load(tmp_path / "mine")


def test_a_file_from_before_there_were_checksums_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_checksum", lambda arrays: "0" * 64)
    _files.write_tensors(tmp_path / "x", {"x": np.arange(3)}, kind="catalogue", version=2, about={})
    monkeypatch.undo()
    content = (tmp_path / "x").read_bytes()
    with pytest.raises(ModelFileError, match="checksum"):
        _files.read_tensors(tmp_path / "x", kind="catalogue", version=2)
    (tmp_path / "x").write_bytes(content.replace(b"sha256", b"sha257"))
    tensors, _ = _files.read_tensors(tmp_path / "x", kind="catalogue", version=2)
    assert tensors["x"].tolist() == [0, 1, 2]


def test_parts_that_do_not_fit_or_are_of_another_version(catalogue, aligner, tmp_path):
    catalogue.save(tmp_path / "mine")
    make(aligner, n=60).save(tmp_path / "other")
    for name in ("sources.ecsv.gz", "texts.json.gz"):
        good = (tmp_path / "mine" / name).read_bytes()
        (tmp_path / "mine" / name).write_bytes((tmp_path / "other" / name).read_bytes())
        with pytest.raises(ModelFileError, match="incomplete or damaged"):
            AlignedCatalog.load(tmp_path / "mine")
        (tmp_path / "mine" / name).write_bytes(good)
    file = tmp_path / "mine" / "vectors.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"version":"2"', b'"version":"0"'))
    with pytest.raises(ModelFileError, match="version '0'"):
        AlignedCatalog.load(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        AlignedCatalog.load(tmp_path / "absent")


def test_tables_are_read_as_text_never_as_code(catalogue, tmp_path):
    catalogue.save(tmp_path / "mine")
    text = gzip.decompress((tmp_path / "mine" / "sources.ecsv.gz").read_bytes()).decode()
    assert text.startswith("# %ECSV")
    assert gzip.decompress((tmp_path / "mine" / "texts.json.gz").read_bytes()).startswith(b"[[")


@pytest.mark.parametrize("changes, message", [
    ({"table": QTable({"counts": []})}, "at least one source"),
    ({"table": QTable({"x": np.zeros(90)})}, "counts"),
    ({"table": QTable({"counts": np.zeros(90), "rank": np.zeros(90)})}, "rank"),
    ({"table": QTable({"counts": np.zeros(89)})}, "source_vectors"),
    ({"text_sources": np.full(90, 90)}, "outside"),
    ({"text_sources": np.zeros(3)}, "one row per text"),
    ({"source_vectors": np.full((90, 8), np.nan)}, "source_vectors holds NaN"),
    ({"text_vectors": np.full((90, 8), np.inf)}, "text_vectors holds NaN"),
])
def test_refuses_inconsistent_parts(aligner, changes, message):
    with pytest.raises(ValueError, match=message):
        make(aligner, **changes)
