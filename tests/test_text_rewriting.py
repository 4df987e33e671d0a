"""Queries rewritten by a language model, behind the same call as the glossary."""

import json
import re
import zlib

import numpy as np
import pytest
from astropy.table import Table
from local_server import Reply, serving

from stingray_align.cli import main
from stingray_align.text import CLASSES, OpenAIChat, understand
from stingray_align.text.rewriting import PROMPT_VERSION

QUERY = "a dead star that flashes every few seconds"
GOOD = {"text": "A magnetar: an ultra-magnetised neutron star with short bursts.",
        "classes": {"magnetar with bursts": 0.8, "gamma-ray pulsar": 0.1},
        "slots": {"flaring": True, "period": 5, "soft": None}}


class Chat:
    """Answers one after the other, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def complete(self, messages):
        self.asked.append(messages)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer), "tiny-chat"


def test_a_good_answer_is_taken():
    chat = Chat("<think>a {bracket}</think> Here it is: " + json.dumps(GOOD))
    found = understand(QUERY, llm=chat)
    assert found.query == QUERY and found.text == GOOD["text"]
    assert found.slots == {"class": "magnetar with bursts", "flaring": True, "period": 5.0}
    assert (found.summary.text, found.summary.slots) == (GOOD["text"], found.slots)
    assert list(found.classes) == ["magnetar with bursts", "gamma-ray pulsar"]
    for words in ("magnetar with bursts (80%)", "period 5 s", "flaring", "rewritten by tiny-chat"):
        assert words in found.note
    system, user = chat.asked[0]
    assert user["content"] == QUERY and len(chat.asked) == 1
    assert all(f'"{name}": ' in system["content"] for name in CLASSES)
    assert "$" not in system["content"] and PROMPT_VERSION == "query-v1"


def test_an_unsure_answer_fills_no_class():
    answer = GOOD | {"classes": {"gamma-ray pulsar": 0.3, "magnetar with bursts": 0.4}}
    found = understand(QUERY, llm=Chat(answer))
    assert "class" not in found.slots
    assert list(found.classes) == ["magnetar with bursts", "gamma-ray pulsar"]
    assert understand("soft", llm=Chat(GOOD | {"classes": {}})).classes == {}


@pytest.mark.parametrize("wrong, reason", [
    ("It is a magnetar.", "no JSON object"),
    ('{"text": "a magnetar", }', "not valid JSON"),
    ({"text": "a magnetar", "slots": {}}, "lacks classes"),
    (GOOD | {"text": ""}, "1 to 150 words"),
    (GOOD | {"text": "word " * 151}, "1 to 150 words"),
    (GOOD | {"classes": {"comet": 0.9}}, "'comet' is no class"),
    (GOOD | {"classes": ["magnetar with bursts"]}, "no object"),
    (GOOD | {"classes": {"polar": "likely"}}, "no number from 0 to 1"),
    (GOOD | {"classes": {"polar": 1.2}}, "no number from 0 to 1"),
    (GOOD | {"classes": {"polar": 0.8, "dwarf nova": 0.7}}, "add up"),
    (GOOD | {"slots": {"redshift": 0.1}}, "'slots' may hold"),
    (GOOD | {"slots": {"period": "five"}}, "period"),
])
def test_a_bad_answer_is_returned_once_with_the_reason(wrong, reason):
    chat = Chat(wrong, GOOD)
    assert understand(QUERY, llm=chat).text == GOOD["text"]
    assert len(chat.asked) == 2 and reason in chat.asked[1][-1]["content"]
    assert chat.asked[1][-2]["role"] == "assistant"
    # and if it does not get better, the glossary answers and says why
    found, glossary = understand(QUERY, llm=Chat(wrong, wrong)), understand(QUERY)
    assert (found.text, found.slots, found.classes) == (glossary.text, glossary.slots,
                                                        glossary.classes)
    assert "read with the glossary" in found.note and reason in found.note
    assert "read with the glossary" not in glossary.note


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("no route"),
                                   KeyError("no route")])
def test_a_failing_backend_does_not_stop_the_search(error):
    found = understand(QUERY, llm=Chat(error))
    assert "no route" in found.note and found.text == understand(QUERY).text


def test_an_endpoint():
    pytest.importorskip("openai", reason="needs the extra `remote`")
    body = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "served",
                       "choices": [{"index": 0, "finish_reason": "stop", "message": {
                           "role": "assistant", "content": json.dumps(GOOD)}}]})
    answer = Reply(body)
    with serving([answer]) as (url, requests):
        found = understand(QUERY, llm=OpenAIChat(url, model="any"))
    assert found.text == GOOD["text"] and "rewritten by served" in found.note
    assert requests[0].json["messages"][1]["content"] == QUERY
    with serving([Reply("{}", 401)]) as (url, _):
        found = understand(QUERY, llm=OpenAIChat(url, model="any", max_retries=0))
    assert "read with the glossary" in found.note


class Words:
    """A bag of words under the name of the bundled aligner's encoder."""

    dim = 384

    def __init__(self, *_, **__):
        from stingray_align import Aligner

        self.name = Aligner.pretrained().text_model_

    def encode(self, texts):
        out = np.full((len(texts), self.dim), 1e-6, np.float32)
        for row, text in zip(out, texts):
            for word in re.findall("[a-z]+", text.lower()):
                row[zlib.crc32(word.encode()) % self.dim] += 1
        return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setattr("stingray_align.text.encoder.TextEncoder", Words)
    # which makes other vectors under this name than those in the package
    monkeypatch.setattr("stingray_align.text.glossary._Glossary._bundled_vectors",
                        lambda self, encoder: None)


def test_a_catalogue_passes_it_on(words):
    import stingray_align as sa

    catalogue = sa.AlignedCatalog.pretrained()
    found = catalogue.query(QUERY, k=3, llm=Chat(GOOD))
    assert found.meta["query"] == QUERY and "rewritten by tiny-chat" in found.meta["understood"]
    assert "rewritten" not in catalogue.query(QUERY, k=3).meta["understood"]


def test_the_command(words, capsys):
    pytest.importorskip("openai", reason="needs the extra `remote`")
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "served",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": json.dumps(GOOD)}}]}
    with serving([Reply(body)]) as (url, _):
        assert main(["query", QUERY, "-k", "2", "--llm", "any", "--llm-url", url]) == 0
    assert "rewritten by served" in capsys.readouterr().out


def test_the_benchmark_of_questions_asks_the_language_model(words, capsys, tmp_path):
    pytest.importorskip("openai", reason="needs the extra `remote`")
    from stingray_align.evaluate import plain_queries

    questions = plain_queries()
    means = {one["query"]: one["class"] for one in questions}
    refused = questions[0]["query"]

    def answer(request):
        query = request.json["messages"][1]["content"]
        found = {"text": f"A {means[query]}.", "classes": {means[query]: 0.9}, "slots": {}}
        content = "I would rather not." if query == refused else json.dumps(found)
        return Reply({"id": "1", "object": "chat.completion", "created": 0, "model": "served",
                      "choices": [{"index": 0, "finish_reason": "stop", "message": {
                          "role": "assistant", "content": content}}]})

    with serving(answer) as (url, requests):
        assert main(["benchmark", "queries", "--llm", "any", "--llm-url", url,
                     "-o", str(tmp_path / "t.ecsv")]) == 0
    assert len(requests) == len(questions) + 1  # the refusal is asked once more
    printed = capsys.readouterr().out
    assert "failed on 1 of them" in printed
    table = Table.read(tmp_path / "t.ecsv")
    recall = {row["asked"]: row["Recall@10"] for row in table if row["part"] == "held-out"}
    assert recall["language model"] > recall["as asked"] + 0.5, recall


def test_benchmarks_of_texts(words, capsys, tmp_path):
    table = tmp_path / "sense.ecsv"
    assert main(["benchmark", "domain-sense", "-o", str(table)]) == 0
    printed = capsys.readouterr().out
    assert "aligned, facts" in printed and "112 of kind jargon" in printed and table.is_file()
    assert main(["benchmark", "leakage", "--sources", "30"]) == 0
    printed = capsys.readouterr().out
    assert "R2 photon_index" in printed and "Recall@1 %" in printed


def test_wrong_queries_are_refused_as_before():
    with pytest.raises(ValueError, match="empty"):
        understand(" ", llm=Chat())
