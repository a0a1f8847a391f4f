"""Which pixels decide on the cross-section."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def saliency(network: nn.Module, maps: Tensor) -> Tensor:
    """Return |d z_0 / d pixel|, by how much each pixel moves the first latent (B, C, H, W).

    Simonyan et al. (2013, arXiv:1312.6034), section 3.

    Args:
        network: `network(maps).z` are latents; in evaluation mode.
        maps: What it sees (B, C, H, W).
    """
    # Lightning validates in inference mode, which knows no gradients.
    with torch.inference_mode(mode=False), torch.enable_grad():
        seen = maps.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(seen).z[:, 0].sum(), seen)
    return gradient.abs()
