"""Literature from SIMBAD and ADS, both played by a server on this machine."""

import io
import json
import sys
import time
from xml.sax.saxutils import escape

import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io.votable import parse
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from local_server import Reply, serving

from stingray_align.datasets import Ads, Literature, Simbad, find_literature, gather_literature
from stingray_align.errors import ArchiveError, MissingModelError
from stingray_align.text import write_summary

pytest.importorskip("pyvo", reason="SIMBAD is asked through pyvo")
pytest.importorskip("astroquery", reason="ADS is asked through astroquery")

POSITION = SkyCoord(169.5686, -32.8126, unit="deg")

# (bibcode, title, abstract, year, number of objects); all invented
SURVEY = ("2031Inv...900..100S", "A survey of everything", "We list many sources.", 2031, 4321)
STUDY = ("2029Inv...880...20B", "The curious X-ray source of NGC 9999", "It is a soft source.",
         2029, 2)
OLD = ("1979Inv...230...50A", "Discovery of NGC 9999 X-1", "We report a new source.", 1979, 1)
BARE = ("2032Inv...910....1C", "NGC 9999 X-1 again", "", 2032, 1)


def simbad_answer(*rows, encoding="utf-8", status="OK"):
    """As SIMBAD's TAP service writes it in plain rows."""
    fields = "".join(
        f'<FIELD name="{name}" datatype="{kind}"{size}><DESCRIPTION>{name}</DESCRIPTION></FIELD>\n'
        for name, kind, size in (
            ("bibcode", "char", ' arraysize="19*"'), ("title", "char", ' arraysize="*"'),
            ("abstract", "char", ' arraysize="*"'), ("publication_year", "short", ""),
            ("nbobject", "int", "")))
    cells = "".join("<TR>" + "".join(
        f"<TD>{'' if cell is None else escape(str(cell))}</TD>" for cell in row) + "</TR>\n"
        for row in rows)
    text = ('<?xml version="1.0" encoding="utf-8"?>\n'
            '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
            '<RESOURCE type="results">\n'
            f'<INFO name="QUERY_STATUS" value="{status}">Unknown table [oops]</INFO>\n'
            f'<TABLE name="result_S1763840000000">\n{fields}<DATA><TABLEDATA>\n{cells}'
            '</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n')
    return Reply(text.encode(encoding), type="application/x-votable+xml")


def ads_answer(*documents):
    """As the search of ADS writes it."""
    return Reply({"responseHeader": {"status": 0, "QTime": 12},
                  "response": {"numFound": len(documents), "start": 0, "docs": list(documents)}})


def ads_paper(paper, *aliases, **changes):
    bibcode, title, abstract, year, _ = paper
    return {"bibcode": bibcode, "title": [title], "abstract": abstract, "year": str(year),
            "identifier": [bibcode, *aliases], **changes}


def services(url, *, token="secret"):
    quick = dict(per_second=1e6, timeout=5, retries=2, backoff=0.001)
    return [Simbad(f"{url}/tap", **quick), Ads(f"{url}/ads", token=token, **quick)]


def play(simbad, ads):
    """Each service gives its own replies in turn, the last one for ever."""
    replies = {"/tap/sync": list(simbad), "/ads": list(ads)}

    def answer(request):
        queue = replies[request.path]
        return queue.pop(0) if len(queue) > 1 else queue[0]

    return serving(answer)


@pytest.fixture(autouse=True)
def _no_token(monkeypatch, tmp_path):
    """Nobody's own token is used, and no cache of theirs."""
    for variable in ("ADS_DEV_KEY", "ADS_API_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_papers_of_a_name_are_merged_and_ordered(tmp_path):
    ads = [ads_paper(STUDY, abstract="It is a soft source with a long ADS abstract."),
           ads_paper(("2030Inv...890...77D", "Spectra of&nbsp;galaxies: H<SUB>2</SUB> gas",
                      "Gas &amp; dust.", 2030, None)),
           {"bibcode": "2033Inv...920....1E"}]
    with play([simbad_answer(SURVEY, OLD, STUDY, BARE)], [ads_answer(*ads)]) as (url, requests):
        found = find_literature("NGC  9999 ", services=services(url), cache=tmp_path)
    # few objects before many, new before old, no abstract last
    assert found.bibcodes == ["2029Inv...880...20B", "1979Inv...230...50A", "2030Inv...890...77D",
                              "2031Inv...900..100S", "2032Inv...910....1C", "2033Inv...920....1E"]
    assert found[0] == {
        "bibcode": "2029Inv...880...20B", "title": STUDY[1],
        "abstract": "It is a soft source with a long ADS abstract.", "year": 2029, "n_objects": 2,
        "origin": ["SIMBAD", "ADS"]}
    assert found[2]["title"] == "Spectra of galaxies: H2 gas"
    assert found[2]["abstract"] == "Gas & dust."
    assert (found.source, found.n_found, found.asked) == ("NGC 9999", 6, ("SIMBAD", "ADS"))

    simbad, ads = requests  # one query each
    adql = simbad.parameters["QUERY"]
    assert simbad.parameters["FORMAT"] == "votable/td"
    assert "FROM ident JOIN has_ref ON has_ref.oidref = ident.oidref JOIN ref" in adql
    assert "ident.id = 'NGC 9999'" in adql
    assert ads.headers["authorization"] == "Bearer secret"
    assert ads.parameters["q"] == '(object:"NGC 9999" OR abs:"NGC 9999") collection:astronomy'
    assert set(ads.parameters["fl"].split(",")) >= {"bibcode", "title", "abstract", "identifier"}


def test_papers_of_a_position(tmp_path):
    with play([simbad_answer(OLD)], [ads_answer()]) as (url, requests):
        found = find_literature(POSITION.galactic, radius=3.6 * u.arcsec, services=services(url),
                                cache=tmp_path)
    assert found.bibcodes == [OLD[0]] and "within 3.6 arcsec" in found.source
    assert ("CONTAINS(POINT('ICRS', basic.ra, basic.dec), "
            "CIRCLE('ICRS', 169.5686000, -32.8126000, 0.0010000)) = 1"
            ) in requests[0].parameters["QUERY"]
    assert requests[1].parameters["q"] == 'object:"169.5686000 -32.8126000:0.0010000"'
    north = Ads(token="x").question(SkyCoord(10, 5, unit="deg"), 1 * u.deg)
    assert north == 'object:"10.0000000 +5.0000000:1.0000000"'  # the sign is part of the syntax


def test_quotes_in_a_name_do_no_harm(tmp_path):
    name = """Barnard's "runaway" star'; DROP TABLE ref --"""
    with play([simbad_answer()], [ads_answer()]) as (url, requests):
        find_literature(name, services=services(url), cache=tmp_path)
    assert ("ident.id = 'Barnard''s \"runaway\" star''; DROP TABLE ref --' ORDER"
            in requests[0].parameters["QUERY"])
    assert r'abs:"Barnard' in requests[1].parameters["q"]
    assert r'\"runaway\"' in requests[1].parameters["q"]


def test_preprint_and_article_are_one_paper(tmp_path):
    preprint = ("2028arXiv280112345B", *STUDY[1:])
    with play([simbad_answer(preprint, STUDY)],
              [ads_answer(ads_paper(STUDY, preprint[0]))]) as (url, _):
        found = find_literature("NGC 9999", services=services(url), cache=tmp_path)
    assert found.bibcodes == [STUDY[0]]
    assert found[0]["n_objects"] == 2


def test_a_paper_that_names_the_source_in_its_title_is_about_it(tmp_path):
    about = ads_paper(("2001Inv...1....1A", "Timing of ngc9999", "Old.", 2001, None))
    other = ads_paper(("2031Inv...1....1B", "Timing of something", "New.", 2031, None))
    with play([simbad_answer()], [ads_answer(other, about)]) as (url, _):
        found = find_literature("NGC 9999", services=services(url), cache=tmp_path)
        assert found.bibcodes == ["2001Inv...1....1A", "2031Inv...1....1B"]
        at_position = find_literature(POSITION, radius=1 * u.arcsec, services=services(url),
                                      cache=tmp_path)
        assert at_position.bibcodes == ["2031Inv...1....1B", "2001Inv...1....1A"]


def test_answers_are_kept_and_nothing_known_is_an_answer(tmp_path):
    with play([simbad_answer()], [ads_answer()]) as (url, requests):
        for _ in range(2):
            found = find_literature("no such source", services=services(url), cache=tmp_path)
            assert not found and found.bibcodes == [] and found.n_tokens == 0
        assert len(requests) == 2
        find_literature("no such source", services=services(url), cache=tmp_path, max_age=1)
        assert len(requests) == 2
        find_literature("no such source", services=services(url), cache=tmp_path, max_age=0)
        assert len(requests) == 4


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:40], lambda data: b"\xff\xfe" + data,
    lambda data: data.replace(b"a soft source", b"a hard source"),
    lambda data: b"[1, 2]", lambda data: data.replace(b"NGC 9999'", b"NGC 9998'")])
def test_a_damaged_answer_is_asked_for_again(tmp_path, damage):
    with play([simbad_answer(STUDY)], [ads_answer()]) as (url, requests):
        first = find_literature("NGC 9999", services=services(url), cache=tmp_path)
        file, = [f for f in tmp_path.rglob("*.json") if b"SIMBAD" in f.read_bytes()]
        good = file.read_bytes()
        assert damage(good) != good
        file.write_bytes(damage(good))
        assert find_literature("NGC 9999", services=services(url), cache=tmp_path) == first
    assert [request.path for request in requests] == ["/tap/sync", "/ads", "/tap/sync"]
    assert json.loads(file.read_bytes())["answer"] == json.loads(good)["answer"]


def test_the_cache_is_in_astropys_by_default(tmp_path):
    from astropy.config import set_temp_cache

    with play([simbad_answer(STUDY)], [ads_answer()]) as (url, requests):
        with set_temp_cache(tmp_path):
            find_literature("NGC 9999", services=services(url))
    assert len(list((tmp_path / "astropy" / "stingray-align").rglob("*.json"))) == 2


def test_a_busy_service_is_waited_for_as_long_as_it_says(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    busy = Reply("slow down", status=429, headers={"Retry-After": 7})
    with play([busy, simbad_answer(OLD)], [busy, ads_answer()]) as (url, requests):
        found = find_literature("NGC 9999", services=services(url), cache=tmp_path)
    assert found.bibcodes == [OLD[0]] and len(requests) == 4
    assert slept.count(7) == 2


@pytest.mark.parametrize("first", [
    Reply("<html>maintenance</html>", status=503, type="text/html"),
    Reply(simbad_answer(OLD).body, cut=200),
    Reply(simbad_answer(OLD).body[:-60]),
    Reply("<html>Please log in</html>", type="text/html"),
    Reply(b"\x00\x01\x02"),
], ids=["503", "cut", "short", "html", "bytes"])
def test_simbad_is_asked_again_when_an_answer_is_broken(tmp_path, first):
    with play([first, simbad_answer(OLD)], [ads_answer()]) as (url, requests):
        found = find_literature("NGC 9999", services=services(url), cache=tmp_path)
    assert found.bibcodes == [OLD[0]]
    assert [request.path for request in requests] == ["/tap/sync", "/tap/sync", "/ads"]


@pytest.mark.parametrize("first", [
    Reply("busy", status=502),
    Reply(ads_answer(ads_paper(OLD)).body | {"more": "x" * 200}, cut=150),
    Reply('{"response": {"docs": [{"bib'),
    Reply('{"error": "no"}'), Reply("[]"),
    Reply({"response": {"docs": [{"title": ["no bibcode"]}]}}),
], ids=["502", "cut", "short", "error", "list", "document"])
def test_ads_is_asked_again_when_an_answer_is_broken(tmp_path, first):
    with play([simbad_answer()], [first, ads_answer(ads_paper(OLD))]) as (url, requests):
        found = find_literature("NGC 9999", services=services(url), cache=tmp_path)
    assert found.bibcodes == [OLD[0]]
    assert [request.path for request in requests] == ["/tap/sync", "/ads", "/ads"]


def test_a_service_that_does_not_answer_in_time_is_asked_again(tmp_path):
    with play([Reply(simbad_answer(OLD).body, delay=0.5), simbad_answer(OLD)],
              [Reply(b"", delay=0.5), ads_answer()]) as (url, requests):
        asked = services(url)
        for service in asked:
            service.timeout = 0.2
        found = find_literature("NGC 9999", services=asked, cache=tmp_path)
    assert found.bibcodes == [OLD[0]] and len(requests) == 4


@pytest.mark.parametrize("simbad, ads, message", [
    (Reply("<html>"), ads_answer(), "SIMBAD at .* cannot be read"),
    (Reply("broken", status=500), ads_answer(), "SIMBAD at .* fails"),
    (simbad_answer(status="ERROR"), ads_answer(), "SIMBAD refuses the query: Unknown table"),
    (Reply(simbad_answer(status="ERROR").body, status=400), ads_answer(), "refuses the query"),
    (simbad_answer(), Reply("{"), "ADS at .* cannot be read"),
    (simbad_answer(), Reply("{}", status=401), "does not accept the token"),
    (simbad_answer(), Reply("{}", status=429), "enough queries for today"),
    (simbad_answer(), Reply("{}", status=500), "ADS at .* fails"),
], ids=["nonsense", "500", "error", "400", "ads-nonsense", "401", "429", "ads-500"])
def test_a_service_that_fails_for_good_says_so_and_leaves_no_answer(tmp_path, simbad, ads,
                                                                    message):
    with play([simbad], [ads]) as (url, _):
        with pytest.raises(ArchiveError, match=message):
            find_literature("NGC 9999", services=services(url), cache=tmp_path)
    broken = "SIMBAD" if "SIMBAD" in message or "query:" in message else "ADS"
    assert not [f for f in tmp_path.rglob("*.json")
                if json.loads(f.read_text())["question"].startswith(broken)]


def test_a_service_out_of_reach(tmp_path):
    with play([simbad_answer()], [ads_answer()]) as (url, _):
        pass  # the server is gone now
    for service in services(url):
        with pytest.raises(ArchiveError, match="Max retries|cannot be reached"):
            find_literature("NGC 9999", services=[service], cache=tmp_path)


@pytest.mark.parametrize("service, package", [(0, "pyvo"), (1, "astroquery.nasa_ads")])
def test_a_package_that_is_not_installed(monkeypatch, tmp_path, service, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingModelError, match=r"pip install stingray-align\[remote\]"):
        find_literature("M 82", services=[services("http://127.0.0.1:1")[service]],
                        cache=tmp_path)


def test_text_that_is_not_utf8(tmp_path):
    paper = (OLD[0], "Röntgenstrahlung of Šafařík", "Flux of 3 µJy.", 1979, 1)
    latin = ("1979Inv...230...51A", "Röntgen", "Flux of 3 µJy ± 1.", 1979, 1)
    with play([simbad_answer(paper), simbad_answer(latin, encoding="latin-1")],
              [ads_answer(), Reply(json.dumps(ads_answer(ads_paper(latin)).body,
                                              ensure_ascii=False).encode("latin-1"))]
              ) as (url, _):
        good = find_literature("one", services=services(url), cache=tmp_path)
        assert (good[0]["title"], good[0]["abstract"]) == paper[1:3]
        for service in services(url):
            old = find_literature("two", services=[service], cache=tmp_path)
            assert (old[0]["title"], old[0]["abstract"]) == latin[1:3]


def test_an_encoding_that_the_answer_declares_is_believed(tmp_path):
    body = simbad_answer((OLD[0], "Šafařík", "Text.", 1979, 1), encoding="iso-8859-2").body
    with play([Reply(body.replace(b"utf-8", b"iso-8859-2"))], [ads_answer()]) as (url, _):
        found = find_literature("one", services=services(url), cache=tmp_path)
    assert found[0]["title"] == "Šafařík"


def test_an_answer_in_binary_rows_is_read_too(tmp_path):
    table = parse(io.BytesIO(simbad_answer(OLD, STUDY).body))
    table.get_first_table().format = "binary"
    binary = io.BytesIO()
    table.to_xml(binary)
    assert b"<BINARY>" in binary.getvalue()
    with play([Reply(binary.getvalue())], [ads_answer()]) as (url, _):
        found = find_literature("one", services=services(url), cache=tmp_path)
    assert found.bibcodes == [STUDY[0], OLD[0]] and found[0]["abstract"] == STUDY[2]


def test_numbers_that_are_missing(tmp_path):
    with play([simbad_answer((OLD[0], "Title", "Text.", None, None))],
              [ads_answer()]) as (url, _):
        found = find_literature("one", services=services(url), cache=tmp_path)
    assert (found[0]["year"], found[0]["n_objects"]) == (None, None)


def test_without_a_token_ads_is_left_out(tmp_path):
    with play([simbad_answer(OLD)], [ads_answer(ads_paper(STUDY))]) as (url, requests):
        with pytest.warns(AstropyUserWarning, match="ADS is not asked.*token"):
            found = find_literature("NGC 9999", services=services(url, token=None),
                                    cache=tmp_path)
        assert found.asked == ("SIMBAD",) and len(requests) == 1
        # with a token later, only ADS is asked
        found = find_literature("NGC 9999", services=services(url), cache=tmp_path)
        assert set(found.bibcodes) == {OLD[0], STUDY[0]}
        assert [request.path for request in requests] == ["/tap/sync", "/ads"]
        with pytest.warns(AstropyUserWarning, match="token"), pytest.raises(ValueError):
            find_literature("NGC 9999", services=services(url, token=None)[1:], cache=tmp_path)


def test_the_token_is_found_in_the_usual_places(monkeypatch, tmp_path):
    assert Ads().token is None
    folder = tmp_path / "home" / ".ads"
    folder.mkdir(parents=True)
    (folder / "token").write_text("from file\n")
    assert Ads().token == "from file"
    monkeypatch.setenv("ADS_DEV_KEY", "from environment")
    assert Ads().token == "from environment"
    assert Ads(token="given").token == "given"
    assert "given" not in repr(Ads(token="given"))


def test_tokens_are_limited(tmp_path):
    with play([simbad_answer(OLD, STUDY, SURVEY)], [ads_answer()]) as (url, _):
        def find(**options):
            return find_literature("NGC 9999", services=services(url), cache=tmp_path, **options)

        def words(text):
            return len(text.split())

        everything = find(count_tokens=words)
        lengths = [words(" ".join([p["bibcode"], p["title"], p["abstract"]])) for p in everything]
        assert len(everything) == 3 and everything.n_tokens == sum(lengths)
        # the second does not fit any more, the third does
        assert lengths[2] < lengths[1]
        some = find(count_tokens=words, n_tokens=lengths[0] + lengths[2])
        assert some.bibcodes == [everything[0]["bibcode"], everything[2]["bibcode"]]
        assert (some.n_found, some.n_tokens) == (3, lengths[0] + lengths[2])
        assert not find(n_tokens=0)
        assert find(n_tokens=1000).n_tokens <= 1000


def test_literature_is_what_write_summary_takes(tmp_path):
    class Writer:
        def write(self, facts, papers):
            return papers

    with play([simbad_answer(OLD, STUDY)], [ads_answer()]) as (url, _):
        found = find_literature("NGC 9999", services=services(url), cache=tmp_path)
    papers = write_summary({"counts": 3}, abstracts=found, backend=Writer())
    assert papers == [dict(zip(("bibcode", "title", "abstract"), paper[:3]))
                      for paper in (STUDY, OLD)]


def test_many_sources_resume_where_they_stopped(tmp_path, capsys):
    names = [f"source {i}" for i in range(5)]
    with play([simbad_answer(OLD)], [ads_answer()]) as (url, requests):
        simbad, ads = services(url)
        ask = simbad._ask

        def interrupted(question):
            if "source 3" in question:
                raise KeyboardInterrupt
            return ask(question)

        simbad._ask = interrupted
        with pytest.raises(KeyboardInterrupt):
            gather_literature(names, services=[simbad, ads], cache=tmp_path)
        assert len(requests) == 6
        found = gather_literature(Table({"name": names})["name"], services=services(url),
                                  cache=tmp_path, progress=False)
        assert len(requests) == 10
    assert [f.source for f in found] == names and all(f.bibcodes == [OLD[0]] for f in found)
    assert "3/5" in capsys.readouterr().err  # the progress bar


def test_many_positions(tmp_path):
    positions = SkyCoord([10, 20], [-5, 5], unit="deg")
    with play([simbad_answer(OLD), simbad_answer()], [ads_answer()]) as (url, _):
        found = gather_literature(positions, radius=2 * u.arcsec, services=services(url),
                                  cache=tmp_path, progress=False)
    assert [len(f) for f in found] == [1, 0]


def test_a_failure_does_not_stop_the_others_but_several_do(tmp_path):
    def answer(request):
        return Reply("no", status=500) if "bad" in request.parameters["QUERY"] else \
            simbad_answer(OLD)

    with serving(answer) as (url, requests):
        simbad = services(url)[:1]
        names = ["good", "bad 1", "bad 2", "fine"]
        with pytest.warns(AstropyUserWarning, match="2 of 4 sources failed"):
            found = gather_literature(names, services=simbad, cache=tmp_path, progress=False)
        assert [f and f.bibcodes for f in found] == [[OLD[0]], None, None, [OLD[0]]]
        with pytest.raises(ArchiveError, match="the last 3 sources failed"):
            gather_literature([*names[:3], "bad 3", "never asked"], services=simbad,
                              cache=tmp_path, progress=False)
    assert not any("never asked" in request.parameters["QUERY"] for request in requests)


def test_turns_are_kept_over_all_objects_of_one_address(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    address = "http://127.0.0.1:1/turns"
    for expected in (100.0, 100.25, 100.5):
        Simbad(address, per_second=4)._wait_for_turn()
        assert clock[0] == pytest.approx(expected)
    clock[0] = 200.0  # a pause earns no burst
    for expected in (200.0, 200.25):
        Simbad(address, per_second=4)._wait_for_turn()
        assert clock[0] == pytest.approx(expected)


@pytest.mark.parametrize("source, options, message", [
    ("  ", {}, "empty name"), (3, {}, "name or one SkyCoord"),
    (POSITION, {}, "needs a radius"), (POSITION, {"radius": 2}, "needs a radius"),
    (POSITION, {"radius": 0 * u.deg}, "needs a radius"),
    (SkyCoord([1, 2], [3, 4], unit="deg"), {"radius": 1 * u.deg}, "gather_literature"),
    ("M 82", {"services": []}, "no service")])
def test_sources_that_are_none(source, options, message, tmp_path):
    options = {"services": services("http://127.0.0.1:1"), **options}
    with pytest.raises(ValueError, match=message):
        find_literature(source, cache=tmp_path, **options)


@pytest.mark.parametrize("sources, message", [
    ("M 82", "find_literature takes one"), (POSITION, "find_literature takes one"),
    (Table({"name": ["M 82"]}), r"table\['name'\]"), (["M 82", ""], "empty name")])
def test_sequences_that_are_none(sources, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gather_literature(sources, radius=1 * u.arcsec, cache=tmp_path,
                          services=services("http://127.0.0.1:1"))


def test_literature_shows_itself():
    found = Literature("M 82", papers=({"bibcode": "a"},), n_found=3, n_tokens=7, asked=("ADS",))
    assert repr(found) == "<Literature M 82: 1 of 3 papers, 7 tokens, from ADS>"


@pytest.mark.remote_data
def test_the_live_simbad(tmp_path):
    found = find_literature("M 82 X-1", services=[Simbad()], cache=tmp_path)
    assert len(found) > 5 and found[0]["abstract"] and found[0]["n_objects"] < 10
    assert all(len(paper["bibcode"]) == 19 for paper in found)
    m82_x1 = SkyCoord("09h55m50.2s", "+69d40m47s")
    near = find_literature(m82_x1, radius=2 * u.arcsec, services=[Simbad()], cache=tmp_path,
                           n_tokens=100_000)
    assert set(near.bibcodes) & set(found.bibcodes)
    assert not find_literature("no such source 'here'", services=[Simbad()], cache=tmp_path)


@pytest.mark.remote_data
def test_the_live_ads(tmp_path, monkeypatch):
    monkeypatch.undo()  # the token of who runs this
    if Ads().token is None:
        pytest.skip("no token for ADS")
    found = find_literature("M 82 X-1", services=[Ads()], cache=tmp_path)
    assert len(found) > 5 and found[0]["abstract"]
    m82_x1 = SkyCoord("09h55m50.2s", "+69d40m47s")
    assert find_literature(m82_x1, radius=2 * u.arcsec, services=[Ads()], cache=tmp_path)
    assert not find_literature("qwertyuiop 9999", services=[Ads()], cache=tmp_path)
