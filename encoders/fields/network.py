"""The membership network: multi-band image -> one logit per cell, with a bounded view."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.fields.losses import N_REDSHIFT_CLASSES
from encoders.fields.photometry import APERTURES_PX, STEP_PX, aperture_maps
from encoders.layers import ConvNormAct, down, input_span, same

# Strides of the two feature maps that the head sees.
FINE_PX = 16
COARSE_PX = 64
# The least that a cell's squares add up to: a logit of -14.
LEAST_HAZARD = 1e-6
# How far the widest aperture reaches, for the receptive field.
_WIDEST = nn.AvgPool2d(APERTURES_PX[-1], STEP_PX, padding=(APERTURES_PX[-1] - STEP_PX) // 2)


class MembershipNetwork(nn.Module):
    """Aperture photometry, strided convolutions to 16 px and 64 px, and a logit for each 16 px.

    The fine branch sees galaxies and their colours and says in which redshift interval they lie;
    the coarse one counts their neighbours. A head on both gives the probability p_i that a square
    of 16 px holds a member, and a cell holds one if any of its squares does:
    `p = 1 - prod_i (1 - p_i)`. Training on the redshifts of all bright galaxies, not of members
    alone, teaches the fine branch colours from far fewer fields. Nothing depends on statistics over
    the window, so that a cell's logit is a function of the pixels within `receptive_field_px` and
    of nothing else.

    Example:
        >>> network = MembershipNetwork(n_bands=4, cell_px=128, width=16, context_layers=2)
        >>> network(torch.zeros(1, 4, 512, 512)).shape
        torch.Size([1, 4, 4])

    Args:
        n_bands: Number of bands, >= 1.
        cell_px: Side of a cell [px], a power of two >= 16.
        width: Channels of the first stage; deeper ones have two and four times as many.
        context_layers: Convolutions at 64 px; each widens the receptive field by 128 px.
    """

    def __init__(self, n_bands: int, cell_px: int, width: int, context_layers: int) -> None:
        super().__init__()
        check_layout(n_bands, cell_px)
        self.n_bands, self.cell_px = n_bands, cell_px
        mid, wide = 2 * width, 4 * width
        self.fine = nn.Sequential(
            *(down(len(APERTURES_PX) * n_bands, mid), same(mid, mid)),
            *(down(mid, mid), same(mid, mid)),
        )
        self.redshift = nn.Conv2d(mid, N_REDSHIFT_CLASSES, 1)
        n_fine = mid + N_REDSHIFT_CLASSES
        context = [same(wide, wide) for _ in range(context_layers)]
        self.coarse = nn.Sequential(down(n_fine, mid), down(mid, wide), *context)
        self.head = nn.Sequential(
            ConvNormAct(n_fine + wide, mid, 1, 1, 0),
            nn.Conv2d(mid, 1, 1),
        )

    @property
    def alignment_px(self) -> int:
        """Window starts and sizes are multiples of this, or cells would see shifted grids [px]."""
        return max(self.cell_px, COARSE_PX)

    @property
    def receptive_field_px(self) -> int:
        """Side of the square around a cell's centre outside which no pixel matters [px]."""
        spans = [self._reach(n) for n in range(self.alignment_px // self.cell_px)]
        return self.cell_px + 2 * max(spans)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, H / cell_px, W / cell_px) for images (B, C, H, W) in noise units.

        Sizes that are multiples of the cell but not of `alignment_px` are padded with empty sky
        on the right and at the bottom.

        Raises:
            ConfigError: The number of bands or the size of the images does not fit.
        """
        check_images(images, self.n_bands, self.cell_px)
        return self.score(aperture_maps(images))[0]

    def score(self, apertures: Tensor) -> tuple[Tensor, Tensor]:
        """Return membership and redshift logits for the `aperture_maps` of images.

        Args:
            apertures: (B, 3 C, H / 4, W / 4).

        Returns:
            Membership logits (B, ny, nx) and logits of the redshift classes of the brightest
            source in squares of 16 px (B, classes, H / 16, W / 16).
        """
        ny, nx = (side * STEP_PX // self.cell_px for side in apertures.shape[-2:])
        padded = pad_to(apertures, self.alignment_px // STEP_PX)
        fine = self.fine(padded.contiguous(memory_format=torch.channels_last))
        redshift = self.redshift(fine)
        fine = torch.cat((fine, redshift.softmax(dim=1).to(fine.dtype)), dim=1)
        coarse = nn.functional.interpolate(self.coarse(fine), scale_factor=COARSE_PX // FINE_PX)
        squares = self.head(torch.cat((fine, coarse), dim=1))
        rows, columns = (side * STEP_PX // FINE_PX for side in apertures.shape[-2:])
        cells = any_of(squares[:, 0], self.cell_px // FINE_PX)
        return cells[:, :ny, :nx], redshift[..., :rows, :columns]

    def start_from(self, logit: float) -> None:
        """Let the untrained network answer `logit` everywhere: the base rate of the labels."""
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        # Small, not zero: the layers below would get no gradient.
        nn.init.normal_(last.weight, std=1e-2)
        n_squares = (self.cell_px // FINE_PX) ** 2
        hazard = math.log1p(math.exp(logit)) / n_squares
        nn.init.constant_(last.bias, math.log(math.expm1(hazard)))

    def _reach(self, cell: int) -> int:
        """Return how far beyond its own border cell number `cell` sees [px]."""
        first_px, last_px = cell * self.cell_px, (cell + 1) * self.cell_px - 1
        fine = input_span([_WIDEST, self.fine], first_px // FINE_PX, last_px // FINE_PX)
        chain = [_WIDEST, self.fine, self.coarse]
        coarse = input_span(chain, first_px // COARSE_PX, last_px // COARSE_PX)
        first, last = min(fine[0], coarse[0]), max(fine[1], coarse[1])
        return max(first_px - first, last - last_px)


def any_of(logits: Tensor, factor: int) -> Tensor:
    """Return the logits that any of `factor` x `factor` independent events happens.

    `ln(p / (1 - p))` with `-ln(1 - p) = sum_i -ln(1 - p_i)`, the sum of the hazards.

    Args:
        logits: (B, H, W).
        factor: Side of a block; divides H and W.

    Returns:
        (B, H / factor, W / factor), float32.
    """
    hazard = nn.functional.avg_pool2d(nn.functional.softplus(logits.float()), factor) * factor**2
    hazard = hazard.clamp_min(LEAST_HAZARD)
    return hazard + torch.log(-torch.expm1(-hazard))


def check_layout(n_bands: int, cell_px: int) -> None:
    """Raise `ConfigError` unless there is a band and cells are powers of two >= 16 px."""
    if n_bands < 1:
        raise ConfigError(f"expected at least one band, but got n_bands = {n_bands}", n_bands)
    if cell_px < FINE_PX or cell_px & (cell_px - 1):
        raise ConfigError(
            f"expected cell_px to be a power of two >= {FINE_PX}, but got cell_px = {cell_px}",
            cell_px,
            "16, 32, 64, 128, 256, ...",
        )


def check_images(images: Tensor, n_bands: int, cell_px: int) -> None:
    """Raise `ConfigError` unless images have that many bands and are whole cells."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != n_bands or shape[2] % cell_px or shape[3] % cell_px:
        raise ConfigError(
            f"expected images of shape (B, {n_bands}, H, W) with H and W multiples of "
            f"cell_px = {cell_px}, but got {shape}",
            shape,
        )


def pad_to(images: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) with zeros on the right and at the bottom to multiples of `multiple`."""
    right, bottom = -images.shape[3] % multiple, -images.shape[2] % multiple
    return nn.functional.pad(images, (0, right, 0, bottom)) if right or bottom else images


def logit_of(prevalence: float, pos_weight: float = 1.0) -> float:
    """Return ln(w p / (1 - p)), the logit that a base rate p and a weight w of positives call for.

    Args:
        prevalence: Fraction of positive cells; kept within 1e-4 of 0 and 1.
        pos_weight: Weight of positive cells in the loss.
    """
    p = min(max(prevalence, 1e-4), 1.0 - 1e-4)
    return math.log(p / (1.0 - p)) + math.log(pos_weight)
