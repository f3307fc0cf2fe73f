"""Where PyTorch can compute here, and how much memory there is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch


def require(device: str | torch.device, dtype: torch.dtype = torch.float32) -> torch.device:
    """Return a device; raise ``ValueError`` unless a number of this type can be made there."""
    try:
        torch.zeros(1, dtype=dtype, device=device).item()
    except Exception as error:  # a device that is not there has many: even ImportError
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f'device must be one that PyTorch has here, such as "cpu", not {str(device)!r}: {first}'
        ) from None
    return torch.device(device)


def memory(device: torch.device) -> int | None:
    """Return how many bytes of memory a device has in all, or None where nothing says it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or not hasattr(os, "sysconf"):  # Windows does not say it that way
        return None
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):  # a container may have less; "max" is no limit
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes)
