"""Which devices this machine has."""


def usable(device: str) -> str:
    """The device, if it can be computed on.

    Raises:
        ValueError: It cannot.
    """
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has several ways to say so
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device={device} cannot be computed on here; there is {', '.join(here)}, and auto takes the best of them"
        ) from error
    return device
