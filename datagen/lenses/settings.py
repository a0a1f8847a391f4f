"""A lens preset: the settings of scenes and images, and the flaws of the public set it follows.

The values stand in `conf/lens/*.yaml`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from datagen.checks import build_checked, check_positive, check_range
from datagen.distributions import Distribution, Drawn
from datagen.errors import ConfigError
from datagen.lenses.scene_settings import (
    CdmSettings,
    LensLightSettings,
    LineOfSightSettings,
    MacroSettings,
    RodSettings,
    SourceSettings,
    SubstructureSettings,
)


@dataclass
class ImagingSettings(Drawn):
    """Pixels, PSF and noise.

    The brightness comes either from `snr` or from `magnitude`; the other one is null.

    Args:
        side: Side of the image [px].
        pixel_scale: [arcsec/px].
        supersampling: Rays per pixel and axis.
        bands: Names of the planes.
        psf_fwhm: Full width at half maximum of each band [arcsec].
        snr: Signal-to-noise ratio of the brightest pixel of the lensed source, without
            substructure, in the first band.
        sky_sigma: Noise of the empty sky, with `snr` [counts].
        gain: Electrons per count, with `snr`; null: no photon noise of the source.
        magnitude: Source, first band, with `magnitude` [AB mag].
        zero_point: Magnitude of one electron per second [AB mag].
        sky_brightness: Sky [AB mag / arcsec^2].
        exposure_s: One exposure [s].
        n_exposures: Their number.
        read_noise: Of one exposure [electrons].
        is_doubled: The image is added to itself and has no noise; only the flaw of public sets.
    """

    NAME: ClassVar[str] = "lens.imaging"

    side: int
    pixel_scale: float
    supersampling: int
    bands: list[str]
    psf_fwhm: dict[str, float]
    snr: str | None
    sky_sigma: float
    gain: float | None
    magnitude: str | None
    zero_point: float
    sky_brightness: float
    exposure_s: float
    n_exposures: int
    read_noise: float
    is_doubled: bool

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"snr": (0.1, 1e5), "magnitude": (5.0, 40.0)}

    def brightness(self) -> Distribution:
        """Return the distribution of `snr` or `magnitude`, whichever is given."""
        return self.distribution("magnitude" if self.snr is None else "snr")

    @property
    def electrons_per_count(self) -> float:
        """The gain; 0 where photons of the image make no noise."""
        # Pixels are electrons where exposures are given.
        return 1.0 if self.magnitude is not None else self.gain or 0.0

    def __post_init__(self) -> None:
        check_range("lens.imaging.side", self.side, 8, 1024)
        check_range("lens.imaging.supersampling", self.supersampling, 1, 8)
        for name in ("pixel_scale", "sky_sigma", "exposure_s"):
            check_positive(f"lens.imaging.{name}", getattr(self, name))
        if not self.bands or len(set(self.bands)) < len(self.bands):
            raise ConfigError(
                f"expected lens.imaging.bands to be distinct names, but got {self.bands}"
            )
        check_bands("lens.imaging.psf_fwhm", self.psf_fwhm, self.bands)
        for band, fwhm in self.psf_fwhm.items():
            check_positive(f"lens.imaging.psf_fwhm.{band}", fwhm)
        self._check_brightness()

    def _check_brightness(self) -> None:
        if (self.snr is None) == (self.magnitude is None):
            raise ConfigError(
                "expected one of lens.imaging.snr and lens.imaging.magnitude, and null for the "
                f"other, but got snr = {self.snr} and magnitude = {self.magnitude}"
            )
        self.check_distributions()
        if self.gain is not None:
            check_positive("lens.imaging.gain", self.gain)
        check_range("lens.imaging.n_exposures", self.n_exposures, 1, 10_000)
        check_range("lens.imaging.read_noise", self.read_noise, 0.0)


@dataclass
class LensSettings:
    """A preset of the lens simulator.

    Args:
        name: Name of the preset.
        legacy_flaws: Whether `flaws` hold.
        flaws: What `legacy_flaws` changes: dotted name of a setting, its value.
        radius_factor: Einstein radii of given masses are multiplied by it: 1, but for a flaw.
        macro: The main lens.
        source: The lensed galaxy.
        lens_light: Light of the lens.
        substructure: What distinguishes the classes.
        imaging: Pixels, PSF and noise.
    """

    name: str
    legacy_flaws: bool
    flaws: dict[str, Any]
    radius_factor: float
    macro: MacroSettings
    source: SourceSettings
    lens_light: LensLightSettings
    substructure: SubstructureSettings
    imaging: ImagingSettings

    def __post_init__(self) -> None:
        check_range("lens.radius_factor", self.radius_factor, 0.1, 10.0)
        bands = self.imaging.bands
        check_bands("lens.source.colours", self.source.colours, bands)
        check_bands("lens.source.clump_colours", self.source.clump_colours, bands)
        if self.imaging.is_doubled and self.substructure.min_delta_chi2 > 0.0:
            raise ConfigError(
                "expected lens.substructure.min_delta_chi2 = 0 with imaging.is_doubled = true, "
                "since Delta chi2 needs noise, but got min_delta_chi2 = "
                f"{self.substructure.min_delta_chi2:g}",
                value=self.substructure.min_delta_chi2,
                allowed=0.0,
            )
        for flaw in self.flaws:
            self._check_flaw(flaw)

    def _check_flaw(self, flaw: str) -> None:
        node: Any = self
        for key in flaw.split("."):
            if not hasattr(node, key):
                raise ConfigError(
                    f"expected lens.flaws to name settings such as macro.q, but got {flaw}", flaw
                )
            node = getattr(node, key)

    def resolved(self) -> LensSettings:
        """Return the settings that are simulated: with the flaws if they are wanted."""
        if not self.legacy_flaws:
            return self
        content = dataclasses.asdict(self) | {"legacy_flaws": False, "flaws": {}}
        for flaw, value in self.flaws.items():
            *path, last = flaw.split(".")
            node = content
            for key in path:
                node = node[key]
            node[last] = value
        return lens_settings(content)


_PARTS: dict[str, Any] = {
    "macro": MacroSettings,
    "source": SourceSettings,
    "lens_light": LensLightSettings,
    "imaging": ImagingSettings,
    "cdm": CdmSettings,
    "rod": RodSettings,
    "line_of_sight": LineOfSightSettings,
}


def check_bands(name: str, values: Mapping[str, float], bands: Sequence[str]) -> None:
    """Raise `ConfigError` unless there is a value for each band and for no other."""
    if set(values) == set(bands):
        return
    entries = ",".join(f"{band}:{next(iter(values.values()), 1.0)}" for band in bands)
    raise ConfigError(
        f"expected {name} to have an entry for each of lens.imaging.bands = {list(bands)}, but got "
        f"entries for {', '.join(values) or 'none'}; with other bands give '~{name}' "
        f"'+{name}={{{entries}}}', and in the same way lens.imaging.psf_fwhm, lens.source.colours "
        "and lens.source.clump_colours",
        value=list(values),
        allowed=list(bands),
    )


def lens_settings(values: Mapping[str, Any]) -> LensSettings:
    """Build a preset from plain nested values, as YAML holds them.

    Raises:
        ConfigError: A key is unknown or missing, or a value is out of range.
    """
    settings: LensSettings = build_checked(LensSettings, _nested(values), "lens")
    return settings


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key in _PARTS and isinstance(value, Mapping):
            built[key] = build_checked(_PARTS[key], dict(value), f"lens.{key}")
        elif key == "substructure" and isinstance(value, Mapping):
            built[key] = build_checked(SubstructureSettings, _nested(value), "lens.substructure")
        else:
            built[key] = value
    return built
