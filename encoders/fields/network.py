"""The membership network: multi-band image -> one logit per cell, with a bounded view."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad, softplus

from datagen.errors import ConfigError
from encoders.fields.clusters import PROPERTIES, ClusterEstimate
from encoders.fields.losses import N_REDSHIFT_CLASSES
from encoders.fields.photometry import REACH_PX, SQUARE_PX, n_channels, source_maps
from encoders.layers import pointwise

# Sides of the boxes in which the neighbours of a source are counted [blocks].
BLOCK_PX = 64
BOXES = (1, 3, 7, 13)
# The least that a cell's squares add up to: a logit of -14.
LEAST_HAZARD = 1e-6
# Where estimates of ln(1 + z) and ln richness start from and their usual spread. They end at 0 and
# at the highest, and ln(sigma / spread) at its range: finite whatever the images hold.
CENTRES, SPREADS, HIGHEST = (0.4, 3.5), (0.15, 0.6), (1.5, 7.0)
SIGMA_RANGE = (-5.0, 2.0)


class CellScores(NamedTuple):
    """What the network says about cells and squares.

    Args:
        membership: Logits (B, ny, nx).
        redshift: Logits of the redshift classes of the brightest source in squares of 16 px
            (B, classes, H / 16, W / 16).
        cluster: Redshift and richness of the cluster whose members a cell holds (B, 2, ny, nx).
    """

    membership: Tensor
    redshift: Tensor
    cluster: ClusterEstimate


class MembershipNetwork(nn.Module):
    """Photometry of the brightest source of each square, and a count of sources like it around.

    Layers on single sources find what the brightest source of every 16 px is and in which redshift
    interval it lies. What they find is averaged in boxes of 64 to 832 px. A head on both gives the
    probability p_i that the square holds a member, and a cell holds one if any of its squares
    does: `p = 1 - prod_i (1 - p_i)`. The same head estimates redshift and richness of the cluster;
    a cell takes the means of its squares, weighted with p_i. Training on the redshifts of all
    bright galaxies, not of members alone, teaches colours from far fewer fields. Nothing depends on
    statistics over the window, so that what is said about a cell is a function of the pixels within
    `receptive_field_px` and of nothing else.

    Example:
        >>> network = MembershipNetwork(n_bands=4, cell_px=128, width=16, n_counts=8)
        >>> network(torch.zeros(1, 4, 512, 512)).shape
        torch.Size([1, 4, 4])

    Args:
        n_bands: Number of bands, >= 1.
        cell_px: Side of a cell [px], a power of two >= 16.
        width: Channels of the layers.
        n_counts: Kinds of sources that are counted.
    """

    def __init__(self, n_bands: int, cell_px: int, width: int, n_counts: int) -> None:
        super().__init__()
        check_layout(n_bands, cell_px)
        self.n_bands, self.cell_px = n_bands, cell_px
        self.source = nn.Sequential(pointwise(n_channels(n_bands), width), pointwise(width, width))
        self.redshift = nn.Conv2d(width, N_REDSHIFT_CLASSES, 1)
        n_known = width + N_REDSHIFT_CLASSES
        self.kinds = pointwise(n_known, n_counts)
        self.surroundings = pointwise(len(BOXES) * n_counts, width)
        self.head = nn.Sequential(pointwise(n_known + width, width), nn.Conv2d(width, 1, 1))
        self.cluster = nn.Conv2d(width, 2 * len(PROPERTIES), 1)

    @property
    def alignment_px(self) -> int:
        """Window starts and sizes are multiples of this, or cells would see shifted grids [px]."""
        return max(self.cell_px, BLOCK_PX)

    @property
    def receptive_field_px(self) -> int:
        """Side of the square around a cell's centre outside which no pixel matters [px]."""
        box_px = max(BOXES) // 2 * BLOCK_PX
        return self.cell_px + 2 * (box_px + self._offset_px + REACH_PX)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, H / cell_px, W / cell_px) for images (B, C, H, W) in noise units.

        Sizes that are multiples of the cell but not of `alignment_px` are padded with empty sky
        on the right and at the bottom.

        Raises:
            ConfigError: The number of bands or the size of the images does not fit.
        """
        return self.score(self.measure(images)).membership

    def measure(self, images: Tensor) -> Tensor:
        """Return the `source_maps` of images; arguments and errors as in `forward`."""
        check_images(images, self.n_bands, self.cell_px)
        return source_maps(images)

    def score(self, sources: Tensor) -> CellScores:
        """Return what the network says about images of which these are the `source_maps`.

        Args:
            sources: (B, 3 C + 1, H / 16, W / 16).
        """
        rows, columns = sources.shape[-2:]
        padded = pad_to(sources, self.alignment_px // SQUARE_PX)
        known = self.source(padded.contiguous(memory_format=torch.channels_last))
        redshift = self.redshift(known)
        known = torch.cat((known, redshift.softmax(dim=1).to(known.dtype)), dim=1)
        around = self.surroundings(box_means(self.kinds(known), BLOCK_PX // SQUARE_PX))
        around = interpolate(around, scale_factor=BLOCK_PX // SQUARE_PX)
        judged = self.head[0](torch.cat((known, around), dim=1))
        squares = self.head[1](judged)
        factor = self.cell_px // SQUARE_PX
        cells = (..., slice(rows // factor), slice(columns // factor))
        properties = means_over(self.cluster(judged), squares, factor)[cells]
        return CellScores(
            membership=any_of(squares[:, 0], factor)[cells],
            redshift=redshift[..., :rows, :columns],
            cluster=_estimate(properties),
        )

    def start_from(self, logit: float) -> None:
        """Let the untrained network answer `logit` everywhere: the base rate of the labels."""
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        # Small, not zero: the layers below would get no gradient.
        nn.init.normal_(last.weight, std=1e-2)
        n_squares = (self.cell_px // SQUARE_PX) ** 2
        hazard = math.log1p(math.exp(logit)) / n_squares
        nn.init.constant_(last.bias, math.log(math.expm1(hazard)))

    @property
    def _offset_px(self) -> int:
        """How far a cell's far border may lie from the border of its block [px]."""
        return max(BLOCK_PX - self.cell_px, 0)


def box_means(maps: Tensor, factor: int) -> Tensor:
    """Return the means of maps in boxes of one to thirteen blocks around every block.

    Boxes end where the maps do: the sky beyond the edge is unknown, not empty.

    Args:
        maps: (B, C, H, W).
        factor: Side of a block; divides H and W.

    Returns:
        (B, 4 C, H / factor, W / factor).
    """
    blocks = avg_pool2d(maps, factor)
    means = [avg_pool2d(blocks, k, 1, k // 2, count_include_pad=False) for k in BOXES]
    return torch.cat(means, dim=1)


def any_of(logits: Tensor, factor: int) -> Tensor:
    """Return the logits that any of `factor` x `factor` independent events happens.

    `ln(p / (1 - p))` with `-ln(1 - p) = sum_i -ln(1 - p_i)`, the sum of the hazards.

    Args:
        logits: (B, H, W).
        factor: Side of a block; divides H and W.

    Returns:
        (B, H / factor, W / factor), float32.
    """
    hazard = avg_pool2d(softplus(logits.float()), factor) * factor**2
    hazard = hazard.clamp_min(LEAST_HAZARD)
    return hazard + torch.log(-torch.expm1(-hazard))


def means_over(maps: Tensor, logits: Tensor, factor: int) -> Tensor:
    """Return means over blocks of `factor` x `factor`, weighted with probabilities.

    Args:
        maps: (B, C, H, W).
        logits: Of the probabilities, which get no gradient (B, 1, H, W).
        factor: Side of a block; divides H and W.

    Returns:
        (B, C, H / factor, W / factor), float32.
    """
    # Not 0 anywhere: where no place has a say, all have the same.
    weight = torch.sigmoid(logits.detach().float()) + LEAST_HAZARD
    return avg_pool2d(weight * maps.float(), factor) / avg_pool2d(weight, factor)


def _estimate(properties: Tensor) -> ClusterEstimate:
    """Return means and ln sigmas from what a head says about cells (B, 4, ny, nx)."""
    centre, spread, highest = (
        properties.new_tensor(values)[:, None, None] for values in (CENTRES, SPREADS, HIGHEST)
    )
    mean, log_sigma = properties.chunk(2, dim=1)
    return ClusterEstimate(
        mean=(centre + spread * mean).clamp_min(0.0).minimum(highest),
        log_sigma=spread.log() + log_sigma.clamp(*SIGMA_RANGE),
    )


def check_layout(n_bands: int, cell_px: int) -> None:
    """Raise `ConfigError` unless there is a band and cells are powers of two >= 16 px."""
    if n_bands < 1:
        raise ConfigError(f"expected at least one band, but got n_bands = {n_bands}", n_bands)
    if cell_px < SQUARE_PX or cell_px & (cell_px - 1):
        raise ConfigError(
            f"expected cell_px to be a power of two >= {SQUARE_PX}, but got cell_px = {cell_px}",
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
    return pad(images, (0, right, 0, bottom)) if right or bottom else images


def logit_of(prevalence: float, pos_weight: float = 1.0) -> float:
    """Return ln(w p / (1 - p)), the logit that a base rate p and a weight w of positives call for.

    Args:
        prevalence: Fraction of positive cells; kept within 1e-4 of 0 and 1.
        pos_weight: Weight of positive cells in the loss.
    """
    p = min(max(prevalence, 1e-4), 1.0 - 1e-4)
    return math.log(p / (1.0 - p)) + math.log(pos_weight)
