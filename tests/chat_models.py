"""Chat models for tests: an endpoint on this machine, and a random model of a few weights."""

import contextlib
import json

import pytest
from local_server import Reply, serving

from stingray_align.text import FLAG_SLOTS, NUMBER_SLOTS

UNKNOWN = dict.fromkeys([*NUMBER_SLOTS, "class", *FLAG_SLOTS])


def answer(**changes):
    """What the prompt asks for, as JSON."""
    content = {"summary": " ".join(["word"] * 80), "paraphrase": " ".join(["plain"] * 20),
               "bibcodes": ["2020ApJ...1A"], "confidence": "high",
               "slots": {**UNKNOWN, "class": "polar", "photon_index": 1.8, "soft": "unknown"}}
    return json.dumps({**content, **changes})


def chat_reply(content, *, model="tiny-2030", fingerprint=None, finish_reason="stop", refusal=None):
    """One answer in OpenAI's protocol."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return Reply({"id": "1", "object": "chat.completion", "created": 1, "model": model,
                  "system_fingerprint": fingerprint,
                  "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}]})


def as_reply(reply):
    """A Reply, out of one, the content of an answer, or a status code."""
    if isinstance(reply, int):
        return Reply({"error": {"message": "not now"}}, status=reply,
                     headers={"retry-after-ms": "1"})
    return reply if isinstance(reply, Reply) else chat_reply(reply)


@contextlib.contextmanager
def endpoint(*replies):
    """Address of an endpoint that gives these in turn (see `as_reply`), and the requests so far.

    A single function instead answers each request.
    """
    pytest.importorskip("openai", reason="the openai package (extra `remote`) is not installed")
    if len(replies) == 1 and callable(replies[0]):
        def answers(request):
            return as_reply(replies[0](request))
    else:
        answers = map(as_reply, replies)
    with pytest.MonkeyPatch.context() as patch, serving(answers) as (url, requests):
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY",
                     "all_proxy"):
            patch.delenv(name, raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield f"{url}/v1", requests


_TEMPLATE = ("{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
             "{% if add_generation_prompt %}assistant :{% endif %}")


def save_tiny_chat(folder):
    """A random Llama of a few thousand weights, saved as users would."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", "system", "user", "assistant", ":", "a", "star", "soft"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>",
                                        bos_token="<s>", eos_token="</s>", model_max_length=4096)
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2))
    model.generation_config.temperature, model.generation_config.do_sample = 0.6, True
    model.save_pretrained(folder)
    return folder
