"""The reading of one source: measured facts by hand, a fake embedding for everything else."""

import math
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, vstack
from scipy import stats
from stingray_align._gti import runs
from stingray_align.alignment import AlignedCatalog, Aligner, Interpretation
from stingray_align.alignment._facts import measure
from stingray_align.alignment._figure import BROAD_CLASSES
from stingray_align.alignment.interpretation import _parameter_line
from stingray_align.alignment.intervals import weighted_quantiles
from stingray_align.errors import DomainShiftWarning, ModelFileError
from stingray_align.photons import BAND_OF_CHANNEL, CHANNEL_EDGES, N_CHANNELS, Photons
from stingray_align.text.slots import CLASSES
from stingray_align.text.summary import Summary

N_EVENTS = 6


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    import matplotlib

    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def photons(phase, channel=None, *, duration=1e4, exposed=None, background=0.0,
            instrument="ACIS-S"):
    phase = np.sort(np.asarray(phase, np.float32))
    channel = np.full(len(phase), 8) if channel is None else np.asarray(channel)
    exposed = np.ones(512) if exposed is None else exposed
    return Photons(
        offsets=np.array([0, len(phase)]), phase=phase, channel=channel.astype(np.uint8),
        start=np.array([2e8]), duration=np.array([duration]),
        exposed=np.asarray(exposed, np.float32)[None],
        background=np.full((1, 4), background / 4, np.float32),
        instrument=np.array([instrument]))


class FakeEmbedding:
    """Constant rate; a vector and draws around it."""

    feature_names = tuple(f"f{i}" for i in range(N_EVENTS))

    def __init__(self, vector, photons, spread=0.0):
        self.vector, self.photons, self.spread = np.asarray(vector, np.float32), photons, spread
        self.name = "decoded rate"
        self.bin_edges = photons.start[0] + np.linspace(0, photons.duration[0], 513)
        self.gti = self.bin_edges[None, [0, -1]]
        self._rate = max(1, int(photons.n_photons[0])) / float(photons.exposure[0])

    def draws(self, n=32, seed=0):
        rng = np.random.default_rng(seed)
        return self.vector + self.spread * rng.normal(size=(n, N_EVENTS))

    def parameters(self):
        return QTable({"parameter": ["hardness", "photon_index", "kT", "timescale"],
                       "value": [0.2, 2.1, 4.0, 300.0], "lower": [0.1, 1.9, 3.0, 90.0],
                       "upper": [0.3, 2.4, 5.0, 900.0], "unit": ["", "", "keV", "s"]})

    def rate(self, times):
        return np.full(len(times), self._rate) / u.s

    def rate_interval(self, times, level=0.68):
        return 0.8 * self.rate(times), 1.2 * self.rate(times)

    def spectrum(self):
        from astropy.nddata import VarianceUncertainty
        from specutils import Spectrum

        flux = np.full(N_CHANNELS, 3.0) * u.ct / u.keV
        return Spectrum(flux=flux, spectral_axis=CHANNEL_EDGES * u.keV,
                        bin_specification="edges",
                        uncertainty=VarianceUncertainty(np.ones(N_CHANNELS) * flux.unit**2))


class Quiet:
    name, dim = "quiet", 4

    def encode(self, texts):
        return np.tile(np.float32([1, 0, 0, 0]), (len(texts), 1))


@pytest.fixture(scope="module")
def catalogue():
    from stingray_align.text.encoder import text_vectors

    rng = np.random.default_rng(0)
    number = np.arange(240) % 3
    names = np.array(["unobscured AGN", "polar", "steady ULX"])
    events = 3 * np.eye(3, N_EVENTS)[number] + rng.normal(size=(240, N_EVENTS))
    texts = [Summary(f"Summary of number {j}.", {"class": str(names[i])}, {"kind": "simulated"})
             for j, i in enumerate(number)]
    vectors = text_vectors(texts, Quiet())
    aligner = Aligner(n_shared=8, n_hidden=32, n_steps=250, batch_size=64).fit(
        events, vectors, feature_names=FakeEmbedding.feature_names)
    table = QTable({
        "name": [f"SIM-{j}" for j in range(240)], "class": names[number],
        "counts": np.round(10 ** rng.uniform(1, 3, 240)) * u.ct,
        "photon_index": 1.0 + number + 0.1 * rng.normal(size=240),
        "kT": np.where(number == 1, 5.0, np.nan) * u.keV,
        "n_h": np.full(240, 0.3) * u.Unit("1e22 cm-2")})
    return AlignedCatalog(
        aligner=aligner, table=table, source_vectors=aligner.transform_events(events),
        texts=texts, text_vectors=aligner.transform_texts(vectors),
        text_sources=np.arange(240), encoder=Quiet())


def read(catalogue, kind=1, n=200, spread=0.3, seed=0, hardest=20, **options):
    rng = np.random.default_rng(seed)
    embedding = FakeEmbedding(3 * np.eye(3, N_EVENTS)[kind],
                              photons(rng.random(n), rng.integers(0, hardest, n),
                                      **options), spread)
    return catalogue.interpret(embedding, k=5)


# -- measured -------------------------------------------------------------------------------------


def test_counts_rate_and_hardness_by_hand():
    channel = np.repeat([0, 7, 12, 19], [30, 10, 20, 5])  # 40 soft, 20 hard, 5 above 7 keV
    facts = measure(photons(np.linspace(0, 0.99, 65), channel, background=4))
    assert list(BAND_OF_CHANNEL[[0, 7, 12, 19]]) == [0, 1, 2, 3]
    assert facts.counts == 65 and facts.background == pytest.approx(4)
    assert facts.exposure == pytest.approx(1e4) and facts.rate == pytest.approx(65e-4)
    low, high = (stats.chi2.ppf(0.15866, 130) / 2e4, stats.chi2.ppf(0.84134, 132) / 2e4)
    assert facts.rate_interval == pytest.approx((low, high), rel=1e-3)
    assert facts.hardness == pytest.approx(-20 / 60)
    share = stats.beta.ppf([0.16, 0.84], 20.5, 40.5)
    assert facts.hardness_interval == pytest.approx(tuple(2 * share - 1))
    assert facts.hardness_interval[0] < facts.hardness < facts.hardness_interval[1]


def test_gaps_count_as_no_exposure():
    exposed = np.ones(512)
    exposed[128:384] = 0
    rng = np.random.default_rng(0)
    phase = rng.random(800) / 2
    phase[phase > 0.25] += 0.5
    facts = measure(photons(phase, exposed=exposed))
    assert facts.exposure == pytest.approx(5e3) and facts.rate == pytest.approx(0.16)
    assert abs(facts.excess_variance) < 4 * facts.excess_variance_error
    assert facts.n_bins == 64  # of equal exposure


def test_no_excess_variance_of_a_single_snapshot():
    exposed = np.zeros(512)
    exposed[100] = 1
    facts = measure(photons((100 + np.linspace(0, 1, 500)) / 512, exposed=exposed))
    assert facts.n_bins == 0 and math.isnan(facts.excess_variance)


def test_excess_variance_of_short_snapshots_in_a_long_window():
    exposed = np.zeros(512)
    exposed[::16] = 0.4
    rng = np.random.default_rng(2)
    phase = rng.choice(np.arange(0, 512, 16), 4000) / 512 + rng.uniform(0, 0.4 / 512, 4000)
    flat = measure(photons(phase, exposed=exposed))
    assert flat.n_bins > 16 and abs(flat.excess_variance) < 4 * flat.excess_variance_error
    bright = (phase < 0.5) | (rng.random(4000) < 0.5)
    varying = measure(photons(phase[bright], exposed=exposed))
    assert varying.excess_variance == pytest.approx(1 / 9, rel=0.25)


def test_excess_variance_of_steady_and_variable_sources():
    rng = np.random.default_rng(1)
    steady = [measure(photons(rng.random(rng.poisson(500)))) for _ in range(200)]
    sigma = np.array([f.excess_variance / f.excess_variance_error for f in steady])
    assert abs(np.mean(sigma)) < 0.3 and 0.6 < np.std(sigma) < 1.4
    # rate 1 + a sin(2 pi t) has a variance of a^2/2 over the mean squared
    values = []
    for _ in range(100):
        t = rng.random(4000)
        t = t[rng.random(4000) < (1 + 0.8 * np.sin(2 * np.pi * t)) / 1.8]
        values.append(measure(photons(t)).excess_variance)
    assert np.mean(values) == pytest.approx(0.32, rel=0.05)


def test_detectable_rms_is_a_three_sigma_limit():
    rng = np.random.default_rng(2)
    limit = measure(photons(rng.random(500))).detectable_rms ** 2
    steady = [measure(photons(rng.random(rng.poisson(500)))).excess_variance for _ in range(400)]
    assert np.mean(np.array(steady) > limit) < 0.02
    assert limit == pytest.approx(3 * np.std(steady), rel=0.2)


@pytest.mark.parametrize("n", [0, 1, 39])
def test_few_photons_are_no_error(n):
    facts = measure(photons(np.full(n, 0.5)))
    assert facts.counts == n and facts.n_bins == 0 and math.isnan(facts.excess_variance)
    assert facts.rate_interval[1] > 0
    assert math.isnan(facts.hardness) == (n == 0)


def test_only_one_source_is_measured_at_a_time():
    with pytest.raises(ValueError, match="one source"):
        measure(Photons.concatenate([photons([0.5]), photons([0.5])]))


# -- read off the neighbours ----------------------------------------------------------------------


def test_class_and_parameters_of_the_right_kind(catalogue):
    reading = read(catalogue)
    assert isinstance(reading, Interpretation)
    assert reading.classes["class"][0] == "polar" and reading.classes["probability"][0] > 0.7
    assert reading.classes["probability"].sum() == pytest.approx(1)
    given = {row["parameter"]: row for row in reading.parameters}
    index = given["photon_index"]
    assert index["lower"] < 2.0 < index["upper"] and index["value"] == pytest.approx(2, abs=0.1)
    assert given["kT"]["value"] == pytest.approx(5) and given["kT"]["unit"] == "keV"
    assert given["kT"]["share"] > 0.7  # of the weight is on sources that have a temperature
    assert given["n_h"]["unit"] == "1e22 cm-2"
    assert "kT" not in {row["parameter"] for row in read(catalogue, kind=0).parameters}
    assert len(reading.texts) == len(reading.sources) == 5
    assert set(reading.sources["class"]) == {"polar"} and "text" in reading.texts.colnames


def test_an_uncertain_source_claims_less(catalogue):
    sure, unsure = read(catalogue, spread=0.1), read(catalogue, spread=3.0)
    assert unsure.classes["probability"][0] < sure.classes["probability"][0] - 0.1
    widths = [float(r.parameters["upper"][0] - r.parameters["lower"][0]) for r in (sure, unsure)]
    assert widths[1] > 1.5 * widths[0]


def test_what_the_photons_say_is_reported_where_it_can_apply(catalogue):
    def section(kind):
        lines = str(read(catalogue, kind=kind)).split("Inferred from the photons")[1].splitlines()
        return "\n".join(lines[2:lines.index("")])

    polar, galaxy = section(1), section(0)
    assert "photon index" in polar and "2.10 (1.90 to 2.40)" in polar
    assert "4 (3 to 5) keV" in polar and "keV" not in galaxy  # no neighbour has a temperature
    assert "+0.20 (+0.10 to +0.30)" in galaxy
    assert "time scale" in galaxy  # a catalogue without time scales cannot tell
    table = read(catalogue, kind=0).to_table()
    assert table["inferred_kT_upper"][0] == 5 * u.keV and table["inferred_hardness"][0] == 0.2


def test_weighted_quantiles_against_repeated_values():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=200), rng.integers(1, 6, 200)
    repeated = np.quantile(np.repeat(values, weights), [0.16, 0.5, 0.84])
    got = weighted_quantiles(values, weights.astype(float), [0.16, 0.5, 0.84])
    np.testing.assert_allclose(got, repeated, atol=0.05)
    assert weighted_quantiles(np.array([3.0]), np.array([0.2]), [0.16, 0.84]) == [3.0, 3.0]


def test_same_reading_twice(catalogue):
    assert str(read(catalogue)) == str(read(catalogue))


# -- caveats and warnings -------------------------------------------------------------------------


def test_caveats_follow_the_photons(catalogue):
    by_count = {n: " ".join(read(catalogue, n=n).caveats) for n in (0, 1, 10, 60, 2000)}
    assert "upper limit" in by_count[0]
    assert "factor of a few" in by_count[1]
    assert "soft from hard" in by_count[10]
    assert "cannot be separated" in by_count[60]
    assert "cannot be separated" not in by_count[2000]
    assert "no excess variance" in by_count[10] and "fractional rms" in by_count[2000]
    for text in by_count.values():
        assert "simulated archetypes" in text and "pulsations" in text


def test_background_and_instrument_are_spoken_of(catalogue):
    assert "not known" in " ".join(read(catalogue).caveats)
    much = " ".join(read(catalogue, background=100.0).caveats)
    assert "50 % of the photons are background" in much and "not known" not in much
    strange = read(catalogue, instrument="")
    assert "not to be trusted" in " ".join(strange.caveats)
    assert "not one the model was trained on" in str(strange)


def test_warnings_on_the_way_are_collected(catalogue, monkeypatch):
    embedding = FakeEmbedding(np.zeros(N_EVENTS), photons(np.linspace(0, 0.9, 50)))

    def embed(what):
        warnings.warn("the instrument is new", DomainShiftWarning)
        warnings.warn("the instrument is new", DomainShiftWarning)
        return embedding

    monkeypatch.setattr(catalogue, "embedding", embed)
    reading = catalogue.interpret("anything")
    assert reading.warnings == ("the instrument is new",)
    assert "the instrument is new" in str(reading)


def test_other_warnings_are_passed_on(catalogue, monkeypatch):
    def embed(what):
        warnings.warn("something else", UserWarning)
        return FakeEmbedding(np.zeros(N_EVENTS), photons([0.5]))

    monkeypatch.setattr(catalogue, "embedding", embed)
    with pytest.warns(UserWarning, match="something else"):
        catalogue.interpret("anything")


def test_novelty_says_why(catalogue):
    far = -catalogue.source_vectors.astype(float).mean(axis=0)
    rows = {}
    for n, instrument in ((200, "ACIS-S"), (10, "ACIS-S"), (200, ""), (201, "ACIS-S")):
        # flat up to 8 keV is what a background looks like
        hardest = 20 if n == 201 else 12
        reading = read(catalogue, n=n, instrument=instrument, hardest=hardest)
        assert reading.novelty > 0.01 and "Nothing unusual" in reading.novelty_text
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalogue.aligner, "transform_events",
                          lambda v, **_: np.tile(np.float32(far / np.linalg.norm(far)),
                                                 (len(v), 1)))
            rows[n, instrument] = read(catalogue, n=n, instrument=instrument, hardest=hardest)
    assert all(r.novelty < 0.01 for r in rows.values())
    assert "rare physics, a blend" in rows[200, "ACIS-S"].novelty_text
    assert "artefact of the instrument: hard background" in rows[201, "ACIS-S"].novelty_text
    assert "so few photons" in rows[10, "ACIS-S"].novelty_text
    assert "differ from what the model was trained on" in rows[200, ""].novelty_text


# -- how it is shown ------------------------------------------------------------------------------


@pytest.mark.parametrize("name, values, text", [
    ("period", (304.0, 1.31, 4230.0), "300 (1.3 to 4200) s"),
    ("timescale", (9.96e4, 980.0, 2.34e6), "1e5 (980 to 2.3e6) s"),
    ("flux", (1.23e-13, 2e-14, 3e-13), "1.2e-13 (2.0e-14 to 3.0e-13) s"),
])
def test_parameters_are_written_as_people_do(name, values, text):
    row = dict(zip(("parameter", "value", "lower", "upper", "unit"), (name, *values, "s")))
    assert _parameter_line(row, 1.0)[1] == text


def test_report_has_every_section_and_fits_a_terminal(catalogue):
    text = str(read(catalogue))
    for part in ("Source and exposure", "Measured from the photons", "Best-matching summaries",
                 "Nearest sources", "Class probabilities", "Parameters of its neighbours",
                 "Novelty", "What cannot be told", "200 photons", "ACIS-S", "polar", "SIM-",
                 "Summary of number"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 96
    assert "nan" not in text


@pytest.mark.parametrize("n", [0, 1, 5])
def test_report_and_figure_of_almost_nothing(catalogue, n):
    reading = read(catalogue, n=n)
    assert "nan" not in str(reading)
    reading.plot().canvas.draw()


def test_the_name_is_shown_and_html_is_escaped(catalogue):
    embedding = FakeEmbedding(np.zeros(N_EVENTS), photons([0.5]))
    assert catalogue.interpret(embedding).name == "this observation"
    reading = catalogue.interpret(embedding, name="<script>alert(1)</script>")
    assert str(reading).startswith("Interpretation of <script>")
    assert reading.to_table()["name"][0] == "<script>alert(1)</script>"
    assert "<script>" not in reading._repr_html_() and "&lt;script&gt;" in reading._repr_html_()


def test_tables_stack_and_survive_a_file(catalogue, tmp_path):
    rows = [read(catalogue, kind=kind, n=n).to_table() for kind, n in ((0, 0), (1, 80), (2, 900))]
    table = vstack(rows)
    assert table["counts"].tolist() == [0, 80, 900]
    assert table["class_1"].tolist()[1:] == ["polar", "steady ULX"]
    assert table["exposure"].unit == u.s and table["neighbours_kT"].unit == u.keV
    assert np.isnan(table["neighbours_kT"][2])
    for name in ("rows.ecsv", "rows.fits"):
        table.write(tmp_path / name)
        again = QTable.read(tmp_path / name)
        assert again["counts"].tolist() == [0, 80, 900]
        assert again["rate"].unit == 1 / u.s


def test_figure_has_three_labelled_panels(catalogue, tmp_path):
    exposed = np.ones(512)
    exposed[100:200] = 0
    figure = read(catalogue, exposed=exposed).plot()
    assert len(figure.axes) == 3
    for ax in figure.axes:
        assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title() and ax.get_legend()
    curve, spectrum, place = figure.axes
    assert "ks" in curve.get_xlabel() and "keV" in spectrum.get_xlabel()
    labels = [text.get_text() for text in place.get_legend().get_texts()]
    assert {"this source", "its posterior", "ULX", "white dwarfs"} <= set(labels)
    assert "not exposed" in [t.get_text() for t in curve.get_legend().get_texts()]
    figure.savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_broad_classes_name_real_classes_once():
    members = [name for _, _, names in BROAD_CLASSES.values() for name in names]
    assert len(members) == len(set(members)) and set(members) <= set(CLASSES)
    assert set(CLASSES) - set(members) == {
        "supernova remnant knot", "fast X-ray transient", "cluster core", "background only"}
    colours = [colour for colour, _, _ in BROAD_CLASSES.values()]
    assert len(set(colours)) == len(colours)


def test_runs():
    assert runs(np.array([True, True, False, True])) == [slice(0, 2), slice(3, 4)]
    assert runs(np.zeros(4, bool)) == []


# -- a language model, and bad input --------------------------------------------------------------


class Chat:
    """Gives prepared answers, one after the other."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def complete(self, messages):
        self.asked.append(messages)
        return self.answers.pop(0), "tiny"


def ask(catalogue, *answers):
    embedding = FakeEmbedding(3 * np.eye(3, N_EVENTS)[1], photons(np.linspace(0, 0.9, 50)))
    chat = Chat(*answers)
    return catalogue.interpret(embedding, k=3, llm=chat), chat


def test_a_paragraph_rests_on_facts_and_matches_only(catalogue):
    good = "It was seen with 50 photons [0]. A look-alike has a summary too [1][2]."
    reading, chat = ask(catalogue, good)
    assert reading.paragraph == f"{good} [written by tiny]" and reading.paragraph_note is None
    given = chat.asked[0][1]["content"]
    assert "[0] 50 photons" in given and f"[3] {reading.texts['text'][2]}" in given
    assert good in str(reading)


def test_a_paragraph_that_invents_is_sent_back_and_then_left_out(catalogue):
    bad = "Its period is 12 s [1]."
    reading, chat = ask(catalogue, bad, "It was seen with 50 photons [0].")
    assert reading.paragraph.startswith("It was seen") and len(chat.asked) == 2
    assert "'12' is in none" in chat.asked[1][-1]["content"]
    reading, chat = ask(catalogue, bad, bad)
    assert reading.paragraph is None and "was left out" in reading.paragraph_note
    assert reading.paragraph_note[:40] in str(reading) and len(chat.asked) == 2


def test_without_a_writer_nothing_is_written(catalogue):
    assert read(catalogue).paragraph is None


def test_refuses_bad_questions(catalogue):
    embedding = FakeEmbedding(np.zeros(N_EVENTS), photons([0.5]))
    with pytest.raises(ValueError, match="k must"):
        catalogue.interpret(embedding, k=0)
    with pytest.raises(TypeError, match="one event list"):
        catalogue.interpret("a polar")
    embedding.feature_names = tuple(f"g{i}" for i in range(N_EVENTS))
    with pytest.raises(ModelFileError, match="g0"):
        catalogue.interpret(embedding)
