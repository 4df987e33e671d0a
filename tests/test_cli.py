"""The command line: what it prints, what it writes, how it fails."""

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from small_sources import write_arf

import stingray_align as sa
from stingray_align.autodecoder import embed_vectors
from stingray_align.autodecoder.readouts import feature_names
from stingray_align.cli import main
from stingray_align.text import text_vectors

M82 = files("stingray") / "tests" / "data" / "chandra_test.fits"
ON_X1 = ["--position", "09h55m50.2s +69d40m47s", "--radius", "3"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Options that name a small autodecoder and a small catalogue, made here in seconds."""
    folder = tmp_path_factory.mktemp("small")
    population = sa.datasets.simulate_population(60, seed=5, counts=(30, 200))
    model = sa.PoissonAutodecoder(n_latent=4, n_hidden=16, n_rank=2, n_steps=8,
                                  n_refinement_steps=4, n_posterior_steps=4, batch_size=16)
    model.fit(population.photons, progress=False).save(folder / "model.safetensors")
    encoder = sa.TextEncoder()
    aligner = sa.Aligner(n_shared=8, n_hidden=16, n_steps=20, batch_size=16).fit(
        embed_vectors(population.photons, model), text_vectors(population.summaries, encoder),
        feature_names=feature_names(model.n_latent), text_model=encoder.name)
    catalogue = sa.AlignedCatalog.build(
        population.photons, population.summaries, table=population.truth, model=model,
        encoder=encoder, aligner=aligner)
    catalogue.save(folder / "catalogue")
    return {"model": ["--model", str(folder / "model.safetensors")],
            "catalogue": ["--catalogue", str(folder / "catalogue"),
                          "--model", str(folder / "model.safetensors")]}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sources(tmp_path):
    """Three event files, one per source, in formats that Stingray reads."""
    population = sa.datasets.simulate_population(3, seed=6, counts=(30, 60), instruments="ACIS-I")
    paths = []
    for i, events in enumerate(population.event_lists):
        paths.append(tmp_path / f"source_{i}.ecsv")
        events.write(paths[-1])
    return [str(path) for path in paths]


# -- interpret ------------------------------------------------------------------------------------


def test_interpret_reports_and_draws(small, capsys, tmp_path):
    assert main(["interpret", str(M82), *ON_X1, *small["catalogue"], "-k", "3",
                 "--table", "numbers.ecsv"]) == 0
    out = capsys.readouterr().out
    assert "chandra_test.fits" in out and "3.0 arcsec around 09h55m50.2s" in out
    assert "expected from the background" in out
    for word in ("exposure", "hardness", "variability", "Class probabilities"):
        assert word in out
    assert (tmp_path / "chandra_test-interpretation.png").read_bytes().startswith(b"\x89PNG")
    table = Table.read("numbers.ecsv")
    assert len(table) == 1 and table["counts"][0] > 1400


def test_figures_of_sources_with_points_in_their_names_are_apart(small, sources, tmp_path):
    for name in ("J0945.1-14.ecsv", "J0945.2-14.ecsv"):
        Path(name).write_bytes(Path(sources[0]).read_bytes())
        assert main(["interpret", name, *small["catalogue"]]) == 0
    assert len(list(tmp_path.glob("J0945.[12]-14-interpretation.png"))) == 2


def test_interpret_without_background(small, capsys):
    assert main(["interpret", str(M82), *ON_X1, "--background", "none", *small["catalogue"],
                 "--figure", "page.pdf"]) == 0
    assert "background among them is not known" in capsys.readouterr().out
    with open("page.pdf", "rb") as file:
        assert file.read(4) == b"%PDF"


def test_figure_without_extension_is_png(small, tmp_path):
    assert main(["interpret", str(M82), *ON_X1, *small["catalogue"], "--figure", "page"]) == 0
    assert (tmp_path / "page").read_bytes().startswith(b"\x89PNG")


def test_interpret_with_region_file(small, capsys, tmp_path):
    (tmp_path / "x1.reg").write_text('icrs\ncircle(148.959167d, 69.679722d, 3")\n')
    assert main(["interpret", str(M82), "--region", "x1.reg", *small["catalogue"]]) == 0
    assert "region x1.reg" in capsys.readouterr().out


def test_interpret_with_the_bundled_models(capsys, tmp_path):
    assert main(["interpret", str(M82), *ON_X1]) == 0
    assert "simulated archetypes" in capsys.readouterr().out
    assert (tmp_path / "chandra_test-interpretation.png").stat().st_size > 20_000


def test_interpret_lets_a_language_model_sum_up(small, capsys, monkeypatch):
    asked = []

    class Chat:
        def __init__(self, base_url, *, model):
            asked.append((base_url, model))

        def complete(self, messages):
            asked.append(messages[1]["content"].count("\n\n["))  # texts beside the facts
            return "Photons were seen [0].", "a-model"

    monkeypatch.setattr(sa.text, "OpenAIChat", Chat, raising=False)
    assert main(["interpret", str(M82), *ON_X1, *small["catalogue"], "-k", "2", "--llm", "a-model",
                 "--llm-url", "http://localhost/v1"]) == 0
    assert asked == [("http://localhost/v1", "a-model"), 2]
    assert "Photons were seen [0]. [written by a-model]" in capsys.readouterr().out


# -- query ----------------------------------------------------------------------------------------


def test_query_lists_sources(small, capsys):
    assert main(["query", "a supersoft source", *small["catalogue"], "-k", "4",
                 "--table", "found.fits"]) == 0
    assert "rank" in capsys.readouterr().out
    table = Table.read("found.fits")
    assert list(table["rank"]) == [1, 2, 3, 4]
    assert np.all(np.diff(table["similarity"]) <= 0)


def test_query_texts_of_a_cone(small, capsys):
    assert main(["query", "a flare", *small["catalogue"], "--target", "texts",
                 "--cone", "12h00m00s +00d00m00s", "180 deg", "-k", "100",
                 "--table", "all.ecsv"]) == 0
    assert main(["query", "a flare", *small["catalogue"], "--target", "texts",
                 "--cone", "180 0", "60 deg", "-k", "100", "--table", "some.ecsv"]) == 0
    everything, some = Table.read("all.ecsv"), Table.read("some.ecsv")
    assert len(everything) == 60 and 0 < len(some) < 60
    assert "text" in some.colnames


def test_query_of_a_catalogue_without_texts(small, capsys):
    catalogue = sa.AlignedCatalog.load(small["catalogue"][1])
    sa.AlignedCatalog(aligner=catalogue.aligner, table=catalogue.table,
                      source_vectors=catalogue.source_vectors).save("bare")
    assert main(["query", "a flare", "--catalogue", "bare", "--target", "texts",
                 *small["model"]]) == 2
    assert "bare holds no texts" in capsys.readouterr().err


# -- embed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["features.ecsv", "features.fits", "features.csv",
                                  "features.parquet"])
def test_embed_writes_any_table(small, sources, name):
    assert main(["embed", *sources, "-o", name, *small["model"]]) == 0
    table = Table.read(name)
    assert len(table) == 3
    model = sa.PoissonAutodecoder.load(small["model"][1])
    direct = sa.embed(sa.EventList.read(sources[1]), model)
    np.testing.assert_allclose([table[n][1] for n in direct.feature_names], direct.vector,
                               rtol=1e-5, atol=1e-6)
    assert table["n_photons"][1] == direct.n_photons


@pytest.mark.parametrize("name", ["features.ecsv", "features.fits", "features.parquet"])
def test_embed_goes_on_where_it_stopped(small, sources, name, capsys, monkeypatch):
    assert main(["embed", *sources[:2], "-o", name, *small["model"]]) == 0
    read = []
    original = sa.EventList.read.__func__
    monkeypatch.setattr(sa.EventList, "read", classmethod(
        lambda cls, path, **kw: read.append(str(path)) or original(cls, path, **kw)))
    assert main(["embed", *sources, "-o", name, *small["model"]]) == 0
    assert read == [sources[2]]
    assert "3 of 3 files" in capsys.readouterr().out
    assert sorted(map(str, Table.read(name, character_as_bytes=False)["file"]
                      if name.endswith("fits") else Table.read(name)["file"])) == sorted(sources)


@pytest.mark.parametrize("name", ["features.ecsv", "features.fits", "features.csv"])
def test_embed_takes_the_response_file_beside_each(small, sources, name, capsys):
    for path, area in zip(sources[:2], (50.0, 5.0)):
        write_arf(Path(path).with_suffix(".arf"), lambda energy, area=area: area * energy)
    assert main(["embed", *sources, "-o", name, "--arf", "{}.arf", *small["model"]]) == 0
    assert f"left out: {sources[2]}" in capsys.readouterr().err
    table, model = Table.read(name), sa.PoissonAutodecoder.load(small["model"][1])
    assert [str(x) for x in table["arf_file"]] == [f"{Path(path).stem}.arf" for path in sources[:2]]
    own = sa.EventList.read(sources[1], arf_file=Path(sources[1]).with_suffix(".arf"))
    usual = sa.EventList.read(sources[1])
    ours, theirs = (sa.embed(events, model).vector for events in (own, usual))
    names = feature_names(model.n_latent)
    np.testing.assert_allclose([table[n][1] for n in names], ours, rtol=1e-5, atol=1e-6)
    assert not np.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    assert main(["embed", sources[2], "-o", name, *small["model"]]) == 0
    assert len(Table.read(name)) == 3
    assert main(["embed", *sources[:2], "-o", name, "--arf", "{}.arf", *small["model"]]) == 0
    assert main(["embed", *sources, "-o", name, "--arf", "{}.arf", *small["model"]]) == 2
    assert "with the usual effective area: choose another name" in capsys.readouterr().err
    assert len(Table.read(name)) == 3


def test_embed_takes_no_response_file_of_one_for_many(small, sources, capsys):
    assert main(["embed", *sources, "-o", "t.ecsv", "--arf", "one.arf", *small["model"]]) == 2
    assert "'{}.arf'" in capsys.readouterr().err


def test_embed_lists_bad_files_and_goes_on(small, sources, tmp_path, capsys):
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE  =")
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    bad = ["broken.fits", "image.fits", "absent.fits"]
    assert main(["embed", bad[0], sources[0], *bad[1:], "-o", "t.ecsv", *small["model"]]) == 0
    captured = capsys.readouterr()
    assert [line.split(": ")[1] for line in captured.err.splitlines()
            if line.startswith("left out")] == bad
    assert "1 of 4 files" in captured.out
    assert list(Table.read("t.ecsv")["file"]) == [sources[0]]


def test_embed_fails_if_nothing_can_be_used(small, capsys, tmp_path):
    assert main(["embed", "absent.fits", "-o", "t.ecsv", *small["model"]]) == 1
    assert not (tmp_path / "t.ecsv").exists()


def test_embed_keeps_what_is_done_when_interrupted(small, sources, monkeypatch):
    original = sa.EventList.read.__func__

    def read(cls, path, **options):
        if str(path) == sources[2]:
            raise KeyboardInterrupt
        return original(cls, path, **options)

    monkeypatch.setattr(sa.EventList, "read", classmethod(read))
    assert main(["embed", *sources, "-o", "t.ecsv", *small["model"]]) == 130
    assert list(Table.read("t.ecsv")["file"]) == sources[:2]


def test_embed_does_not_mix_models(small, sources, tmp_path, capsys):
    assert main(["embed", sources[0], "-o", "t.ecsv", *small["model"]]) == 0
    table = Table.read("t.ecsv")
    table["model"] = "another"
    table.write("t.ecsv", overwrite=True)
    assert main(["embed", *sources, "-o", "t.ecsv", *small["model"]]) == 2
    assert "another model" in capsys.readouterr().err


def test_embed_leaves_other_tables_alone(small, sources, capsys):
    Table({"a": [1]}).write("t.ecsv")
    assert main(["embed", *sources, "-o", "t.ecsv", *small["model"]]) == 2
    assert "is no table of" in capsys.readouterr().err
    assert Table.read("t.ecsv").colnames == ["a"]


def test_embed_asks_for_a_known_format(small, sources, capsys):
    assert main(["embed", *sources, "-o", "features", *small["model"]]) == 2
    assert ".ecsv" in capsys.readouterr().err


# -- benchmark ------------------------------------------------------------------------------------


def thinned_copy(path):
    with fits.open(M82) as hdus:
        hdus["EVENTS"].header["THINNED"] = True
        hdus.writeto(path)


@pytest.mark.parametrize("what, n, words", [
    ("reconstruction", 6, "oracle"), ("retrieval", 30, "Recall@1 %"),
    ("classification", 150, "zero-shot"), ("cost", 5, "ms"),
    pytest.param("time-shape", 60, "balanced accuracy", marks=pytest.mark.slow),
    pytest.param("regression", 60, "hardness", marks=pytest.mark.slow),
    pytest.param("novelty", 60, "AUC", marks=pytest.mark.slow),
    pytest.param("instruments", 40, "ACIS-S again", marks=pytest.mark.slow),
])
def test_benchmarks_print_and_write(small, capsys, what, n, words):
    few = ["--pairs", "40", "--counts", "csc"] if what == "retrieval" else []
    assert main(["benchmark", what, "--sources", str(n), *few, *small["catalogue"],
                 "-o", "t.ecsv"]) == 0
    assert words in capsys.readouterr().out
    assert len(Table.read("t.ecsv")) > 0


def test_benchmark_queries_prints_and_draws(small, capsys, tmp_path):
    assert main(["benchmark", "queries", *small["catalogue"], "-o", "found"]) == 0
    out = capsys.readouterr().out
    assert "as asked" in out and "glossary" in out and "language model" not in out
    assert (tmp_path / "found" / "queries.png").read_bytes().startswith(b"\x89PNG")
    assert len(Table.read(tmp_path / "found" / "queries.ecsv")) == 6


def test_benchmark_of_the_reconstruction_on_other_sources(small, capsys):
    assert main(["benchmark", "reconstruction", "--challenge", "--rivals", "fast",
                 "--counts", "csc", "--sources", "10", *small["model"]]) == 0
    out = capsys.readouterr().out
    assert "first pass" in out and "cross-validated KDE" in out and "Cox" not in out
    assert "short bursts" in out or "two flares" in out or "steps" in out


def test_benchmark_calibration_draws_and_tests_real_photons(small, sources, capsys, tmp_path):
    thinned_copy(tmp_path / "thin.fits")
    assert main(["benchmark", "calibration", "--sources", "8", *small["model"], "-o", "found",
                 "--files", *sources, "thin.fits"]) == 0
    captured = capsys.readouterr()
    assert "95%" in captured.out and "double thinning, real" in captured.out
    assert "left out: thin.fits: thinned" in captured.err
    folder = tmp_path / "found"
    for name in ("coverage", "coverage-by-kind", "sharpness"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert Table.read(folder / "double-thinning-real.ecsv")["sources"][-1] == 3
    assert "CRPS / Beta" in Table.read(folder / "hardness-ratio.ecsv").colnames


def test_benchmark_thinning_scores_and_draws_every_file(small, sources, capsys, tmp_path):
    thinned_copy(tmp_path / "thin.fits")
    assert main(["benchmark", "thinning", *sources[:2], str(M82), "thin.fits", "--rivals", "fast",
                 *small["model"], "-o", "fits"]) == 0
    captured = capsys.readouterr()
    assert "left out: thin.fits: thinned" in captured.err
    assert "cross-validated KDE" in captured.out and "±" in captured.out
    table = Table.read(tmp_path / "fits" / "thinning.ecsv")
    assert dict(zip(table["source"], table["kind"], strict=True)) == {
        "source_0.ecsv": "one source", "source_1.ecsv": "one source", M82.name: "field"}
    assert (tmp_path / "fits" / "source_1.pdf").stat().st_size > 5000
    assert main(["benchmark", "thinning", "thin.fits", *small["model"]]) == 1
    assert capsys.readouterr().err.endswith("can be used, for the reasons above\n")


def test_benchmark_writes_for_the_documentation(small, tmp_path):
    assert main(["benchmark", "cost", "--sources", "5", *small["model"], "-o", "t.rst"]) == 0
    assert (tmp_path / "t.rst").read_text().startswith("=")


def test_benchmark_real_lists_every_file(small, sources, capsys, tmp_path):
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    thinned_copy(tmp_path / "thin.fits")
    assert main(["benchmark", "real", sources[0], "thin.fits", "image.fits", *small["catalogue"],
                 "-o", "real.ecsv"]) == 0
    assert "left out: image.fits" in capsys.readouterr().err
    table = Table.read("real.ecsv")
    assert list(table["file"]) == ["source_0.ecsv", "thin.fits"]
    assert "thinned" in table["remarks"][1] and "thinned" not in str(table["remarks"][0])


@pytest.mark.parametrize("given", [None, "3"])
def test_benchmarks_side_by_side_share_the_cores(monkeypatch, given):
    from stingray_align._benchmark_report import _share_cores

    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    _share_cores(2)
    assert os.environ["OMP_NUM_THREADS"] == (given or "4")


def test_all_benchmarks_make_one_page_and_finished_ones_are_kept(small, capsys, tmp_path):
    command = ["benchmark", "all", "--quick", "-o", "page", "--processes", "1", *small["catalogue"],
               "--only", "challenge-csc"]
    assert main(command) == 0
    folder = tmp_path / "page"
    page = (folder / "index.html").read_text()
    assert "A quick run" in page and "fraction of the oracle gain: " in page
    assert "--challenge --counts csc" in page and 'id="challenge-csc"' in page
    table = Table.read(folder / "challenge-csc" / "reconstruction.ecsv")
    assert "autodecoder" in (folder / "challenge-csc.txt").read_text() and len(table) > 2
    assert not list(folder.glob("*.log"))
    before = (folder / "challenge-csc.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (folder / "challenge-csc.json").stat().st_mtime_ns == before

    assert main([*command[:-1], "nothing"]) == 2
    assert "no benchmark is called nothing" in capsys.readouterr().err


def test_a_failed_benchmark_is_named_on_the_page(small, capsys, tmp_path):
    assert main(["benchmark", "all", "--quick", "-o", "page", "--processes", "1",
                 *small["catalogue"], "--only", "thinning", "--files", "nowhere.fits"]) == 1
    assert "failed: thinning" in capsys.readouterr().err
    assert 'class="failed" id="thinning"' in (tmp_path / "page" / "index.html").read_text()


# -- failing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, words", [
    (["interpret", "absent.fits"], "absent.fits"),
    (["interpret", str(M82), "--position", "09h55m50s +60d00m00s", "--radius", "3"], "outside"),
    (["query", "anything", "--catalogue", "absent"], "no catalogue at absent"),
    (["embed", str(M82), "-o", "t.ecsv", "--model", "absent.safetensors"], "absent.safetensors"),
])
def test_errors_are_one_line(arguments, words, capsys, small):
    if arguments[0] != "embed":
        arguments = [*arguments, *small["model"]]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1 and err.startswith("stingray-align: error: ")


def test_damaged_model_is_one_line(capsys, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    assert main(["embed", str(M82), "-o", "t.ecsv", "--model", "bad.safetensors"]) == 2
    assert "bad.safetensors" in capsys.readouterr().err


def test_traceback_on_request():
    with pytest.raises(FileNotFoundError):
        main(["interpret", "absent.fits", "--traceback"])


@pytest.mark.parametrize("arguments", [
    [], ["interpret"], ["interpret", "f", "--radius", "3 s"], ["interpret", "f", "--radius", "-1"],
    ["interpret", "f", "-k", "0"], ["interpret", "f", "--radius", "wide"],
    ["query", "t", "--cone", "nowhere", "1 deg"], ["query", "t", "--target", "stars"], ["unknown"],
    ["explore", "--port", "99999999"], ["explore", "--port", "0"],
])
def test_wrong_arguments_exit_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_our_warnings_are_lines(small, tmp_path, capsys):
    with fits.open(M82) as hdus:
        events = fits.BinTableHDU(hdus["EVENTS"].data, hdus["EVENTS"].header)
        fits.HDUList([fits.PrimaryHDU(), events]).writeto(tmp_path / "no_gti.fits")
    main(["embed", "no_gti.fits", "-o", "t.ecsv", *small["model"]])
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("warning: ") and "good time intervals" in line for line in lines)
    assert "no good time intervals" in Table.read("t.ecsv")["warnings"][0]


# -- the rest -------------------------------------------------------------------------------------


def test_info_names_versions_and_bundled_files(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert sa.__version__ in out
    assert "autodecoder.safetensors" in out and "catalogue" in out


def test_train_makes_a_model_that_embeds(sources, capsys):
    assert main(["train", "mine.safetensors", "--sources", "40", "--steps", "3",
                 "--refinement-steps", "4", "--posterior-steps", "4", "--workers", "0"]) == 0
    assert main(["embed", sources[0], "-o", "t.ecsv", "--model", "mine.safetensors"]) == 0
    assert len(Table.read("t.ecsv")) == 1


@pytest.mark.parametrize("command", ["interpret", "query", "embed", "train", "align", "benchmark",
                                     "info"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "usage: stingray-align" in out
    if command != "info":
        assert "examples:" in out


def test_version_and_entry_point():
    done = subprocess.run([sys.executable, "-m", "stingray_align.cli", "--version"],
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sa.__version__


# -- what is refused before the work begins -------------------------------------------------------


@pytest.mark.parametrize(("command", "message"), [
    (["interpret", str(M82), "--figure", "page.xyz"], "format of a figure"),
    (["interpret", str(M82), "--table", "page.xyz"], "format of a table"),
    (["query", "pulsations", "--table", "found.xyz"], "format of a table"),
    (["query", "pulsations", "--llm-url", "http://nowhere"], "--llm-url needs --llm"),
    (["query", "pulsations", "--workers", "2"], "share out a whole catalogue on disk"),
    (["query", "pulsations", "--cluster", "tcp://10.0.0.1:8786"], "catalogue on disk"),
    (["embed", str(M82), "-o", "s.ecsv", "--workers", "2"], "catalogue on disk"),
    (["align", "folder", "--pairs", "4"], "choose an empty or a new directory"),
    (["align", "t.ecsv", "--pairs", "4"], "t.ecsv is a file"),
    (["summarize", "t.ecsv", "-o", "s.ecsv", "--offline", "--dry-run"], "--offline asks none"),
    (["summarize", "t.ecsv", "-o", "s.ecsv", "--offline"], "ECSV header"),
    (["summarize", "t", "-o", "s.ecsv", "--offline"], "Format could not be identified"),
    (["train", "folder", "--sources", "64"], "folder is a directory"),
    (["train", "m.safetensors", "--sources", "64", "--workers", "0", "--device", "cuda"],
     "no GPU here"),
])
def test_wrong_options_are_one_line(command, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    for name in ("t.ecsv", "t"):
        (tmp_path / name).write_bytes(b"no table" * 100)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert message in err and err.strip().count("\n") == 0
    assert not (tmp_path / "s.ecsv").exists()


def test_a_cone_is_in_degrees_unless_sexagesimal(small, capsys):
    table = sa.AlignedCatalog.load(small["catalogue"][1]).table
    centre = SkyCoord(table["ra"][7], table["dec"][7], unit="deg")
    for style in ("decimal", "hmsdms"):
        where = centre.to_string(style, precision=4)
        assert main(["query", "pulsations", "--cone", where, "1arcmin",
                     *small["catalogue"]]) == 0
        assert str(table["name"][7]) in capsys.readouterr().out
    assert main(["query", "pulsations", "--cone", "0.001 89.99", "1arcsec",
                 *small["catalogue"]]) == 1
    assert "no source there" in capsys.readouterr().err


def test_features_have_units_and_are_no_facts(small, sources, capsys):
    assert main(["embed", sources[0], "-o", "f.ecsv", *small["model"]]) == 0
    table = Table.read("f.ecsv")
    assert str(table["period"].unit) == "dex(s)" and str(table["exposure"].unit) == "s"
    assert main(["summarize", "f.ecsv", "-o", "s.ecsv", "--offline"]) == 2
    assert "feature vectors" in capsys.readouterr().err


def test_warnings_about_many_files_name_them(small, sources, capsys, tmp_path):
    events = sa.EventList.read(sources[0])
    events.mission, events.instr = "nustar", "FPMA"
    events.write(tmp_path / "other.ecsv")
    assert main(["embed", *sources, "other.ecsv", "-o", "f.ecsv", *small["model"]]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "domain shift" in line]
    assert len(lines) == 1 and "other.ecsv: domain shift: the model does not know" in lines[0]


def test_a_catalogue_and_another_autodecoder_are_refused(small, sources, capsys, tmp_path):
    other = sa.PoissonAutodecoder.load(small["model"][1])
    other.networks_["describer"].outputs.bias.data += 1
    other.save(tmp_path / "other.safetensors")
    assert main(["interpret", sources[0], *small["catalogue"][:2],
                 "--model", "other.safetensors"]) == 2
    assert "made with another autodecoder" in capsys.readouterr().err
    assert main(["interpret", sources[0], *small["catalogue"]]) == 0
