r"""The contrastive losses that pull a source and its descriptions together.

For unit vectors :math:`x_i` (events) and :math:`y_j` (texts) and an inverse temperature :math:`s`
the similarity is :math:`s\,x_i \cdot y_j`. InfoNCE asks that each row picks out its own column
among all columns of the batch. Here a row may own *several* columns: other observations of the
same source and identical summaries are right answers too, and calling them wrong would teach the
model to tell apart what is the same. The loss averages the log probability over all right answers
(the "outside" form of Khosla et al., whose gradient weights every positive), for rows and for
columns, and takes the mean of the two.

The sigmoid loss asks of every pair on its own whether row and column belong together, with a
learnable bias :math:`b` for how rare that is. Several right answers need no averaging there.
"""

import math

import torch
from torch.nn import functional

__all__ = ["ContrastiveLoss", "LOSSES", "grouped_info_nce", "grouped_siglip"]

LOSSES = ("infonce", "siglip")
MAX_LOGIT_SCALE = 100.0
_FIRST_SCALE = {"infonce": 1 / 0.07, "siglip": 10.0}
_FIRST_BIAS = -10.0


def grouped_info_nce(events, texts, positives, logit_scale):
    r"""Symmetric InfoNCE with any number of positives per anchor.

    Parameters
    ----------
    events : torch.Tensor, shape (n, d)
        Unit vectors of the event side.
    texts : torch.Tensor, shape (m, d)
        Unit vectors of the text side.
    positives : torch.Tensor of bool, shape (n, m)
        True where row and column belong together. Anchors without any positive do not count.
    logit_scale : float or torch.Tensor
        Inverse temperature; values above 100 are clamped.

    Returns
    -------
    torch.Tensor
        Scalar loss in nats: ``log(n)`` at chance for one positive per anchor.

    References
    ----------
    Radford et al. 2021, arXiv:2103.00020 (symmetric loss, clamped scale);
    Khosla et al. 2020, arXiv:2004.11362 (several positives per anchor, equation 2).

    Examples
    --------
    >>> import torch
    >>> from stingray_align.alignment.losses import grouped_info_nce
    >>> eye = torch.eye(3)
    >>> float(grouped_info_nce(eye, eye, eye.bool(), 50.0)) < 1e-6
    True
    """
    scale = torch.as_tensor(logit_scale, dtype=events.dtype).clamp(max=MAX_LOGIT_SCALE)
    logits = scale * events @ texts.T
    return 0.5 * (_one_way(logits, positives) + _one_way(logits.T, positives.T))


def _one_way(logits, positives):
    weight = positives.to(logits.dtype)
    count = weight.sum(dim=1)
    has_any = count > 0
    mean_log = (functional.log_softmax(logits, dim=1) * weight).sum(dim=1) / count.clamp(min=1)
    return -mean_log[has_any].mean()


def grouped_siglip(events, texts, positives, logit_scale, bias):
    r"""Sigmoid loss of all pairs of a batch, with any number of positives per anchor.

    With :math:`z_{ij} = 1` where row and column belong together and -1 elsewhere,

    .. math::

        L = -\frac{1}{n} \sum_{ij} \log \sigma\left(z_{ij} (s\, x_i \cdot y_j + b)\right).

    Parameters
    ----------
    events : torch.Tensor, shape (n, d)
        Unit vectors of the event side.
    texts : torch.Tensor, shape (m, d)
        Unit vectors of the text side.
    positives : torch.Tensor of bool, shape (n, m)
        True where row and column belong together.
    logit_scale : float or torch.Tensor
        Inverse temperature; values above 100 are clamped.
    bias : float or torch.Tensor
        Added to all logits; negative, because most pairs do not belong together.

    Returns
    -------
    torch.Tensor
        Scalar loss in nats per row.

    References
    ----------
    Zhai et al. 2023, arXiv:2303.15343 (equation 1, scale and bias started at 10 and -10).

    Examples
    --------
    >>> import torch
    >>> from stingray_align.alignment.losses import grouped_siglip
    >>> eye = torch.eye(3)
    >>> float(grouped_siglip(eye, eye, eye.bool(), 50.0, -25.0)) < 1e-6
    True
    """
    scale = torch.as_tensor(logit_scale, dtype=events.dtype).clamp(max=MAX_LOGIT_SCALE)
    logits = scale * events @ texts.T + bias
    return -functional.logsigmoid(torch.where(positives, logits, -logits)).sum() / len(events)


class ContrastiveLoss(torch.nn.Module):
    """One of the losses with its learnable temperature (and bias, for the sigmoid loss).

    The logarithm of the inverse temperature is the parameter, so that it stays positive; it is
    clamped at ``log(100)``, above which training becomes unstable.

    Parameters
    ----------
    kind : {"infonce", "siglip"}
        :func:`grouped_info_nce` or :func:`grouped_siglip`.
    """

    def __init__(self, kind="infonce"):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(_FIRST_SCALE[kind])))
        self.bias = torch.nn.Parameter(torch.tensor(_FIRST_BIAS)) if kind == "siglip" else None

    def forward(self, events, texts, positives):
        """Loss of one batch; arguments as in :func:`grouped_info_nce`."""
        if self.bias is None:
            return grouped_info_nce(events, texts, positives, self.log_scale.exp())
        return grouped_siglip(events, texts, positives, self.log_scale.exp(), self.bias)

    @torch.no_grad()
    def clamp_(self):
        """Bring the parameter itself back to the allowed range, after an optimiser step."""
        self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
