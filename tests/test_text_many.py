"""Summaries of many sources: costs nothing twice, survives interruptions, counts beforehand."""

import json
from collections import Counter

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.exceptions import AstropyUserWarning
from chat_models import UNKNOWN, answer, chat_reply, endpoint, save_tiny_chat

from stingray_align.text import (Chat, ChatError, LocalChat, OfflineWriter, OpenAIChat, Summary,
                                 estimate_tokens, read_papers, summarize)


def source(name, *, index):
    return {"name": name, "photon_index": index}


FACTS = [source(name, index=1.1 + i) for i, name in enumerate("ABCDE")]
PAPERS = [[{"bibcode": f"2020{name}", "title": f"On {name}", "abstract": "It is a star."}]
          for name in "ABCDE"]


def good(name, **changes):
    slots = {**UNKNOWN, "photon_index": 1.1 + "ABCDE".index(name)}
    return answer(summary=f"{name} " + "word " * 70, slots=slots, bibcodes=[f"2020{name}"],
                  **changes)


class Scripted(Chat):
    """Answers by the name of the source; keeps of whom it was asked."""

    name = "scripted@1"

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def complete(self, messages):
        name = json.loads(messages[1]["content"])["facts"]["name"]
        self.asked.append(name)
        said = self.answers.get(name, good(name))
        if isinstance(said, list):
            said = said.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said, self.name


def run(chat, folder=None, **options):
    return summarize(FACTS, abstracts=PAPERS, backend=chat, cache=folder, progress=False, **options)


def test_second_run_asks_nothing(tmp_path):
    first_chat, second_chat = Scripted(), Scripted()
    first, second = run(first_chat, tmp_path / "cache"), run(second_chat, tmp_path / "cache")
    assert [s.text[0] for s in first.summaries] == list("ABCDE") and first.failures == []
    assert first.summaries == second.summaries
    assert (first.n_cached, second.n_cached) == (0, 5)
    assert first_chat.asked == list("ABCDE") and second_chat.asked == []
    assert first.kinds == Counter(llm=5)
    assert "5 of 5 sources have a summary (5 llm); 5 verdicts known" in str(second)


@pytest.mark.parametrize("change", ["facts", "papers", "model", "decoding", "max_input_tokens"])
def test_whatever_shapes_an_answer_is_asked_anew(tmp_path, monkeypatch, change):
    run(Scripted(), tmp_path)
    facts, papers, chat = list(FACTS), list(PAPERS), Scripted()
    if change == "facts":
        facts[1] = {**facts[1], "counts": 3}
    elif change == "papers":
        papers[1] = [{**papers[1][0], "abstract": "It is a polar."}]
    elif change == "model":
        chat.name = "scripted@2"
    elif change == "decoding":
        monkeypatch.setattr(Scripted, "decoding", {"temperature": 1.0})
    else:
        chat.max_input_tokens = 7000
    summarize(facts, abstracts=papers, backend=chat, cache=tmp_path, progress=False)
    assert chat.asked == (["B"] if change in ("facts", "papers") else list("ABCDE"))


def test_another_prompt_is_asked_anew(tmp_path, monkeypatch):
    import stingray_align.text.many as many

    run(Scripted(), tmp_path)
    monkeypatch.setattr(many, "prompt", lambda: ("other", "hash"))
    chat = Scripted()
    run(chat, tmp_path)
    assert chat.asked == list("ABCDE")


def test_failures_are_kept_and_asked_again_on_request(tmp_path):
    chat = Scripted(B="no", D=ChatError("x refused: no", raw="I refuse"))
    written = run(chat, tmp_path)
    assert chat.asked == list("ABCDE") + ["B"]  # B once more, with the reason
    assert [failure.index for failure in written.failures] == [1, 3]
    assert written.summaries[1] is written.summaries[3] is None
    assert "no JSON object" in written.failures[0].reason and written.failures[0].raw == "no"
    assert written.failures[1].raw == "I refuse"
    again = run(silent := Scripted(), tmp_path)
    assert silent.asked == [] and again.failures == written.failures and again.n_cached == 5
    healed = run(chat := Scripted(), tmp_path, retry_failed=True)
    assert sorted(chat.asked) == ["B", "D"] and healed.failures == [] and healed.n_cached == 3


def test_refused_once_then_accepted(tmp_path):
    chat = Scripted(C=[good("C").replace("2020C", "1999Invented"), good("C")])
    written = run(chat, tmp_path)
    assert written.failures == [] and chat.asked == list("ABCDE") + ["C"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ChatError("wrong key", hopeless=True)])
def test_goes_on_after_an_interruption(tmp_path, stop):
    with pytest.raises(type(stop)):
        run(Scripted(C=stop), tmp_path)
    chat = Scripted()
    written = run(chat, tmp_path)
    assert chat.asked == list("CDE") and written.n_cached == 2
    assert written.summaries == run(Scripted()).summaries


def test_no_answer_is_not_kept(tmp_path):
    written = run(Scripted(B=ChatError("too late")), tmp_path)
    assert [(f.index, f.reason, f.raw) for f in written.failures] == [(1, "too late", None)]
    chat = Scripted()
    assert run(chat, tmp_path).failures == [] and chat.asked == ["B"]


def test_an_endpoint_that_is_down_ends_the_run():
    class Down(Scripted):
        def complete(self, messages):
            self.asked.append(messages)
            raise ChatError("busy")

    chat = Down()
    with pytest.raises(ChatError, match="busy"):
        summarize([source("A", index=1.1)] * 30, backend=chat, progress=False)
    assert len(chat.asked) == 10


def test_damaged_verdicts_are_asked_anew(tmp_path):
    run(Scripted(), tmp_path)
    for file in sorted(tmp_path.rglob("*.json"))[:2]:
        file.write_text("{" if file.name < "8" else "[]")
    chat = Scripted()
    assert run(chat, tmp_path).failures == [] and len(chat.asked) == 2


def test_nothing_to_write_from():
    chat = Scripted()
    written = summarize([{"name": "A"}, source("B", index=2.1), source("C", index=3.1)],
                        abstracts=[(), PAPERS[1], None], backend=chat, progress=False)
    assert chat.asked == ["B"]
    assert ["no literature, no summary" in f.reason for f in written.failures] == [True, False]
    assert "could not be asked for" in written.failures[1].reason


def test_cost_is_known_before(tmp_path):
    chat = Scripted()
    facts, papers = [*FACTS, {"name": "F"}], [*PAPERS, ()]
    options = dict(abstracts=papers, backend=chat, cache=tmp_path)
    cost = estimate_tokens(facts, **options)
    assert chat.asked == [] and (cost.n_sources, cost.n_cached, cost.n_impossible) == (6, 0, 1)
    assert cost.n_calls == 5 and cost.tokens == cost.input_tokens + cost.output_tokens
    assert "6 sources: 5 to write, 0 known from before, 1 with nothing" in str(cost)
    sent = []
    chat.complete = lambda messages: sent.append(chat.count_tokens(messages)) or (
        good(json.loads(messages[1]["content"])["facts"]["name"]), "m")
    summarize(facts, progress=False, **options)
    assert sum(sent) == cost.input_tokens
    after = estimate_tokens(facts, **options)
    assert (after.n_cached, after.n_calls, after.tokens) == (5, 0, 0)


def test_one_warning_for_all_that_is_cut():
    chat = Scripted()
    chat.max_input_tokens = 1200
    extra = {"bibcode": "x", "title": "", "abstract": "long " * 800}
    long = [[*papers, extra] for papers in PAPERS]
    with pytest.warns(AstropyUserWarning, match="5 abstracts of 5 sources are left out") as caught:
        written = summarize(FACTS, abstracts=long, backend=chat, progress=False)
    assert len(caught) == 1 and written.failures == []
    assert [s.provenance["bibcodes_given"] for s in written.summaries] == [
        [f"2020{name}"] for name in "ABCDE"]


def test_rows_of_a_table_with_units():
    asked = []

    class Curious(Scripted):
        def complete(self, messages):
            asked.append(json.loads(messages[1]["content"])["facts"])
            return "no", "m"

    table = QTable({
        "name": np.array([b"A", b"B"]), "exposure": [20, 30] * u.ks,
        "flux_aper_b": [1e-14, np.nan] * u.erg / u.s / u.cm**2, "significance": [3.5, 4.5],
        "var_flag": [True, False], "pair": np.ones((2, 2)),
        "kT": MaskedColumn([0.5, 1.0], mask=[True, False], unit="keV")})
    for one in (table, Table(table)):
        asked.clear()
        summarize(one, backend=Curious(), progress=False)
        assert asked[:2] == [
            {"name": "A", "exposure": "20000 s", "flux_aper_b": "1e-14 erg / (s cm2)",
             "significance": 3.5, "var_flag": True},
            {"name": "B", "exposure": "30000 s", "significance": 4.5, "var_flag": False,
             "kT": "1 keV"}]


def test_without_a_model():
    written = summarize([{"counts": 3}, {"name": "B"}], backend=OfflineWriter(), progress=False)
    assert isinstance(written.summaries[0], Summary) and written.summaries[1] is None
    assert written.kinds == Counter(deterministic=1) and written.failures[0].index == 1


@pytest.mark.parametrize("bad, reason", [
    ({"photon_index": "<1.7"}, "fact 'photon_index' is '<1.7'"), ({"counts": np.inf}, "is inf"),
    ({"hardness": "soft"}, "'hardness' is 'soft'"), ({"kT": 1.0, "kT_err": np.inf}, "'kT_err'"),
    ({"counts": True}, "is True"), ({"exposure": 3 * u.ks, "counts": "many"}, "'counts' is 'many'"),
])
def test_a_bad_row_fails_alone(bad, reason):
    written = summarize([{"counts": 5}, bad], backend=OfflineWriter(), progress=False)
    assert written.summaries[0].text == "5 counts were recorded."
    (failure,) = written.failures
    assert failure.index == 1 and reason in failure.reason


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="5 sources and abstracts for 4"):
        summarize(FACTS, abstracts=PAPERS[:4], backend=OfflineWriter())


def test_over_the_network(tmp_path):
    def reply(request):
        name = json.loads(request.json["messages"][1]["content"])["facts"]["name"]
        if name == "B" and len(request.json["messages"]) == 2:
            return "{broken"
        if name == "D":
            return chat_reply(None, refusal="never")
        return 500 if name == "E" else good(name)

    with endpoint(reply) as (url, requests):
        chat = OpenAIChat(url, model="tiny", max_retries=1, concurrency=3)
        written = run(chat, tmp_path)
        assert Counter(json.loads(r.json["messages"][1]["content"])["facts"]["name"]
                       for r in requests) == dict(A=1, B=2, C=1, D=1, E=2)
        assert [f.index for f in written.failures] == [3, 4]
        run(chat, tmp_path)
        assert len(requests) == 9  # E only, which had no answer


def test_on_this_machine(tmp_path, monkeypatch):
    chat = LocalChat(save_tiny_chat(tmp_path / "model"), device="cpu", max_new_tokens=3,
                     batch_size=2)
    written = run(chat, tmp_path / "cache")  # a random model knows no JSON
    assert len(written.failures) == 5 and all("no JSON object" in f.reason
                                              for f in written.failures)
    monkeypatch.setattr(LocalChat, "_generate", lambda self, rows: pytest.fail("asked again"))
    assert run(chat, tmp_path / "cache").failures == written.failures


def test_papers_of_a_file(tmp_path):
    path = tmp_path / "papers.jsonl"
    lines = [{"name": " A", "bibcode": "1", "title": "é", "abstract": "x", "year": 2000},
             {"name": "Z", "bibcode": "2", "title": "", "abstract": ""},
             {"name": "A", "bibcode": "3", "title": "", "abstract": ""}]
    path.write_text("\n\n".join(map(json.dumps, lines)))
    papers = read_papers(path, ["B", "A"])
    assert papers == [[], [{"bibcode": "1", "title": "é", "abstract": "x"},
                           {"bibcode": "3", "title": "", "abstract": ""}]]
    with pytest.raises(ValueError, match="no paper on any of the 1 sources"):
        read_papers(path, ["C"])
    path.write_text('{"name": "A", "bibcode": "1", "title": ""}')
    with pytest.raises(ValueError, match="line 1: not a JSON object with name"):
        read_papers(path, ["A"])
