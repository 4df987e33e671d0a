"""Chat models: the real generation of a random model, and an endpoint that misbehaves."""

import json
import os

import pytest
from chat_models import Reply, answer, chat_reply, endpoint, save_tiny_chat

from stingray_align.errors import MissingModelError
from stingray_align.text import ChatError, LocalChat, OpenAIChat, SummaryError, write_summary

FACTS = {"instrument": "ACIS-S", "counts": 150, "photon_index": 1.8}
PAPERS = [{"bibcode": "2020ApJ...1A", "title": "A source", "abstract": "It is a polar."}]


def said(*words):
    return [{"role": "user", "content": " ".join(words)}]


# -- on this machine ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_chat(tmp_path_factory.mktemp("tiny-llama"))


CONVERSATIONS = [said("a", "soft", "star"), said("star"), said(*["soft"] * 40), said("a", "a"),
                 said("star", "soft")]


def test_batches_answer_as_one_by_one(folder):
    chat = LocalChat(folder, device="cpu", max_new_tokens=8, batch_size=3)
    alone = [chat.complete(messages) for messages in CONVERSATIONS]
    together = dict(chat.complete_all(CONVERSATIONS))
    assert [together[i] for i in range(5)] == alone
    assert [i for i, _ in chat.complete_all(CONVERSATIONS)][0] == 2  # the longest first
    assert len({text for text, _ in alone}) > 1
    assert all(name == chat.name for _, name in alone)
    assert chat.decoding == {"temperature": 0.0, "seed": None, "max_new_tokens": 8}


def test_draws_are_seeded_and_independent_of_the_batch(folder):
    import torch

    def answers(batch_size, seed, temperature=5.0):
        chat = LocalChat(folder, device="cpu", max_new_tokens=12, temperature=temperature,
                         seed=seed, batch_size=batch_size)
        assert chat.decoding["seed"] == seed
        return [text for _, (text, _) in sorted(chat.complete_all(CONVERSATIONS))]

    state = torch.random.get_rng_state()
    assert answers(2, 1) == answers(5, 1)
    assert answers(2, 1) != answers(2, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    greedy = LocalChat(folder, device="cpu", max_new_tokens=12)
    assert answers(5, 1, 1e-6) == [greedy.complete(messages)[0] for messages in CONVERSATIONS]


def test_draws_follow_the_probabilities(folder):
    import torch

    from stingray_align.text.chat import _Noise

    logits = torch.tensor([[0.0, 1.0, 2.0]])
    noise = _Noise([[1, 2]], 2.0, seed=0)
    drawn = torch.tensor([int(noise(None, logits).argmax()) for _ in range(4000)])
    share = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(share, torch.softmax(logits[0] / 2.0, 0), atol=0.03)


def test_local_garbage_is_refused(folder, capfd):
    backend = LocalChat(folder, device="cpu", max_new_tokens=8)
    raw = []
    for _ in range(2):  # greedy, so the same every time, whatever sampling the model suggests
        with pytest.raises(SummaryError, match="tiny-llama.*no acceptable summary") as error:
            write_summary(FACTS, abstracts=PAPERS, backend=backend)
        raw.append(error.value.raw)
    assert raw[0] == raw[1] and set(raw[0].split()) <= {"system", "user", "assistant", ":", "a",
                                                        "star", "soft"}
    assert backend.name in repr(backend)
    assert capfd.readouterr() == ("", "")


def test_local_good_answer(folder, monkeypatch):
    # the real generation runs; only its words, which a random model cannot find, are replaced
    backend = LocalChat(str(folder), device="cpu", max_new_tokens=4)
    generate, seen = LocalChat._generate, []

    def spoken(self, rows):
        seen.extend(generate(self, rows))
        return [answer()] * len(rows)

    monkeypatch.setattr(LocalChat, "_generate", spoken)
    provenance = write_summary(FACTS, abstracts=PAPERS, backend=backend).provenance
    assert f"{provenance['model']}@{provenance['revision']}" == backend.name
    assert provenance["revision"].startswith("sha256:")
    assert provenance["decoding"]["max_new_tokens"] == 4
    assert len(seen) == 1 and len(seen[0].split()) <= 4


def test_local_limits(folder, tmp_path):
    with pytest.raises(ValueError, match="4096 tokens in all: give a smaller max_new_tokens"):
        LocalChat(folder, device="cpu", max_new_tokens=4096)
    backend = LocalChat(folder, device="cpu", max_new_tokens=4080)
    assert backend.max_input_tokens == 16
    assert backend.count_tokens(said("a", "star")) == 6  # user : a star assistant :
    outcomes = dict(backend.complete_all([said(*["a"] * 20)]))
    with pytest.raises(ChatError, match="24 tokens.*16 at most"):
        raise outcomes[0]
    with pytest.raises(ChatError, match="shorten"):
        backend.complete(said(*["a"] * 20))
    with pytest.raises(ValueError, match="give fewer facts"):
        write_summary(FACTS, backend=backend)
    with pytest.raises(ValueError, match="no literature"):
        write_summary({}, backend=backend)


def test_local_bad_folders(folder, tmp_path):
    with pytest.raises(MissingModelError, match="no folder"):
        LocalChat(tmp_path / "nowhere")
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no chat model"):
        LocalChat(tmp_path)


# -- an endpoint ----------------------------------------------------------------------------------

NOT_CHAT = [
    (Reply(b"{broken"), "no answer of a chat model"),
    (Reply(b'{"choices": "\xff\xfe"}'), "no answer of a chat model"),
    (Reply("<html>Bad gateway</html>", type="text/html"), "no answer of a chat model"),
    (Reply({"choices": 3}), "no answer of a chat model"),
    (Reply({"choices": [{"message": "word"}]}), "no answer of a chat model"),
    (Reply([]), "no answer of a chat model"),
    (chat_reply("A long answer" * 50), "broke off"),
    (Reply({"error": {"message": "too long"}}, status=400), "status 400.*too long"),
    (chat_reply("word", finish_reason="content_filter"), "content filter"),
    (chat_reply(None, refusal="No."), "refused: No."),
]
NOT_CHAT[6][0].cut = 60


@pytest.mark.parametrize("reply, reason", NOT_CHAT, ids=range(len(NOT_CHAT)))
def test_what_is_no_answer(reply, reason):
    with endpoint(reply) as (url, requests):
        chat = OpenAIChat(url, model="tiny", max_retries=0)
        with pytest.raises(ChatError, match=reason) as error:
            chat.complete(said("Hello"))
    assert not error.value.hopeless and len(requests) == 1
    assert url in str(error.value) or error.value.raw


def test_nothing_said_is_an_empty_answer():
    with endpoint(Reply({"model": "tiny", "choices": []}), chat_reply(None)) as (url, _):
        chat = OpenAIChat(url, model="tiny")
        assert chat.complete(said("Hello")) == ("", "tiny")
        assert chat.complete(said("Hello")) == ("", "tiny-2030")


def test_late_answer():
    with endpoint(Reply(delay=0.5)) as (url, _):
        with pytest.raises(ChatError, match="no answer within 0.05 s") as error:
            OpenAIChat(url, model="tiny", max_retries=0, timeout=0.05).complete(said("Hello"))
    assert not error.value.hopeless


def test_nobody_there():
    with endpoint("unasked") as (url, _):
        pass
    with pytest.raises(ChatError, match="cannot be reached") as error:
        OpenAIChat(url, model="tiny", max_retries=0).complete(said("Hello"))
    assert error.value.hopeless


@pytest.mark.parametrize("status, hopeless", [(401, True), (403, True), (404, True), (422, False)])
def test_what_is_not_tried_again(status, hopeless):
    with endpoint(status) as (url, requests):
        with pytest.raises(ChatError, match=f"status {status}") as error:
            OpenAIChat(url, model="tiny").complete(said("Hello"))
    assert error.value.hopeless is hopeless and len(requests) == 1


def test_truncated_answer_is_asked_for_again():
    cut = chat_reply("A long answer" * 50)
    cut.cut = 60
    with endpoint(cut, "whole") as (url, requests):
        assert OpenAIChat(url, model="tiny").complete(said("Hello"))[0] == "whole"
    assert len(requests) == 2


def test_many_at_a_time():
    def echo(request):
        text = request.json["messages"][-1]["content"]
        return 400 if text == "3" else Reply(chat_reply(text).body, delay=0.05)

    with endpoint(echo) as (url, requests):
        chat = OpenAIChat(url, model="tiny", concurrency=4)
        outcomes = dict(chat.complete_all([said(str(i)) for i in range(12)]))
    assert len(requests) == 12 and sorted(outcomes) == list(range(12))
    assert isinstance(outcomes.pop(3), ChatError)
    assert all(text == str(i) for i, (text, _) in outcomes.items())


def test_given_up_half_way():
    with endpoint(lambda request: "yes") as (url, requests):
        chat = OpenAIChat(url, model="tiny", concurrency=1)
        answers = chat.complete_all([said(str(i)) for i in range(50)])
        next(answers)
        answers.close()  # what an interruption does
    assert len(requests) < 50


@pytest.mark.remote_data
def test_live_endpoint():
    model = os.environ.get("STINGRAY_ALIGN_CHAT_MODEL")
    if not model:
        pytest.skip("STINGRAY_ALIGN_CHAT_MODEL names no model; the key is in OPENAI_API_KEY")
    summary = write_summary(FACTS, abstracts=PAPERS,
                            backend=OpenAIChat(model=model, temperature=None))
    assert summary.provenance["bibcodes_given"] == ["2020ApJ...1A"]
    assert summary.slots.get("photon_index", 1.8) == 1.8
