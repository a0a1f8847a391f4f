"""Conv1D and LSTM on polar maps: the ring of a lens read as a sequence along azimuth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.layers import check_images
from encoders.lenses.inputs import check_inputs
from encoders.lenses.polar import PolarMap

KERNEL = 5
# Azimuths per step of the LSTM: two convolutions, each followed by a maximum over three azimuths.
POOL = 3
STRIDE = POOL**2


class ConvLSTM(nn.Module):
    """Convolutions along azimuth with all radii as channels, then an LSTM around the ring.

    The ring has no beginning: convolutions are padded in a circle, and the LSTM walks it twice, of
    which the second round counts. What it says therefore hardly depends on where it starts. The
    mean over the round gives the logits.

    Args:
        in_channels: Bands of an image.
        n_classes: Classes.
        side: Side of an image [px].
        polar: Options of `PolarMap`; `n_azimuths` is a multiple of 9, and of 36 where quarter
            turns of an image shall shift the sequence by whole steps.
        width: Channels of the convolutions.
        hidden: State of the LSTM.

    Raises:
        ConfigError: A value is out of range.
    """

    head_name = "head"

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        side: int,
        polar: Mapping[str, Any],
        width: int,
        hidden: int,
    ) -> None:
        super().__init__()
        check_inputs(in_channels, n_classes, side)
        self.in_channels, self.side = in_channels, side
        self.polar = PolarMap(side=side, **polar)
        if self.polar.n_azimuths % STRIDE:
            raise ConfigError(
                f"expected model.network.polar.n_azimuths to be a multiple of {STRIDE}, but got "
                f"n_azimuths = {self.polar.n_azimuths}",
                self.polar.n_azimuths,
            )
        self.convolutions = nn.Sequential(
            *_step(in_channels * self.polar.n_radii, width), *_step(width, width)
        )
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) for stretched images (B, C, side, side).

        Raises:
            ConfigError: The images have another shape.
        """
        check_images(images, self.in_channels, self.side)
        sequence = self.convolutions(self.polar(images).flatten(1, 2)).transpose(1, 2)
        n_steps = sequence.shape[1]
        states, _ = self.lstm(torch.cat((sequence, sequence), dim=1))
        logits: Tensor = self.head(states[:, n_steps:].mean(dim=1))
        return logits


def _step(n_in: int, n_out: int) -> list[nn.Module]:
    return [
        nn.Conv1d(n_in, n_out, KERNEL, padding=KERNEL // 2, padding_mode="circular", bias=False),
        nn.BatchNorm1d(n_out),
        nn.ReLU(inplace=True),
        nn.MaxPool1d(POOL),
    ]
