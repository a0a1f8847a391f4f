"""Views of stamps: what the same object might look like in another exposure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError, DataFormatError
from encoders.galaxies.blurring import Blur
from encoders.galaxies.draws import About, Draw, Op
from encoders.galaxies.exposure import Exposure
from encoders.galaxies.geometry import Geometry, Resampling
from encoders.galaxies.noising import Noise
from encoders.galaxies.reddening import Reddening
from encoders.galaxies.redshifting import Redshifting
from encoders.galaxies.stretching import Stretch

log = logging.getLogger(__name__)

Options = Mapping[str, Any]


class Views(nn.Module):
    """Draws views of stamps on their device, in physical units.

    In this order: exposure; pose, redshift and PSF in one interpolation; reddening; noise; stretch.
    What a stamp becomes depends on seed, epoch, its number and that of the view, and on nothing
    else.

    Args:
        bands: In the order of the stamps.
        store_px: Side of stamps [px].
        train_px: Side of views [px].
        n_views: How many a stamp has.
        seed: Of all that is drawn.
        stretch: Arguments of `Stretch`.
        geometry: Arguments of `Geometry`.
        exposure: Arguments of `Exposure`, or None to leave the step out; so the others.
        redshifting: Arguments of `Redshifting` besides the bands.
        blur: Arguments of `Blur`.
        reddening: Arguments of `Reddening` besides the bands.
        noise: Arguments of `Noise` besides the bands.

    Raises:
        ConfigError: A value is out of range, or not given for a band.
    """

    def __init__(
        self,
        bands: Sequence[str],
        store_px: int,
        train_px: int,
        n_views: int,
        seed: int,
        *,
        stretch: Options,
        geometry: Options,
        exposure: Options | None,
        redshifting: Options | None,
        blur: Options | None,
        reddening: Options | None,
        noise: Options | None,
    ) -> None:
        super().__init__()
        if n_views < 1:
            raise ConfigError(
                f"expected n_views >= 1, but got n_views = {n_views}", n_views, ">= 1"
            )
        self.bands, self.n_views, self.seed = tuple(bands), n_views, seed
        self.exposure = None if exposure is None else Exposure(**exposure)
        self.resampling = Resampling(
            store_px,
            train_px,
            Geometry(**geometry),
            None if blur is None else Blur(**blur),
            None if redshifting is None else Redshifting(**redshifting, bands=bands),
        )
        self.reddening = None if reddening is None else Reddening(**reddening, bands=bands)
        self.noise = None if noise is None else Noise(**noise, bands=bands)
        self.stretch = Stretch(**stretch)

    @property
    def ops(self) -> list[Op]:
        """The steps, in their order."""
        steps = (self.exposure, self.resampling, self.reddening, self.noise, self.stretch)
        return [step for step in steps if step is not None]

    @property
    def hides(self) -> dict[str, tuple[str, ...]]:
        """The labels that each step hides, by the name of its settings."""
        found = {"exposure": self.exposure, "geometry": self.resampling.geometry,
                 "redshifting": self.resampling.redshifting, "blur": self.resampling.blur,
                 "reddening": self.reddening, "noise": self.noise}  # fmt: skip
        return {name: step.hides for name, step in found.items() if step is not None}

    @torch.no_grad()
    def forward(self, stamps: Tensor, about: About, index: Tensor, epoch: int) -> Tensor:
        """Return the views of stamps.

        Args:
            stamps: (B, bands, store_px, store_px) [unit of the survey].
            about: What is known of them.
            index: Their numbers (B,), int64.
            epoch: Number of the epoch.

        Returns:
            (n_views, B, bands, train_px, train_px), float32.

        Raises:
            DataFormatError: Stamps have another shape.
        """
        self._check(stamps)
        # Lower precision would cost more flux than interpolation does.
        with torch.autocast(stamps.device.type, enabled=False):
            stamps = stamps.float()
            spectra = torch.fft.rfft2(stamps) if self.exposure is None else None
            draws = [Draw(self.seed, epoch, index, view) for view in range(self.n_views)]
            return torch.stack([self._view(stamps, about, draw, spectra) for draw in draws])

    @torch.no_grad()
    def plain(self, stamps: Tensor) -> Tensor:
        """Return the middle of stamps, stretched (B, bands, train_px, train_px), float32."""
        self._check(stamps)
        side = self.resampling.train_px
        first = (self.resampling.store_px - side) // 2
        middle = stamps[..., first : first + side, first : first + side].float()
        return self.stretch.bright(middle)

    def _view(self, stamps: Tensor, about: About, draw: Draw, spectra: Tensor | None) -> Tensor:
        if self.exposure is not None:
            stamps, about = self.exposure(stamps, about, draw)
        stamps, about = self.resampling(stamps, about, draw, spectra)
        for op in (self.reddening, self.noise):
            if op is not None:
                stamps, about = op(stamps, about, draw)
        return self.stretch.bright(stamps)

    def _check(self, stamps: Tensor) -> None:
        wanted = (len(self.bands), self.resampling.store_px, self.resampling.store_px)
        if tuple(stamps.shape[1:]) != wanted:
            raise DataFormatError(
                f"expected stamps of shape (n, bands, side, side) = (n, {wanted[0]}, {wanted[1]}, "
                f"{wanted[2]}), but got {tuple(stamps.shape)}",
                tuple(stamps.shape),
                wanted,
            )


def hidden_targets(views: Views, targets: Iterable[str]) -> dict[str, list[str]]:
    """Return the targets of an inference that steps of views hide.

    A representation is taught not to tell what differs between views of one stamp.

    Args:
        views: The steps.
        targets: Labels that are to be inferred.

    Returns:
        The hidden targets, each with the names of the steps that hide it.
    """
    found = {
        target: [name for name, hides in views.hides.items() if target in hides]
        for target in targets
    }
    return {target: names for target, names in found.items() if names}


def warn_of_hidden(views: Views, targets: Iterable[str]) -> None:
    """Log a warning for each target of an inference that steps of views hide."""
    for target, names in hidden_targets(views, targets).items():
        log.warning(
            "label %s differs between the views that the encoder was trained with, by "
            "model.views.%s: it knows less of it; train an encoder without that step",
            target,
            ", ".join(names),
        )


def warn_of_unknown(views: Views, unknown: Mapping[str, Mapping[str, float]]) -> None:
    """Log a warning for each suite with stamps that a step leaves as they are.

    A suite whose stamps are never blurred is easily told from others that are.

    Args:
        views: The steps.
        unknown: Share of the stamps whose `fwhm` or `sigma` is not known, by suite.
    """
    steps = {
        "fwhm": ("blur", views.resampling.blur is not None),
        "sigma": ("noise", views.noise is not None),
    }
    for suite, shares in unknown.items():
        for name, (step, is_wanted) in steps.items():
            if is_wanted and shares[name] > 0:
                log.warning(
                    "model.views.%s leaves %.0f %% of the training stamps of suite %s as they are, "
                    "whose %s is not known: a network may learn to tell suites by it",
                    step,
                    100 * shares[name],
                    suite,
                    name,
                )
