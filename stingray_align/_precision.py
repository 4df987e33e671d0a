"""Matrix products in bfloat16, where they are faster."""

__all__ = ["bfloat16_if_fast", "has_bf16_units"]


def has_bf16_units():
    """Whether the processor multiplies in bfloat16 (then at least twice as fast)."""
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions of torch
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


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
