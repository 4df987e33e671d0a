r"""The contrastive loss that pulls a source and its descriptions together.

For unit vectors :math:`x_i` (events) and :math:`y_j` (texts) and an inverse temperature :math:`s`
the similarity is :math:`s\,x_i \cdot y_j`. InfoNCE asks that each row picks out its own column
among all columns of the batch. Here a row may own *several* columns: other observations of the
same source and identical summaries are right answers too, and calling them wrong would teach the
model to tell apart what is the same. The loss averages the log probability over all right answers
(the "outside" form of Khosla et al., whose gradient weights every positive), for rows and for
columns, and takes the mean of the two.
"""

import math

import torch
from torch.nn import functional

__all__ = ["GroupedInfoNCE", "grouped_info_nce"]

MAX_LOGIT_SCALE = 100.0
_FIRST_TEMPERATURE = 0.07


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


class GroupedInfoNCE(torch.nn.Module):
    """:func:`grouped_info_nce` with a learnable temperature, started at 0.07.

    The logarithm of the inverse temperature is the parameter, so that it stays positive; it is
    clamped at ``log(100)``, above which training becomes unstable.
    """

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(-math.log(_FIRST_TEMPERATURE)))

    def forward(self, events, texts, positives):
        """Loss of one batch; arguments as in :func:`grouped_info_nce`."""
        return grouped_info_nce(events, texts, positives, self.log_scale.exp())

    @torch.no_grad()
    def clamp_(self):
        """Bring the parameter itself back to the allowed range, after an optimiser step."""
        self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
