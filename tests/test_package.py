"""The package as such: cheap to import, complete, and described truthfully by its own files."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stingray_align as sa

ROOT = Path(__file__).parents[1]


def _python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    heavy = ("torch", "transformers", "specutils", "matplotlib", "stingray", "sklearn", "astropy")
    code = f"import sys, stingray_align; print([m for m in {heavy} if m in sys.modules])"
    assert _python(code) == "[]"


@pytest.mark.parametrize("room", ["alignment", "autodecoder", "datasets", "evaluate", "text"])
def test_rooms_load_no_models(room):
    heavy = ("torch", "transformers", "matplotlib")
    code = f"import sys, stingray_align; stingray_align.{room}; " \
           f"print([m for m in {heavy} if m in sys.modules])"
    assert _python(code) == "[]"


def test_embedding_needs_no_text_model():
    code = "import sys, stingray_align as sa; sa.PoissonAutodecoder, sa.embed; " \
           "print('transformers' in sys.modules)"
    assert _python(code) == "False"


@pytest.mark.parametrize("name", sa.__all__)
def test_every_public_name_is_there(name):
    value = getattr(sa, name)
    assert value is getattr(sa, name)
    assert getattr(value, "__doc__", None)


def test_dir_shows_the_public_names():
    assert set(sa.__all__) == set(dir(sa))
    assert len(sa.__all__) < 25


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lightyear'"):
        sa.lightyear


def test_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert sa.__version__ == version("stingray-align")


def test_readme_holds_two_commands_on_one_line_each():
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    commands = re.findall(r"^    (python3 -m venv .*)$", text, flags=re.MULTILINE)
    assert len(commands) == 2
    main, tests = commands
    assert "stingray-align interpret" in main and "--position" in main
    assert tests.endswith("&& pytest -n 2 --dist loadfile")
    assert all("torch==2.13.0" in command for command in commands)


def test_data_files_are_declared():
    """What the package reads at run time is listed, so that a wheel without git has it too."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["stingray_align"]
    package = ROOT / "stingray_align"
    listed = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    others = {path for path in package.rglob("*")
              if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"}
    assert listed and others <= listed


def test_no_pickle_and_no_machine_paths():
    for path in (ROOT / "stingray_align").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bimport pickle\b|allow_pickle=True|/home/|/root/", text), path
