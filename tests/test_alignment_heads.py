"""The networks of the aligner: what they see of a number."""

import numpy as np
import torch
from stingray_align.alignment import Aligner
from stingray_align.alignment.heads import PiecewiseLinear, SlotHead
from stingray_align.text.slots import N_SLOTS, NUMBER_SLOTS, slot_names, slot_vector


def test_a_number_fills_its_bins_one_after_the_other():
    bins = PiecewiseLinear(torch.tensor([[0.0, 1.0, 3.0], [-1.0, 0.0, 1.0]]))
    places = bins(torch.tensor([[-5.0, 0.5], [0.25, -0.5], [2.0, 9.0]])) + 0.5
    expected = [[[0, 0], [1, 0.5]], [[0.25, 0], [0.5, 0]], [[1, 0.5], [1, 1]]]
    np.testing.assert_allclose(places, expected)
    assert bins.n_out == 4


def test_bins_without_width_are_harmless():
    places = PiecewiseLinear(torch.zeros(1, 9))(torch.tensor([[0.0], [1e30], [-1e30]]))
    assert torch.isfinite(places).all() and places.abs().max() <= 0.5


def test_edges_share_out_the_training_rows():
    rng = np.random.default_rng(0)
    events = np.exp(rng.normal(size=(2000, 3)))
    aligner = Aligner(n_shared=4, n_hidden=8, n_slots=0, n_steps=1).fit(
        events, rng.normal(size=(2000, 5)), validation_fraction=0)
    edges = aligner._event_head.bins.edges.numpy()
    scaled = aligner._scale_events(events)
    for own, values in zip(edges, scaled.T):
        np.testing.assert_allclose(np.histogram(values, own)[0] / 2000, 1 / 8, atol=0.01)


def test_an_unknown_number_is_not_taken_for_the_usual_one():
    torch.manual_seed(0)
    head = SlotHead(N_SLOTS, 16, 4, len(NUMBER_SLOTS))
    with torch.no_grad():
        head.first.weight[:, :N_SLOTS] = 0  # leave it the bins alone
    names = slot_names()
    unknown, usual = np.zeros((2, 1, N_SLOTS), np.float32)
    usual[0, names.index("photon_index known")] = 1  # of 1.9, standardised to zero
    both = [head.unscaled(torch.from_numpy(x)) for x in (unknown, usual)]
    assert (both[0] - both[1]).abs().max() > 1e-3
    other = unknown.copy()
    other[0, names.index("photon_index")] = 2.0
    torch.testing.assert_close(head.unscaled(torch.from_numpy(other)), both[0])


def test_numbers_come_first_among_the_slots():
    n = len(NUMBER_SLOTS)
    assert slot_names()[:2 * n] == [*NUMBER_SLOTS, *(f"{name} known" for name in NUMBER_SLOTS)]
    known = slot_vector({"period": 5.0})[n:2 * n]
    assert known.tolist() == [float(name == "period") for name in NUMBER_SLOTS]
