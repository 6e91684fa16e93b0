"""The machine and the versions that a measurement was made with."""

import platform
from datetime import date
from functools import cache

import torch


@cache
def cpu_name() -> str:
    """The processor's model, as 'AMD EPYC'; else its architecture."""
    try:
        with open('/proc/cpuinfo') as file:
            for line in file:
                name, _, value = line.partition(':')
                if name.strip() == 'model name':
                    return value.strip()
    except OSError:
        pass  # another system than Linux
    return platform.machine()


def machine(device: str | None = None) -> dict[str, str]:
    """The last columns of every row of results.

    Args:
        device: 'cpu' or 'cuda'; by default a GPU where there is one.

    Returns:
        The GPU, or the processor's model and how many threads torch uses;
        versions of torch and Python; the date.
    """
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = f'CPU {cpu_name()}, {torch.get_num_threads()} threads'
    return dict(
        machine=name,
        torch=torch.__version__,
        python=platform.python_version(),
        date=date.today().isoformat(),
    )
