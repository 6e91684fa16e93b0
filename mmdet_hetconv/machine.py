"""Where and with what a measurement was made."""

import platform
from datetime import date

import torch


def machine(device: str | None = None) -> dict[str, str]:
    """Columns that every row of results ends with.

    Args:
        device: 'cpu' or 'cuda'; by default a GPU where there is one.

    Returns:
        The GPU, or the processor's architecture and how many threads torch
        uses; versions of torch and Python; the date.
    """
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = f'CPU {platform.machine()}, {torch.get_num_threads()} threads'
    return dict(
        machine=name,
        torch=torch.__version__,
        python=platform.python_version(),
        date=date.today().isoformat(),
    )
