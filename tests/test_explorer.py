"""The explorer: what it knows without a browser, how the page reacts, and the page in Chromium."""

import builtins
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import chromium
import numpy as np
import pytest
import stingray_align as sa
from stingray_align.autodecoder.readouts import feature_names
from stingray_align.cli import main
from stingray_align.errors import MissingModelError
from stingray_align.explorer import Explorer, card_html
from stingray_align.text import text_vectors
from test_alignment_catalog import CLASSES, WordEncoder, aligner, make, world  # noqa: F401

# Bokeh's way with data frames, which the newest pandas does not like, and words that Panel will
# change in its next version and that its older ones need.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The inplace keyword", "ignore:.*removed in version 2.0:PendingDeprecationWarning")

NO_APP = "the extra 'app' (panel, holoviews, bokeh) is not installed"


@pytest.fixture(scope="module")
def catalogue(request):
    return make(request.getfixturevalue("aligner"))


@pytest.fixture(scope="module")
def explorer(catalogue):
    return Explorer(catalogue, k=5)


@pytest.fixture(scope="module")
def observed():
    return sa.datasets.simulate_population(
        1, seed=3, counts=(60, 80), instruments="ACIS-S").event_lists[0]


@pytest.fixture(scope="module")
def with_model():
    """A catalogue whose aligner takes the vectors of the bundled autodecoder."""
    model = sa.PoissonAutodecoder.pretrained()
    names = feature_names(model.n_latent)
    _, texts, table, _ = world()
    vectors = np.random.default_rng(0).normal(size=(len(texts), len(names)))
    encoded = text_vectors(texts, WordEncoder())
    fitted = sa.Aligner(n_shared=8, n_hidden=8, n_steps=3, batch_size=32).fit(
        vectors, encoded, feature_names=names, text_model="words")
    return sa.AlignedCatalog(
        aligner=fitted, table=table, source_vectors=fitted.transform_events(vectors), texts=texts,
        text_vectors=fitted.transform_texts(encoded), text_sources=np.arange(len(texts)),
        model=model, encoder=WordEncoder())


@pytest.fixture
def app():
    pytest.importorskip("panel", reason=NO_APP)
    pytest.importorskip("holoviews", reason=NO_APP)
    from stingray_align import _explorer_page

    return _explorer_page


# -- without a page -------------------------------------------------------------------------------


def test_an_answer_is_that_of_the_catalogue(explorer, catalogue):
    sentence = "strong magnetic pole"
    answer = explorer.ask(sentence)
    found = catalogue.query(sentence, k=5)
    assert [explorer.names[row] for row in answer.rows] == found["name"].tolist()
    assert answer.similarity.tolist() == found["similarity"].tolist()
    assert answer.understood == found.meta["understood"]
    listed = explorer.listing(answer)
    assert listed["rank"] == [1, 2, 3, 4, 5] and listed["name"] == found["name"].tolist()
    assert listed["class"] == found["class"].tolist()
    assert [float(x) for x in listed["counts"]] == found["counts"].value.tolist()


def test_an_empty_sentence_is_refused(explorer):
    with pytest.raises(ValueError, match="the question is empty"):
        explorer.ask("  ")


def test_a_click_finds_the_source_under_it(explorer):
    for row in (0, 17, 89):
        assert explorer.at(*explorer.places[row]) == row
    assert explorer.at(*(explorer.places.max(axis=0) + np.ptp(explorer.places))) is None


def test_a_large_catalogue_is_drawn_in_part(catalogue, monkeypatch):
    monkeypatch.setattr("stingray_align.explorer._MOST_DRAWN", 20)
    part = Explorer(catalogue)
    assert len(part.drawn) == len(set(part.drawn)) == 20
    hidden = np.setdiff1d(np.arange(90), part.drawn)[0]
    assert part.at(*part.places[hidden]) != hidden


def test_a_card_says_what_is_known(explorer, catalogue):
    card = explorer.card(explorer.row("S4"))
    facts = dict(card.facts)
    assert facts["class"] == CLASSES[1] and "photon index" not in facts  # unknown for this class
    assert facts["column density"].endswith(" × 10²² cm⁻²")
    assert float(facts["photons"]) == catalogue.table["counts"][4].value
    assert card.summaries == ["strong magnetic pole case 4"]
    similarity = catalogue.source_vectors.astype(float) @ catalogue.source_vectors[4].astype(float)
    similarity[4] = -1
    assert card.neighbours.rows.tolist() == np.argsort(-similarity, kind="stable")[:5].tolist()
    assert len(card.texts) == 3 and "S4, polar" not in [whose for _, whose, _ in card.texts]


def test_what_is_shown_is_escaped(explorer):
    from dataclasses import replace

    shown = card_html(replace(explorer.card(0), summaries=["<script>alert(1)</script>"]))
    assert "<script>" not in shown and "&lt;script&gt;" in shown


def test_unknown_names_are_named(explorer):
    with pytest.raises(ValueError, match="no source named 'S900'"):
        explorer.row("S900")


def test_kinds_are_the_packages_or_the_commonest_classes(explorer, catalogue):
    assert set(explorer.kinds) == {"stars", "white dwarfs", "ULX"}
    table = catalogue.table.copy()
    table["class"] = np.array([f"kind {min(i, 9)}" for i in range(len(table))])
    other = Explorer(make(catalogue.aligner, table=table))
    assert len(other.kinds) == 7 and list(other.kinds)[0] == "kind 9"
    assert len({colour for colour, _ in other.kinds.values()}) == 7
    assert (other.kind == "other").sum() == 4
    del table["class"]
    assert set(Explorer(make(catalogue.aligner, table=table)).kinds) == {"other"}


def test_event_files_are_found_by_name(with_model, observed, tmp_path):
    observed.write(str(tmp_path / "S1.ecsv"), fmt="ascii.ecsv")
    (tmp_path / "S2.fits").write_text("no photons")
    explorer = Explorer(with_model, events=tmp_path)
    assert explorer.embedding(explorer.row("S1")).n_photons == len(observed.time)
    assert explorer.embedding(explorer.row("S3")) is None
    with pytest.raises(ValueError, match="neither a FITS event file"):
        explorer.embedding(explorer.row("S2"))
    with pytest.raises(NotADirectoryError, match="no folder of event files"):
        Explorer(with_model, events=tmp_path / "nowhere")


@pytest.mark.parametrize("file, name", [
    ("J0955.8+6940.evt.gz", "J0955.8+6940"), ("NGC_3621_X1.fits", "NGC 3621 X1")])
def test_names_with_dots_and_blanks(file, name, tmp_path):
    from stingray_align.explorer import _event_files, _key

    (tmp_path / file).touch()
    (tmp_path / "notes.txt").touch()
    assert list(_event_files(tmp_path)) == [_key(name)]


def test_an_observation_lands_on_the_map(with_model, observed):
    explorer = Explorer(with_model)
    assert explorer.reading is None
    reading = explorer.read(observed, name="mine.evt")
    assert explorer.reading is reading and reading.name == "mine.evt"
    assert explorer.reading_place() == pytest.approx(
        with_model.plane(with_model.project(observed))[0], abs=1e-5)


def test_missing_packages_are_named_before_anything_is_read(monkeypatch, capsys):
    real = builtins.__import__

    def without_panel(name, *args, **kwargs):
        if name == "panel":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_panel)
    from stingray_align.explorer import need_app

    with pytest.raises(MissingModelError, match=r"stingray-align\[app\]"):
        need_app()
    assert main(["explore", "nowhere"]) == 2
    assert "stingray-align[app]" in capsys.readouterr().err


# -- the page, without a browser ------------------------------------------------------------------


def test_the_page_answers_and_shows(app, explorer):
    import panel as pn

    page = app.Page(explorer)
    page.layout()
    assert not page.answers.visible
    page.ask("strong magnetic pole")
    answer = explorer.ask("strong magnetic pole")
    table = page.answers[-1]
    assert page.answers.visible and isinstance(table, pn.widgets.Tabulator)
    assert table.value["name"].tolist() == explorer.listing(answer)["name"]
    assert answer.understood in page.understood.object
    assert page._lit.data == answer.rows.tolist()
    page._tapped(*explorer.places[7])
    assert "S7" in page.about[0].object and "--events FOLDER" in page.about[1].object
    page._tapped(1e3, 1e3)
    assert "S7" in page.about[0].object  # a click beside everything changes nothing
    page.ask("")
    assert not page.answers.visible and page._lit.data == []


def test_problems_are_shown_on_the_page(app, with_model, tmp_path, monkeypatch):
    (tmp_path / "S2.fits").write_text("no photons")
    explorer = Explorer(with_model, events=tmp_path)
    page = app.Page(explorer)
    page.show(explorer.row("S2"))
    assert "neither a FITS event file" in page.about[1].object

    def no_encoder(sentence):
        raise MissingModelError("no model <here>")

    monkeypatch.setattr(explorer, "ask", no_encoder)
    page.ask("a flare")
    assert "no model &lt;here&gt;" in page.understood.object and not page.answers.visible


def test_figures_of_photons_are_shown(app, with_model, observed, tmp_path):
    import panel as pn

    observed.write(str(tmp_path / "S1.ecsv"), fmt="ascii.ecsv")
    explorer = Explorer(with_model, events=tmp_path)
    page = app.Page(explorer)
    page.show(explorer.row("S1"))
    assert isinstance(page.about[1], pn.pane.PNG)
    explorer.read(observed, name="mine.evt")
    page = app.Page(explorer)
    page.layout()
    assert "mine.evt" in page.about[0].object and isinstance(page.about[1], pn.pane.PNG)


# -- the page in a browser ------------------------------------------------------------------------


@pytest.mark.skipif(chromium.find() is None, reason="there is no Chromium here")
def test_the_page_in_chromium(app, catalogue, tmp_path):
    catalogue.save(tmp_path / "mine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stingray_align.cli", "explore", str(tmp_path / "mine"),
               "--no-browser", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as server, _ended(server):
        assert f"http://127.0.0.1:{port}" in server.stdout.readline()
        (tmp_path / "browser").mkdir()
        with chromium.opened(f"http://127.0.0.1:{port}/?source=S3", tmp_path / "browser") as tab:
            named = 'deep(document).filter(node => (node.textContent || "").trim() == "{}")'
            tab.wait_for(named.format("S3") + '.some(node => node.nodeName == "H3")')
            tab.wait_for('deep(document).some(node => node.nodeName == "CANVAS")')
            assert tab.evaluate('deep(document).some(node => node.nodeName == "INPUT" '
                                '&& node.placeholder.startsWith("Describe a source"))')
            text = tab.text()
            assert "90 simulated sources of 3 classes" in text and "Nearest neighbours" in text
            # A row of the list leads to that source.
            explorer = Explorer(catalogue)
            first = explorer.names[explorer.card(explorer.row("S3")).neighbours.rows[0]]
            cell = named.format(first) + '.find(node => node.className == "tabulator-cell")'
            place = tab.wait_for(f"(cell => cell && cell.getBoundingClientRect().toJSON())({cell})")
            tab.click(place["x"] + 10, place["y"] + 10)
            tab.wait_for(named.format(first) + '.some(node => node.nodeName == "H3")')
            assert tab.evaluate("location.search") == f"?source={first}"
            elsewhere = [url for url in tab.requests
                         if not url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))]
            assert not elsewhere and not tab.errors
        server.send_signal(signal.SIGINT)
        _, problems = server.communicate(timeout=30)
        assert server.returncode == 130 and "interrupted" in problems


@contextmanager
def _ended(process):
    try:
        yield
    finally:
        process.kill()


def test_a_port_in_use_is_an_error(app, explorer):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="choose another with --port"):
            explorer.serve(port=taken.getsockname()[1], show=False)
