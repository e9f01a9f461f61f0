"""The loop that teaches a network: AdamW and one cycle of the learning rate, the gradient bounded."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

CALM = 1.0  # longest gradient; a longer one is shortened


def fit(network: nn.Module, loss: Callable[[int], Tensor], *, steps: int, rate: float = 3e-3, decay: float = 1e-4) -> list[float]:
    """Teach a network in place and return the loss of each step; it is left ready to be used, not to be taught.

    loss: returns the loss of one step, given its number; it draws the samples and runs the network.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    network.train()
    seen = []
    for step in range(steps):
        optimiser.zero_grad(set_to_none=True)
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CALM)
        optimiser.step()
        schedule.step()
        seen.append(float(value.detach()))
    network.eval()
    return seen
