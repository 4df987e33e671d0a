"""The command that makes aligner and catalogue, with a tiny autodecoder and a word counter."""

import numpy as np
import pytest
from stingray_align.alignment import AlignedCatalog, Aligner, align
from stingray_align.autodecoder import PoissonAutodecoder
from stingray_align.datasets import simulate_photons
from stingray_align.photons import Photons

SIZES = dict(n_pairs=40, n_archetypes=60, n_validation=30, seed=3)


class Counter:
    """Encodes by counting letters, and counts how many texts it was given."""

    name, dim = "letters", 26

    def __init__(self):
        self.seen = 0

    def encode(self, texts):
        self.seen += len(texts)
        vectors = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts],
                           np.float32) + 0.01
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model():
    tiny = PoissonAutodecoder(n_latent=8, n_hidden=32, n_rank=2, n_steps=4, n_refinement_steps=4,
                              n_posterior_steps=4, batch_size=16)
    return tiny.fit(simulate_photons(64, seed=1, counts=(20, 200)), progress=False)


def small_aligner():
    return Aligner(n_shared=8, n_hidden=16, n_steps=10, batch_size=32)


def run(path, model, encoder, **options):
    return align(path, model=model, encoder=encoder, aligner=small_aligner(), **SIZES | options)


def test_makes_a_catalogue_that_loads_and_answers(model, tmp_path, capsys):
    made = run(tmp_path / "made", model, Counter())
    printed = capsys.readouterr().out
    for part in ("Recall@1 %", "median rank", "chance", "temperature", "balanced", "photon_index"):
        assert part in printed
    assert [p.name for p in tmp_path.iterdir()] == ["made"]  # intermediate files are gone
    again = AlignedCatalog.load(tmp_path / "made", model=model, encoder=Counter())
    assert len(again) == len(again.texts) == 60
    assert again.temperature == made.temperature
    assert again.table["name"][0].startswith("SIM-")
    assert "no source in this table exists" in again.table.meta["origin"]
    assert {text.provenance["kind"] for text in again.texts} == {"simulated"}
    assert len(again.query("a polar", k=4)) == 4
    assert again.aligner.feature_names_[0] == "log_counts"
    assert again.aligner.text_model_ == "letters"


def test_what_must_not_be_replaced_is_found_before_the_work(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for path, message in ((tmp_path / "mine", "other files"),
                          (tmp_path / "mine" / "thesis.tex", "not a directory")):
        with pytest.raises(FileExistsError, match=message):
            run(path, model=None, encoder=None)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


def test_an_interrupted_run_goes_on_and_ends_the_same(model, tmp_path, monkeypatch):
    whole = Counter()
    first = run(tmp_path / "a", model, whole, work=tmp_path / "work a", progress=False)
    assert whole.seen >= 40 * 2 + 60 + 30 * 2

    class Interrupted(Counter):
        def encode(self, texts):
            if self.seen:
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", model, Interrupted(), work=tmp_path / "work b", progress=False)
    assert not (tmp_path / "b").exists()
    rest = Counter()
    second = run(tmp_path / "b", model, rest, work=tmp_path / "work b", progress=False)
    assert rest.seen == whole.seen - 80
    np.testing.assert_array_equal(second.source_vectors, first.source_vectors)
    np.testing.assert_array_equal(second.text_vectors, first.text_vectors)
    assert second.temperature == first.temperature


def test_an_aligner_is_fitted_to_another_autodecoder_with_few_texts(model, tmp_path):
    encoder = Counter()
    first = run(tmp_path / "a", model, encoder, progress=False)
    seen, encoder.seen = encoder.seen, 0
    aligner = small_aligner().set_params(n_steps=None)  # so few that there is hardly a step
    other = align(tmp_path / "b", model=model, encoder=encoder, aligner=aligner,
                  start=first.aligner, progress=False, **SIZES)
    assert encoder.seen == seen - 2 * (40 - 6)  # those of further sources, not of the first 40
    assert (other.source_vectors != first.source_vectors).any()
    similarity = (other.text_vectors.astype(float) * first.text_vectors).sum(axis=1)
    assert similarity.min() > 0.8  # little has changed in a few steps
    assert other.aligner.get_params() == aligner.get_params()


def test_what_is_stored_is_not_simulated_again(model, tmp_path, monkeypatch):
    from stingray_align import datasets

    simulate, sizes = datasets.simulate_population, []

    def counted(n, *arguments, **options):
        sizes.append(n)
        return simulate(n, *arguments, **options)

    monkeypatch.setattr(datasets, "simulate_population", counted)
    first = run(tmp_path / "a", model, Counter(), work=tmp_path / "work", progress=False)
    assert sizes == [40, 60, 30, 30]
    sizes.clear()
    second = run(tmp_path / "b", model, Counter(), work=tmp_path / "work", progress=False)
    assert 40 not in sizes and len(sizes) < 4  # the truth of the others is not stored
    np.testing.assert_array_equal(second.source_vectors, first.source_vectors)


def test_another_seed_or_model_does_not_reuse_the_work(model, tmp_path):
    options = dict(work=tmp_path / "work", progress=False)
    first = run(tmp_path / "a", model, Counter(), **options)
    other = Counter()
    second = run(tmp_path / "b", model, other, **options | {"seed": 4})
    assert other.seen > 0
    assert (first.table["name"] != second.table["name"]).all()


def test_build_agrees_with_its_parts(model, tmp_path):
    from stingray_align.datasets import simulate_population
    from stingray_align.text.summary import Summary

    made = run(tmp_path / "made", model, Counter(), progress=False)
    population = simulate_population(6, seed=11, counts=(20, 80))
    summaries = [None, "one text", ["two", Summary("texts", {"soft": True}, {})], None, (),
                 Summary("last", paraphrase="in plain words")]
    built = AlignedCatalog.build(population.event_lists, summaries, model=model,
                                 encoder=Counter(), aligner=made.aligner)
    assert built.text_sources.tolist() == [1, 2, 2, 5, 5]
    assert [t.text for t in built.texts] == ["one text", "two", "texts", "last", "in plain words"]
    assert built.table["counts"].tolist() == population.photons.n_photons.tolist()
    reading = built.interpret(population.event_lists[3], k=2)
    assert reading.sources["similarity"][0] == pytest.approx(1, abs=2e-3)
    assert reading.sources["name"][0] == "source 4"
    assert reading.measured.counts == population.photons.n_photons[3]
    photons = Photons.from_events(population.event_lists)
    same = AlignedCatalog.build(photons, summaries, table=population.truth, model=model,
                                encoder=Counter(), aligner=made.aligner)
    np.testing.assert_array_equal(same.source_vectors, built.source_vectors)
    assert same.table["class"].tolist() == population.truth["class"].tolist()
    with pytest.raises(ValueError, match="one entry per source"):
        AlignedCatalog.build(population.photons, summaries[:2], model=model, aligner=made.aligner)
    with pytest.raises(ValueError, match="a single str is not split"):
        AlignedCatalog.build(population.photons, "a star", model=model, aligner=made.aligner)
    with pytest.raises(ValueError, match="at least one source"):
        AlignedCatalog.build([], [], model=model, aligner=made.aligner)
