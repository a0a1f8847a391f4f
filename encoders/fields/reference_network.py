"""The comparison network: full-resolution 3-d front, group normalisation, a very wide view.

After the encoder of the public galaxy-clustering case study of the BLISS project: several asinh
curves per band, a Conv3d front over bands at full resolution, convolutions with strides 4 and 2
down to the cells, GroupNorm and SiLU. It is kept to compare with, not to predict surveys: most of
its work is done in the first layer, and its normalisation takes statistics over the window, so that
a cell's score depends on everything in the window and overlapping windows disagree.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from encoders.fields.network import check_images, check_layout
from encoders.layers import input_span

N_GROUPS = 8
# Signal-to-noise ratios between which the asinh curves of the front are centred.
LOWEST_SIGNAL, HIGHEST_SIGNAL = 1.0, 1000.0


class ReferenceNetwork(nn.Module):
    """Conv3d over (band, y, x), strided convolutions down to one pixel per cell, 1x1 head.

    Args:
        n_bands: Number of bands, >= 1.
        cell_px: Side of a cell [px], a power of two >= 16.
        width: Channels of the front, a multiple of 8.
        n_curves: Asinh curves per band, centred on signal-to-noise ratios 0 and 1 to 1000.
        cell_layers: Convolutions at the resolution of the cells; each widens the view of the
            convolutions by two cells.
    """

    centres: Tensor

    def __init__(
        self, n_bands: int, cell_px: int, width: int, n_curves: int, cell_layers: int
    ) -> None:
        super().__init__()
        check_layout(n_bands, cell_px)
        lowest, highest = math.log10(LOWEST_SIGNAL), math.log10(HIGHEST_SIGNAL)
        centres = torch.cat((torch.zeros(1), torch.logspace(lowest, highest, n_curves - 1)))
        self.register_buffer("centres", centres.view(1, -1, 1, 1, 1), persistent=False)
        self.n_bands, self.cell_px = n_bands, cell_px
        # The kernel spans all bands: every output channel is a colour filter.
        self.front = nn.Sequential(
            nn.Conv3d(n_curves, width, (n_bands, 5, 5), padding=(0, 2, 2)),
            nn.GroupNorm(N_GROUPS, width),
            nn.SiLU(inplace=True),
        )
        wide = 2 * width
        steps = [_block(width, wide, 5, 4)]
        steps += [_block(wide, wide, 5, 2) for _ in range(int(math.log2(cell_px // 4)))]
        steps += [_block(wide, wide, 3, 1) for _ in range(cell_layers)]
        self.steps = nn.Sequential(*steps)
        self.head = nn.Conv2d(wide, 1, 1)

    @property
    def alignment_px(self) -> int:
        """Window starts and sizes are multiples of this [px]."""
        return self.cell_px

    @property
    def receptive_field_px(self) -> int:
        """Side of the square that the convolutions see [px].

        Group normalisation sees the whole window beyond it.
        """
        first, last = input_span([self.front, self.steps], 0, 0)
        return self.cell_px + 2 * max(-first, last - self.cell_px + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, H / cell_px, W / cell_px) for images (B, C, H, W) in noise units.

        Raises:
            ConfigError: The number of bands or the size of the images does not fit.
        """
        check_images(images, self.n_bands, self.cell_px)
        curves = torch.asinh(images[:, None] - self.centres)
        features = self.front(curves)[:, :, 0]
        logits: Tensor = self.head(self.steps(features))[:, 0]
        return logits

    def start_from(self, logit: float) -> None:
        """Let the untrained network answer about `logit`: the base rate of the labels."""
        assert self.head.bias is not None
        nn.init.normal_(self.head.weight, std=1e-2)
        nn.init.constant_(self.head.bias, logit)


def _block(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        nn.GroupNorm(N_GROUPS, n_out),
        nn.SiLU(inplace=True),
    )
