import numpy as np
import pytest

from stingray_align.alignment import comparison, find_changes
from stingray_align.evaluate._case_study import CHANGES, CaseStudyResult, case_study
from stingray_align.text._models import packaged_minilm


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(comparison, "_N_DRAWS", 300)
    monkeypatch.setattr(comparison, "_N_EMBEDDED", 20)


class Compared:
    """A comparison with given p-values, as `find_changes` sees it."""

    def __init__(self, brightness, spectrum, variability):
        self.tests = {"test": ["brightness", "spectrum", "variability"],
                      "corrected": [brightness, spectrum, variability]}
        self.text = f"{brightness} {spectrum} {variability}"


@pytest.mark.parametrize("query, first, understood", [
    ("the spectrum changed but not the flux", 1,
     "spectrum changed; brightness did not change"),
    ("it faded while the spectrum stayed the same", 0,
     "brightness changed; spectrum did not change"),
    ("the heartbeats stopped, with constant flux", 2,
     "variability changed; brightness did not change"),
    ("nothing new in flux, but it became softer", 1, None),
])
def test_changes_are_found_in_plain_words(query, first, understood):
    compared = [Compared(1e-6, 0.8, 0.9), Compared(0.7, 1e-4, np.nan), Compared(0.6, 0.9, 1e-4)]
    found = find_changes(compared, query)
    assert found["row"][0] == first and list(found["rank"]) == [1, 2, 3]
    assert np.all((found["score"] >= 0) & (found["score"] <= 1))
    assert np.all(np.diff(found["score"]) <= 0)
    if understood:
        assert found.meta["understood"] == understood


def test_a_sentence_about_nothing_is_refused():
    with pytest.raises(ValueError, match="says nothing about brightness"):
        find_changes([Compared(0.5, 0.5, 0.5)], "a nice source")


def test_case_study_counts_what_is_found(few_draws):
    if packaged_minilm() is None:
        pytest.skip("the text model (extra `offline`) is not installed")
    result = case_study(1, progress=False)
    assert result.found.shape == (1, 6, 4) and result.alarms.shape == (1, 4)
    names = list(CHANGES)
    brightness = result.found[0, :, result.tests.index("brightness")]
    assert brightness[names.index("X5")] > 5 and brightness[names.index("X2")] < 3
    table = result.to_table()
    assert len(table) == 4 and np.all((table["mean rank"] >= 1) & (table["mean rank"] <= 6))
    assert "halves" in str(result) and "eclipse" in str(result)


def test_shares_have_errors_even_where_all_were_found():
    rng = np.random.default_rng(0)
    result = CaseStudyResult(
        ranks={"an eclipsing ultraluminous source": np.array([1, 1, 1, 1])},
        tests=("brightness", "spectrum", "variability", "form"),
        found=np.full((4, 6, 4), 5.0), alarms=np.zeros((4, 4)),
        counts=rng.integers(1, 100, (4, 6, 2)))
    assert result.primary == 1.0 and result.to_table()["first error"][0] > 0
    changes = result.changes()
    assert changes["found by any"][-1] == 0 and changes["found by any"][0] == 1
    assert 0 < changes["found by any error"][-1] < 0.5
