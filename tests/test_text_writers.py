import json
import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.utils.exceptions import AstropyUserWarning
from chat_models import UNKNOWN, answer, chat_reply, endpoint

from stingray_align.errors import MissingModelError
from stingray_align.text import (CLASSES, Chat, ChatError, OfflineWriter, OpenAIChat, SummaryError,
                                 write_summary)
from stingray_align.text.asking import Conversation
from stingray_align.text.writers import significant

FACTS = {"instrument": "ACIS-S", "counts": 150, "photon_index": 1.8}
PAPERS = [{"bibcode": "2020ApJ...1A", "title": "A source", "abstract": "It is a polar."}]


def test_remote_answer():
    with endpoint(chat_reply(answer(), fingerprint="fp1")) as (url, requests):
        backend = OpenAIChat(url, model="tiny", api_key="secret", seed=4)
        summary = write_summary(FACTS, abstracts=PAPERS, backend=backend)
    assert len(summary.text.split()) == 80
    assert summary.slots == {"class": "polar", "photon_index": 1.8}
    assert summary.paraphrase == " ".join(["plain"] * 20)
    provenance = summary.provenance
    assert provenance["kind"] == "llm" and provenance["model"] == "tiny-2030"
    assert provenance["revision"] == "fp1" and provenance["confidence"] == "high"
    assert provenance["prompt_version"] == "summary-v2" and len(provenance["prompt_hash"]) == 16
    assert provenance["bibcodes"] == provenance["bibcodes_given"] == ["2020ApJ...1A"]
    assert provenance["decoding"] == {"temperature": 0.0, "seed": 4}
    request, = requests
    body = request.json
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret"
    assert body["model"] == "tiny" and body["temperature"] == 0 and body["seed"] == 4
    system, user = body["messages"]
    assert all(name in system["content"] for name in CLASSES)
    assert json.loads(user["content"]) == {"facts": FACTS, "papers": PAPERS}
    assert "secret" not in repr(backend)


BROKEN = [
    ("Sorry, I cannot.", "no JSON object"),
    ("{broken}", "not valid JSON"),
    ("", "no JSON object"),
    (json.dumps({"summary": "a"}), "lacks 'paraphrase'; it lacks 'slots'"),
    ('{"summary": ' + "[" * 100_000 + "}", "not valid JSON"),
    ('{"summary": "It is', "cut off"),
    (answer(summary="too short"), "2 words, 60 to 150"),
    (answer(summary=3), "'summary' is no string"),
    (answer(slots=[]), "'slots' is no object"),
    (answer(slots={"class": None}), "photon_index, kT"),
    (answer(slots={**UNKNOWN, "colour": "red"}), "no slot"),
    (answer(slots={**UNKNOWN, "class": "star"}), "no class"),
    (answer(slots={**UNKNOWN, "kT": "warm"}), "is a number"),
    (answer(slots={**UNKNOWN, "kT": "", "class": " "}), "kT, class are empty"),
    (answer(paraphrase=" "), "'paraphrase' is empty"),
    (answer(paraphrase="An AGN with a hot spectrum. " * 5), "plain words: AGN, spectrum"),
    (answer(paraphrase="brief"), "paraphrase has 1 words"),
    (answer(confidence=0.9), "none of low, medium, high"),
    (answer(summary="word " * 79 + "3.3"), "numbers that were not given: 3.3"),
    (answer(slots={**UNKNOWN, "kT": 0.7}), "not given: kT 0.7"),
    (answer(bibcodes="2020ApJ...1A"), "no list of strings"),
    (answer(bibcodes=["1999Invented"]), "cites 1999Invented"),
]


@pytest.mark.parametrize("broken, reason", BROKEN, ids=range(len(BROKEN)))
def test_invalid_then_valid(broken, reason):
    with endpoint(broken, answer()) as (url, requests):
        summary = write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert summary.slots["class"] == "polar"
    messages = requests[1].json["messages"]
    assert messages[:2] == requests[0].json["messages"]
    assert messages[2] == {"role": "assistant", "content": broken[:4000]}
    assert reason in messages[3]["content"]


def test_only_numbers_that_were_given():
    facts = {"exposure": 20 * u.ks, "n_h": 0.3, "flux_aper_b": 1.234e-14 * u.erg / u.s / u.cm**2}
    said = answer(summary="word " * 60 + "5.6 ks of 20 ks; 3e21 cm-2, 1.23e-14 erg/s/cm2, in 2011",
                  slots={**UNKNOWN, "period": 3600.0, "n_h": 0.3})
    papers = [{**PAPERS[0], "abstract": "In 2011 it varied for 5600 s with a period of 1 h."}]
    with endpoint(said) as (url, requests):
        summary = write_summary(facts, abstracts=papers, backend=OpenAIChat(url, model="tiny"))
    assert summary.slots == {"period": 3600.0, "n_h": 0.3}
    shown = json.loads(requests[0].json["messages"][1]["content"])["facts"]
    assert shown == {"exposure": "20000 s", "n_h": "3e+21 cm-2",
                     "flux_aper_b": "1.234e-14 erg / (s cm2)"}


def test_half_a_surrogate_pair_is_replaced():
    with endpoint(answer(summary="word " * 70 + "\ud83d")) as (url, _):
        summary = write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert summary.text.endswith("word ?")


class Parrot(Chat):
    """Gives the answers in turn and keeps what it was asked; a token is a word."""

    def __init__(self, *answers, max_input_tokens=8000):
        self.answers, self.asked, self.max_input_tokens = list(answers), [], max_input_tokens

    def complete(self, messages):
        self.asked.append(messages)
        return self.answers.pop(0), "parrot@1"

    def count_tokens(self, messages):
        return sum(len(message["content"].split()) for message in messages)


def test_abstracts_that_do_not_fit_are_left_out():
    papers = [{"bibcode": f"200{i}ApJ", "title": f"Paper {i}", "abstract": "long " * 500}
              for i in range(4)]
    room = Parrot().count_tokens([{"content": "x"}]) + 1900
    parrot = Parrot(answer(bibcodes=["2003ApJ"]), answer(bibcodes=["2001ApJ"]),
                    max_input_tokens=room)
    with pytest.warns(AstropyUserWarning, match="[12] abstracts of 1 source are left out"):
        summary = write_summary(FACTS, abstracts=papers, backend=parrot)
    given = [paper["bibcode"] for paper in
             json.loads(parrot.asked[1][1]["content"])["papers"]]
    assert 0 < len(given) < 4 and given == [p["bibcode"] for p in papers[:len(given)]]
    assert summary.provenance["bibcodes_given"] == given
    assert all(parrot.count_tokens(messages) <= room for messages in parrot.asked)
    with pytest.raises(ValueError, match="not one abstract fits"):
        write_summary({"name": "A"}, abstracts=papers, backend=Parrot(max_input_tokens=700))
    with pytest.raises(ValueError, match="give fewer facts"):
        write_summary(FACTS, abstracts=papers, backend=Parrot(max_input_tokens=10))


def test_no_room_for_a_second_attempt():
    room = Parrot().count_tokens(Conversation(FACTS, [], Parrot()).messages) + 20
    parrot = Parrot("nonsense " * 2000, max_input_tokens=room)
    with pytest.raises(SummaryError, match="no acceptable summary in 1 attempt;") as error:
        write_summary(FACTS, backend=parrot)
    assert error.value.raw.startswith("nonsense") and len(parrot.asked) == 1


def test_a_name_and_a_position_are_no_ground_for_a_summary():
    with pytest.raises(ValueError, match="no literature, no summary"):
        write_summary({"name": "M82 X-1", "ra": 148.96, "dec": 69.68}, backend=Parrot())


def test_invalid_twice_keeps_the_raw_answer():
    with endpoint("{", "I am a teapot") as (url, requests):
        with pytest.raises(SummaryError, match="2 attempts.*no JSON object.*teapot") as error:
            write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert error.value.raw == "I am a teapot"
    assert len(requests) == 2


def test_refusal_is_kept():
    with endpoint(chat_reply(None, refusal="I will not.")) as (url, requests):
        with pytest.raises(SummaryError, match="tiny-2030 refused: I will not") as error:
            write_summary(FACTS, backend=OpenAIChat(url, model="tiny"))
    assert error.value.raw == "I will not." and len(requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_endpoint_is_asked_again(status):
    with endpoint(status, status, answer()) as (url, requests):
        write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert len(requests) == 3


def test_wrong_key_is_not_asked_again():
    with endpoint(401) as (url, requests):
        with pytest.raises(ChatError, match="status 401.*not now") as error:
            write_summary(FACTS, backend=OpenAIChat(url, model="tiny", api_key="secret"))
    assert error.value.hopeless and error.value.raw is None
    assert "secret" not in str(error.value) and len(requests) == 1


def test_wrappings_are_taken_off():
    wrapped = f"<think>{{perhaps}}</think>\nHere it is:\n```json\n{answer()}\n```"
    with endpoint(wrapped) as (url, _):
        summary = write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert summary.slots["class"] == "polar"


def test_settings_from_the_environment(monkeypatch):
    pytest.importorskip("openai", reason="the openai package (extra `remote`) is not installed")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        OpenAIChat(model="tiny")
    with endpoint(answer(bibcodes=[])) as (url, requests):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
        backend = OpenAIChat(model="tiny", temperature=None)
        write_summary(FACTS, backend=backend)
    assert requests[0].headers["authorization"] == "Bearer from-environment"
    assert "temperature" not in requests[0].json and "seed" not in requests[0].json


def test_no_literature_no_summary():
    with endpoint() as (url, requests):
        with pytest.raises(ValueError, match="no literature, no summary"):
            write_summary({"kT": np.nan, "class": None}, backend=OpenAIChat(url, model="tiny"))
    assert requests == []


def test_openai_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingModelError, match=r"stingray-align\[remote\]"):
        OpenAIChat(model="tiny")


# --- without a model ----------------------------------------------------------------------------

FULL = {
    "name": "SIM-1-1", "instrument": "EPIC-pn", "exposure": 20 * u.ks, "counts": np.int64(150),
    "background_counts": 3.2, "flux": 2.345e-14, "flux_err": 1e-15, "hardness": -0.3,
    "hardness_err": 0.05, "photon_index": 1.8, "photon_index_err": 0.2, "kT": np.nan, "n_h": 0.3,
    "fractional_variability": 0.25, "period": 1 * u.h, "timescale": 2e5, "soft": np.True_,
    "variable": True, "eclipsing": False, "class": "polar", "ra": 10 * u.deg,
}


def test_offline_writer():
    summary = write_summary(FULL, backend=OfflineWriter())
    assert summary == write_summary(FULL, backend=OfflineWriter())
    assert summary.text == (
        "150 counts were recorded with EPIC-pn in an exposure of 20 ks, of which 3.2 are expected "
        "from the background. The observed 0.5-7 keV flux is (2.35e-14 +/- 1e-15) erg/s/cm2. The "
        "hardness ratio (H-S)/(H+S) of the 0.5-2 and 2-7 keV bands is -0.3 +/- 0.05. The photon "
        "index is 1.8 +/- 0.2 and the absorbing column is 0.3 x 1e22 cm-2. The fractional "
        "variability is 0.25, the period is 3600 s and the timescale of the variability is 2.31 d. "
        "The source is soft and variable and it is not eclipsing. Its class in the catalogue is: "
        "polar.")
    assert summary.slots == {
        "flux": 2.345e-14, "photon_index": 1.8, "n_h": 0.3, "period": 3600.0, "timescale": 2e5,
        "soft": True, "variable": True, "eclipsing": False, "class": "polar"}
    assert summary.provenance["kind"] == "deterministic"
    assert summary.provenance["prompt_hash"] is None and summary.provenance["bibcodes"] == []


@pytest.mark.parametrize("facts, text", [
    ({"counts": 1}, "1 count was recorded."),
    ({"exposure": 500.0, "instrument": "XRT"}, "The source was observed with XRT for 500 s."),
    ({"flaring": False}, "The source is not flaring."),
    ({"soft": False, "flaring": False, "absorbed": False},
     "The source is not flaring, soft or absorbed."),
    ({"kT": 0.05}, "The temperature is 0.05 keV."),
    ({"kT": 50 * u.eV, "kT_err": 2 * u.eV}, "The temperature is (0.05 +/- 0.002) keV."),
    ({"period": 12345.6, "period_err": 10}, "The period is 12346 +/- 10 s."),
    ({"period": 999.9}, "The period is 1000 s."),
    ({"timescale": 999.96}, "The timescale of the variability is 1000 s."),
    ({"counts": 116 * u.ct, "background_counts": 2.5 * u.ct},
     "116 counts were recorded, of which 2.5 are expected from the background."),
    ({"counts": 116 * u.one}, "116 counts were recorded."),
])
def test_offline_phrases(facts, text):
    assert write_summary(facts, backend=OfflineWriter()).text == text


def test_offline_writer_invents_nothing():
    for facts in ({}, {"name": "NGC 1"}, {"kT": np.nan, "period": None}):
        with pytest.raises(ValueError, match="nothing measured, no summary"):
            write_summary(facts, backend=OfflineWriter())
    with pytest.raises(ValueError, match="cannot read abstracts"):
        write_summary(FACTS, abstracts=PAPERS, backend=OfflineWriter())


@pytest.mark.parametrize("value, text", [
    (999.4, "999"), (999.9, "1000"), (-999.9, "-1000"), (1234.6, "1235"), (99_999, "99999"),
    (123_456, "1.23e5"), (0.001, "0.001"), (9.99e-4, "9.99e-4"), (0, "0"),
    (np.nan, "nan"), (-np.inf, "-inf"),
])
def test_numbers_are_written_as_people_do(value, text):
    assert significant(value) == text


def test_bad_input():
    with pytest.raises(ValueError, match="lacks abstract"):
        write_summary(FACTS, abstracts=[{"bibcode": "a", "title": "b"}], backend=OfflineWriter())
    with pytest.raises(ValueError, match="'counts' is a list"):
        write_summary({"counts": [1, 2]}, backend=OfflineWriter())
    with pytest.raises(u.UnitConversionError):
        write_summary({"period": 3 * u.keV}, backend=OfflineWriter())


def test_openai_is_not_imported_without_need():
    code = ("import sys; from stingray_align.text import OfflineWriter, write_summary; "
            "write_summary({'counts': 3}, backend=OfflineWriter()); "
            "sys.exit('openai' in sys.modules or 'torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
