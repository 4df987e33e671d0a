"""Plain words to catalogue language by a language model.

The model is asked with a versioned prompt and answers a JSON object, which is checked before it is
believed: known classes with probabilities, known slots with values of the right kind, and a text of
sensible length. An answer that fails is returned to the model once, with the reason.
"""

import importlib.resources
import json
import numbers
from string import Template

from .slots import CLASSES, FLAG_SLOTS, NUMBER_SLOTS, clean_slots

__all__ = ["PROMPT_VERSION", "rewrite"]

PROMPT_VERSION = "query-v1"
_ATTEMPTS = 2
_LONGEST = 150  # words


def rewrite(query, llm, catalogue):
    """Ask a language model what a query means.

    Parameters
    ----------
    query : str
        What was asked.
    llm : LocalChat, OpenAIChat or alike
        Its ``complete(messages)`` gives an answer and the name of the model.
    catalogue : dict of str
        How the catalogue speaks of each class.

    Returns
    -------
    text : str
        The query in the catalogue's wording.
    slots : dict
        Facts stated or implied, without the class.
    classes : dict
        At most three classes and their probability, best first.
    model : str
        Who answered.

    Raises
    ------
    ValueError
        If no acceptable answer came.
    """
    messages = [{"role": "system", "content": _prompt(catalogue)},
                {"role": "user", "content": query}]
    for _ in range(_ATTEMPTS):
        answer, model = llm.complete(messages)
        try:
            return *_checked(answer), model
        except ValueError as error:
            problem = error
        messages = messages[:2] + [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"That answer is not acceptable: {problem}. Answer again "
                                        "with one correct JSON object."}]
    raise ValueError(f"{model} gave no acceptable answer in {_ATTEMPTS} attempts: {problem}")


def _prompt(catalogue):
    file = importlib.resources.files(__package__) / "prompts" / f"{PROMPT_VERSION}.txt"
    classes = "\n".join(f'"{name}": {text}' for name, text in catalogue.items())
    return Template(file.read_text(encoding="utf-8")).substitute(classes=classes)


def _checked(answer):
    """Text, slots and classes of an answer; ValueError says what is wrong with it."""
    answer = answer.rpartition("</think>")[2]  # what a reasoning model says to itself
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        raise ValueError("it holds no JSON object")
    try:
        content = json.loads(answer[start:end + 1])
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error})") from None
    if missing := [name for name in ("text", "classes", "slots") if name not in content]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    text, classes, slots = content["text"], content["classes"], content["slots"]
    if not isinstance(text, str) or not 0 < len(text.split()) <= _LONGEST:
        raise ValueError(f"'text' is no string of 1 to {_LONGEST} words")
    if not isinstance(slots, dict) or set(slots) - {*NUMBER_SLOTS, *FLAG_SLOTS}:
        raise ValueError(f"'slots' may hold {', '.join((*NUMBER_SLOTS, *FLAG_SLOTS))} only")
    return " ".join(text.split()), clean_slots(slots), _classes(classes)


def _classes(classes):
    if not isinstance(classes, dict) or len(classes) > 3:
        raise ValueError("'classes' is no object of at most three classes")
    if unknown := [name for name in classes if name not in CLASSES]:
        raise ValueError(f"{unknown[0]!r} is no class of the list")
    for value in classes.values():
        if (isinstance(value, bool) or not isinstance(value, numbers.Real)
                or not 0 <= value <= 1):
            raise ValueError("a class has a probability that is no number from 0 to 1")
    if sum(classes.values()) > 1.01:
        raise ValueError("the probabilities of the classes add up to more than 1")
    return dict(sorted(((name, float(p)) for name, p in classes.items()),
                       key=lambda item: -item[1]))
