"""Layers of the networks in the forms that inference uses, against those of torch."""

import numpy as np
import pytest
import torch
from torch import nn

from stingray_align.autodecoder.along import Along
from stingray_align.autodecoder.layers import Body, Linear, settle


def settled(n_in, n_out):
    layer = Linear(n_in, n_out)
    weight = torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(1))
    weight[0, :6] = torch.tensor([0.0, -0.0, 6e-8, -3e-5, 65504.0, -1.0])  # of all kinds
    layer.weight.data = weight.half().float()
    layer.settle()
    return layer


@pytest.mark.parametrize("n", [1, 2, 50])
def test_settled_layer_is_that_of_torch(n):
    layer = settled(37, 21)
    x = torch.randn(n, 37, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = layer(x)
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("n_blocks", [1, 2])
def test_settled_body_is_that_of_torch(n, n_blocks):
    body = Body(13, 24, n_blocks)
    rng = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng).half())
    x = 3 + torch.randn(n, 13, generator=rng)
    expected = body(x)
    settle(body)
    with torch.inference_mode():
        found = body(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_settled_layer_still_has_gradients():
    layer = settled(6, 3)
    x = torch.ones(1, 6, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad[0], layer.weight.sum(dim=0))


def test_weights_that_no_half_can_hold_are_not_rounded():
    layer = Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(1 + 2**-20)
        layer.bias.zero_()
    layer.settle()
    with torch.inference_mode():
        found = layer(torch.ones(1, 3)).numpy()
    assert (found == np.float32(3 * (1 + 2**-20))).all()


def test_body_with_such_weights_stays_with_torch():
    body, x = Body(3, 8), torch.ones(1, 3)
    with torch.no_grad():
        body[1].inner.weight.fill_(1 + 2**-20)
    expected = body(x)
    settle(body)
    with torch.inference_mode():
        torch.testing.assert_close(body(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (5, 1), (5, 8)])
def test_along_is_a_convolution(n, taps, dilation):
    along = Along(6, 4, taps, dilation)
    other = nn.Conv1d(6, 4, taps, padding=taps // 2 * dilation, dilation=dilation)
    other.load_state_dict(along.state_dict())
    x = torch.randn(n, 6, 64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(along(x), other(x), rtol=1e-4, atol=1e-5)


def test_along_adds_an_offset():
    along, x, offset = Along(6, 4), torch.ones(2, 6, 8), torch.randn(2, 4, 1)
    torch.testing.assert_close(along(x, offset), along(x) + offset)
