"""The contrastive loss against its definition, written out by hand."""

import math

import numpy as np
import pytest
import torch
from stingray_align.alignment.losses import ContrastiveLoss, grouped_info_nce, grouped_siglip
from torch.nn import functional


def unit(rng, n, d=8):
    return functional.normalize(torch.from_numpy(rng.normal(size=(n, d))), dim=1)


def by_hand(events, texts, positives, scale):
    """Mean over both directions of -log p averaged over each anchor's positives."""
    logits = scale * np.asarray(events) @ np.asarray(texts).T
    sides = []
    for values, mask in ((logits, np.asarray(positives)), (logits.T, np.asarray(positives).T)):
        anchors = []
        for row, own in zip(values, mask):
            if own.any():
                probability = np.exp(row) / np.exp(row).sum()
                anchors.append(-np.log(probability[own]).mean())
        sides.append(np.mean(anchors))
    return np.mean(sides)


@pytest.mark.parametrize("shape", [(5, 5), (4, 7)])
def test_matches_the_definition(shape):
    rng = np.random.default_rng(3)
    events, texts = unit(rng, shape[0]), unit(rng, shape[1])
    positives = torch.from_numpy(rng.random(shape) < 0.4)
    positives[0] = False  # an anchor without positives must not count
    positives[1, 0] = True
    got = float(grouped_info_nce(events, texts, positives, 5.0))
    assert got == pytest.approx(by_hand(events, texts, positives, 5.0), rel=1e-12)


def test_is_cross_entropy_with_one_positive_each():
    rng = np.random.default_rng(4)
    events, texts = unit(rng, 6), unit(rng, 6)
    logits = 10 * events @ texts.T
    target = torch.arange(6)
    expected = 0.5 * (functional.cross_entropy(logits, target)
                      + functional.cross_entropy(logits.T, target))
    got = grouped_info_nce(events, texts, torch.eye(6, dtype=bool), 10.0)
    assert float(got) == pytest.approx(float(expected), rel=1e-12)


def test_is_log_n_when_nothing_is_told_apart():
    events = torch.ones(8, 2) / math.sqrt(2)
    loss = grouped_info_nce(events, events, torch.eye(8, dtype=bool), 20.0)
    assert float(loss) == pytest.approx(math.log(8), rel=1e-6)


def test_known_positives_are_no_false_negatives():
    vectors = torch.eye(4)[[0, 0, 1, 1]]  # two pairs of the same source
    groups = torch.tensor([0, 0, 1, 1])
    same = groups[:, None] == groups
    with_groups = vectors.clone().requires_grad_()
    grouped_info_nce(with_groups, vectors, same, 50.0).backward()
    alone = vectors.clone().requires_grad_()
    grouped_info_nce(alone, vectors, torch.eye(4, dtype=bool), 50.0).backward()
    # A perfect arrangement is at rest when the pairs are known, in value as in slope.
    assert float(with_groups.grad.abs().max()) < 1e-6
    assert float(grouped_info_nce(vectors, vectors, same, 50.0)) == pytest.approx(math.log(2))


def test_row_order_does_not_matter():
    rng = np.random.default_rng(5)
    events, texts = unit(rng, 6), unit(rng, 6)
    positives = torch.eye(6, dtype=bool)
    order = torch.from_numpy(rng.permutation(6))
    assert float(grouped_info_nce(events[order], texts, positives[order], 9.0)) == pytest.approx(
        float(grouped_info_nce(events, texts, positives, 9.0)), rel=1e-12)


def test_scale_is_learnt_and_clamped_at_100():
    rng = np.random.default_rng(6)
    events, texts = unit(rng, 5), unit(rng, 5)
    eye = torch.eye(5, dtype=bool)
    assert float(grouped_info_nce(events, texts, eye, 1e4)) == pytest.approx(
        float(grouped_info_nce(events, texts, eye, 100.0)), rel=1e-12)
    loss = ContrastiveLoss().double()
    assert float(loss.log_scale.detach().exp()) == pytest.approx(1 / 0.07, rel=1e-6)
    loss(events, texts, eye).backward()
    assert float(loss.log_scale.grad.abs()) > 0
    with torch.no_grad():
        loss.log_scale.fill_(9.0)
    loss.clamp_()
    assert float(loss.log_scale.detach().exp()) == pytest.approx(100.0, rel=1e-6)


def test_sigmoid_loss_matches_the_definition():
    rng = np.random.default_rng(7)
    events, texts = unit(rng, 4), unit(rng, 6)
    positives = torch.from_numpy(rng.random((4, 6)) < 0.4)
    logits = 8.0 * np.asarray(events) @ np.asarray(texts).T - 3.0
    right = 1 / (1 + np.exp(np.where(np.asarray(positives), -logits, logits)))
    got = float(grouped_siglip(events, texts, positives, 8.0, -3.0))
    assert got == pytest.approx(-np.log(right).sum() / 4, rel=1e-12)


def test_sigmoid_loss_rewards_every_known_positive():
    vectors = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 1]]
    groups = torch.tensor([0, 0, 1, 1])
    same = groups[:, None] == groups
    assert float(grouped_siglip(vectors, vectors, same, 60.0, -30.0)) < 1e-8
    alone = grouped_siglip(vectors, vectors, torch.eye(4, dtype=bool), 60.0, -30.0)
    assert float(alone) == pytest.approx(30, rel=1e-6)  # of four rows, one wrong by 30 each


def test_scale_and_bias_of_the_sigmoid_loss_are_learnt():
    rng = np.random.default_rng(8)
    events, texts = unit(rng, 5), unit(rng, 5)
    loss = ContrastiveLoss("siglip").double()
    assert float(loss.bias.detach()) == -10
    assert float(loss.log_scale.detach().exp()) == pytest.approx(10, rel=1e-6)
    loss(events, texts, torch.eye(5, dtype=bool)).backward()
    assert float(loss.log_scale.grad.abs()) > 0 and float(loss.bias.grad.abs()) > 0
    assert len(list(ContrastiveLoss().parameters())) == 1
