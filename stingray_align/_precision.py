"""Matrix products in bfloat16, where they are faster."""

__all__ = ["bfloat16_if_fast", "has_bf16_units"]


def has_bf16_units():
    """Whether the processor has units for products in bfloat16 (then at least twice as fast).

    Instructions for it alone (AVX-512 BF16) are no reason: with them torch takes up to three times
    as long as in single precision.
    """
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions of torch
    return capabilities.get("amx_bf16", False)


def bfloat16_if_fast(device):
    """Context in which networks multiply in bfloat16, unless a processor would only imitate it.

    Which takes several times as long as single precision.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    torch.autocast
    """
    import torch

    return torch.autocast(device.type, torch.bfloat16,
                          enabled=device.type != "cpu" or has_bf16_units())
