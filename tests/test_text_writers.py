import contextlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import astropy.units as u
import numpy as np
import pytest

from stingray_align.errors import MissingModelError
from stingray_align.text import (CLASSES, FLAG_SLOTS, NUMBER_SLOTS, LocalChat, OfflineWriter,
                                 OpenAIChat, SummaryError, write_summary)

FACTS = {"instrument": "ACIS-S", "counts": 150, "photon_index": 1.8}
PAPERS = [{"bibcode": "2020ApJ...1A", "title": "A source", "abstract": "It is a polar."}]
UNKNOWN = dict.fromkeys([*NUMBER_SLOTS, "class", *FLAG_SLOTS])


def answer(**changes):
    content = {"summary": " ".join(["word"] * 80), "bibcodes": ["2020ApJ...1A"],
               "slots": {**UNKNOWN, "class": "polar", "photon_index": 1.8, "soft": "unknown"}}
    return json.dumps({**content, **changes})


@contextlib.contextmanager
def endpoint(*replies):
    """A chat endpoint on this machine that gives the replies in turn and keeps what it was asked.

    A reply is the content of an answer, or a status code.
    """
    replies, requests = list(replies), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, self.headers["Authorization"], json.loads(body)))
            reply = replies.pop(0)
            if isinstance(reply, int):
                status, content = reply, {"error": {"message": "not now"}}
            else:
                status, content = 200, {
                    "id": "1", "object": "chat.completion", "created": 1, "model": "tiny-2030",
                    "choices": [{"index": 0, "finish_reason": "stop",
                                 "message": {"role": "assistant", "content": reply}}]}
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def no_keys(monkeypatch):
    pytest.importorskip("openai", reason="the openai package (extra `remote`) is not installed")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY",
                 "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_remote_answer(no_keys):
    with endpoint(answer()) as (url, requests):
        backend = OpenAIChat(url, model="tiny", api_key="secret")
        summary = write_summary(FACTS, abstracts=PAPERS, backend=backend)
    assert len(summary.text.split()) == 80
    assert summary.slots == {"class": "polar", "photon_index": 1.8}
    provenance = summary.provenance
    assert provenance["kind"] == "llm" and provenance["model"] == "tiny-2030"
    assert provenance["prompt_version"] == "summary-v1" and len(provenance["prompt_hash"]) == 16
    assert provenance["bibcodes"] == ["2020ApJ...1A"]
    (path, authorization, body), = requests
    assert path == "/v1/chat/completions" and authorization == "Bearer secret"
    assert body["model"] == "tiny" and body["temperature"] == 0
    system, user = body["messages"]
    assert all(name in system["content"] for name in CLASSES)
    assert json.loads(user["content"]) == {"facts": FACTS, "papers": PAPERS}
    assert "secret" not in repr(backend)


BROKEN = [
    ("Sorry, I cannot.", "no JSON object"),
    ("{broken}", "not valid JSON"),
    ("", "no JSON object"),
    (json.dumps({"summary": "a"}), "lacks 'slots'; it lacks 'bibcodes'"),
    (answer(summary="too short"), "2 words, 60 to 150"),
    (answer(summary=3), "'summary' is no string"),
    (answer(slots=[]), "'slots' is no object"),
    (answer(slots={"class": None}), "photon_index, kT"),
    (answer(slots={**UNKNOWN, "colour": "red"}), "no slot"),
    (answer(slots={**UNKNOWN, "class": "star"}), "no class"),
    (answer(slots={**UNKNOWN, "kT": "warm"}), "is a number"),
    (answer(bibcodes="2020ApJ...1A"), "no list of strings"),
    (answer(bibcodes=["1999Invented"]), "cites 1999Invented"),
]


@pytest.mark.parametrize("broken, reason", BROKEN)
def test_invalid_then_valid(no_keys, broken, reason):
    with endpoint(broken, answer()) as (url, requests):
        summary = write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert summary.slots["class"] == "polar"
    messages = requests[1][2]["messages"]
    assert messages[:2] == requests[0][2]["messages"]
    assert messages[2] == {"role": "assistant", "content": broken}
    assert reason in messages[3]["content"]


def test_invalid_twice_keeps_the_raw_answer(no_keys):
    with endpoint("{", "I am a teapot") as (url, requests):
        with pytest.raises(SummaryError, match="two attempts.*no JSON object.*teapot") as error:
            write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert error.value.raw == "I am a teapot"
    assert len(requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_endpoint_is_asked_again(no_keys, status):
    with endpoint(status, status, answer()) as (url, requests):
        write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert len(requests) == 3


def test_wrong_key_is_not_asked_again(no_keys):
    import openai

    with endpoint(401) as (url, requests):
        with pytest.raises(openai.AuthenticationError):
            write_summary(FACTS, backend=OpenAIChat(url, model="tiny"))
    assert len(requests) == 1


def test_wrappings_are_taken_off(no_keys):
    wrapped = f"<think>{{perhaps}}</think>\nHere it is:\n```json\n{answer()}\n```"
    with endpoint(wrapped) as (url, _):
        summary = write_summary(FACTS, abstracts=PAPERS, backend=OpenAIChat(url, model="tiny"))
    assert summary.slots["class"] == "polar"


def test_settings_from_the_environment(no_keys, monkeypatch):
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        OpenAIChat(model="tiny")
    with endpoint(answer(bibcodes=[])) as (url, requests):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
        backend = OpenAIChat(model="tiny", temperature=None)
        write_summary(FACTS, backend=backend)
    assert requests[0][1] == "Bearer from-environment"
    assert "temperature" not in requests[0][2]


def test_no_literature_no_summary(no_keys):
    with endpoint() as (url, requests):
        with pytest.raises(ValueError, match="no literature, no summary"):
            write_summary({"kT": np.nan, "class": None}, backend=OpenAIChat(url, model="tiny"))
    assert requests == []


def test_openai_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingModelError, match=r"stingray-align\[remote\]"):
        OpenAIChat(model="tiny")


# --- a model on this machine --------------------------------------------------------------------

TEMPLATE = ("{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
            "{% if add_generation_prompt %}assistant :{% endif %}")


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    """A random Llama of a few thousand weights, saved as users would."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llama")
    words = ["<unk>", "<s>", "</s>", "system", "user", "assistant", ":", "a", "star", "soft"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>",
                                        bos_token="<s>", eos_token="</s>", model_max_length=4096)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2))
    model.generation_config.temperature, model.generation_config.do_sample = 0.6, True
    model.save_pretrained(folder)
    return folder


def test_local_chat_garbage_is_refused(chat_folder, capfd):
    backend = LocalChat(chat_folder, device="cpu", max_new_tokens=8)
    raw = []
    for _ in range(2):  # greedy, so the same every time, whatever sampling the model suggests
        with pytest.raises(SummaryError, match="tiny-llama.*no acceptable summary") as error:
            write_summary(FACTS, abstracts=PAPERS, backend=backend)
        raw.append(error.value.raw)
    assert raw[0] == raw[1] and set(raw[0].split()) <= {"system", "user", "assistant", ":", "a",
                                                        "star", "soft"}
    assert backend.name in repr(backend)
    assert capfd.readouterr() == ("", "")


def test_local_chat_good_answer(chat_folder, monkeypatch):
    # the real generation runs; only its words, which a random model cannot find, are replaced
    backend = LocalChat(str(chat_folder), device="cpu", max_new_tokens=4)
    complete, seen = LocalChat.complete, []

    def spoken(self, messages):
        seen.append(complete(self, messages))
        return answer(), seen[-1][1]

    monkeypatch.setattr(LocalChat, "complete", spoken)
    summary = write_summary(FACTS, abstracts=PAPERS, backend=backend)
    assert summary.provenance["model"] == backend.name == seen[0][1]
    assert len(seen[0][0].split()) <= 4


def test_local_chat_limits(chat_folder, tmp_path):
    backend = LocalChat(chat_folder, device="cpu", max_new_tokens=4095)
    with pytest.raises(ValueError, match="reads 4096: give fewer abstracts"):
        write_summary(FACTS, backend=backend)
    with pytest.raises(ValueError, match="no literature"):
        write_summary({}, backend=backend)
    with pytest.raises(MissingModelError, match="no folder"):
        LocalChat(tmp_path / "nowhere")
    for file in chat_folder.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no chat model"):
        LocalChat(tmp_path)


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
])
def test_offline_phrases(facts, text):
    assert write_summary(facts, backend=OfflineWriter()).text == text


def test_offline_writer_invents_nothing():
    for facts in ({}, {"name": "NGC 1"}, {"kT": np.nan, "period": None}):
        with pytest.raises(ValueError, match="nothing measured, no summary"):
            write_summary(facts, backend=OfflineWriter())
    with pytest.raises(ValueError, match="cannot read abstracts"):
        write_summary(FACTS, abstracts=PAPERS, backend=OfflineWriter())


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
