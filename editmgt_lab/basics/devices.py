"""The devices that networks run on."""

from __future__ import annotations

import torch

from ..errors import SettingError


def choose_device(device: torch.device | str | None) -> torch.device:
    """The device asked for, or the fastest one here. Raises SettingError if it cannot be used."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        place = torch.zeros(1, device=device)
        place.cpu()  # "meta" has no numbers
        return place.device
    except Exception as error:  # every backend has its own kind
        raise SettingError(
            f"device {str(device)!r} cannot be used: {error}",
            expected="'cuda', 'mps' or 'cpu', as this computer has them",
            fix="leave it out to take the fastest one here",
        ) from error
