"""The prior of everything that the classes share: main lens, source, lens light, brightness.

Its random numbers do not know the class, so that one prior holds for all classes exactly. Each
quantity has a uniform number of its own: a setting never changes what is drawn for another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datagen.lenses.caustics import MacroLens, points_inside
from datagen.lenses.draws import Draws
from datagen.lenses.scene import Multipoles, Scenes, Sersics
from datagen.lenses.scene_settings import MacroSettings, SourceSettings
from datagen.lenses.settings import LensSettings
from datagen.lenses.version import CLASSES

# Order of the uniform numbers; new quantities go to the end.
MACRO = (
    *("theta_e", "q", "angle_deg", "x", "y", "gamma", "gamma_angle_deg", "z_lens"),
    *("multipole_3", "multipole_4"),
)


@dataclass(frozen=True)
class Macro:
    """What all classes share, as drawn.

    Args:
        scenes: Smooth scenes whose sources, all components together, have a flux of 1 in the first
            band; lens light has the flux `flux_ratio`.
        source_colours: Flux of each source component in each band, relative to the first one,
            (B, S, bands).
        z_lens: Redshift of the lens, (B,).
        z_source: Redshift of the source, (B,).
        brightness: Signal-to-noise ratio of the brightest pixel, or magnitude, (B,).
    """

    scenes: Scenes
    source_colours: Tensor
    z_lens: Tensor
    z_source: Tensor
    brightness: Tensor


def draw_macro(settings: LensSettings, seed: int, index: Tensor, labels: Tensor) -> Macro:
    """Draw what all classes share.

    Args:
        settings: The preset, resolved.
        seed: The run's seed.
        index: Numbers of the images, (B,) int64.
        labels: Their classes; used by `macro.by_class` alone, which only a flaw fills.
    """
    drawn = _draw_lens(settings.macro, Draws(seed, index, "lens").uniform(16), labels)
    doubled = 2.0 * torch.deg2rad(drawn["gamma_angle_deg"])
    lens = MacroLens(
        **{name: drawn[name] for name in ("theta_e", "q", "angle", "x", "y")},
        gamma_1=drawn["gamma"] * torch.cos(doubled),
        gamma_2=drawn["gamma"] * torch.sin(doubled),
    )
    source, colours = _draw_source(settings, seed, index, lens)
    scenes = Scenes(
        **vars(lens),
        source=source,
        lens_light=_draw_lens_light(settings, seed, index, lens),
        multipoles=_multipoles(settings.macro, drawn),
    )
    brightness = settings.imaging.brightness()
    return Macro(
        scenes=scenes,
        source_colours=colours,
        z_lens=drawn["z_lens"],
        z_source=drawn["z_source"],
        brightness=brightness.quantile(Draws(seed, index, "brightness").uniform(1)[:, 0]),
    )


def _draw_lens(macro: MacroSettings, u: Tensor, labels: Tensor) -> dict[str, Tensor]:
    drawn = {}
    for column, name in enumerate(MACRO):
        values = macro.distribution(name).quantile(u[:, column])
        for label, class_name in enumerate(CLASSES):
            own = macro.by_class.get(class_name, {}).get(name)
            if own is not None:
                own_values = macro.distribution(name, own).quantile(u[:, column])
                values = torch.where(labels == label, own_values, values)
        drawn[name] = values
    drawn["angle_3"], drawn["angle_4"] = u[:, 10] * (2 * math.pi / 3), u[:, 11] * (math.pi / 2)
    drawn["angle"] = torch.deg2rad(drawn["angle_deg"])
    # z_source under the condition that the source lies behind the lens by the gap.
    far = macro.distribution("z_source")
    below = far.cdf(drawn["z_lens"] + macro.min_redshift_gap)
    z_source = far.quantile(below + (1.0 - below) * u[:, 12])
    drawn["z_source"] = torch.maximum(z_source, drawn["z_lens"] + macro.min_redshift_gap)
    return drawn


def _multipoles(macro: MacroSettings, drawn: dict[str, Tensor]) -> Multipoles | None:
    if all(macro.distribution(name).is_zero() for name in ("multipole_3", "multipole_4")):
        return None
    amplitude = torch.stack([drawn["multipole_3"], drawn["multipole_4"]], -1)
    return Multipoles(amplitude, torch.stack([drawn["angle_3"], drawn["angle_4"]], -1))


def _draw_source(
    settings: LensSettings, seed: int, index: Tensor, lens: MacroLens
) -> tuple[Sersics, Tensor]:
    source = settings.source
    u = Draws(seed, index, "source").uniform(16)
    main = {
        name: source.distribution(name).quantile(u[:, column])
        for column, name in enumerate(("n", "r_eff", "q", "angle_deg"))
    }
    main["x"], main["y"] = _source_position(source, u[:, 4:7], lens)
    main["angle"] = torch.deg2rad(main.pop("angle_deg"))
    main["flux"] = torch.ones_like(main["n"])
    colours = torch.tensor([source.colours[b] for b in settings.imaging.bands], dtype=u.dtype)
    colours = (colours / colours[0]).expand(len(u), 1, -1)
    if source.n_clumps == 0:
        return Sersics(**{name: value[:, None] for name, value in main.items()}), colours
    clumps = _draw_clumps(source, seed, index, main)
    main["flux"] = 1.0 - clumps["flux"].sum(-1)
    joined = {name: torch.cat([main[name][:, None], clumps[name]], -1) for name in main}
    own = torch.tensor([source.clump_colours[b] for b in settings.imaging.bands], dtype=u.dtype)
    own = (own / own[0]).expand(len(u), source.n_clumps, -1)
    return Sersics(**joined), torch.cat([colours, own], 1)


def _source_position(source: SourceSettings, u: Tensor, lens: MacroLens) -> tuple[Tensor, Tensor]:
    if source.position == "caustic":
        return points_inside(lens, u)
    offset = source.distribution("offset")
    if source.position == "square":
        return offset.quantile(u[:, 0]), offset.quantile(u[:, 1])
    radius, angle = offset.quantile(u[:, 0]), 2.0 * math.pi * u[:, 1]
    return radius * torch.cos(angle), radius * torch.sin(angle)


def _draw_clumps(
    source: SourceSettings, seed: int, index: Tensor, main: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Draw clumps that follow an elliptic Gaussian of the source's size and shape."""
    n = source.n_clumps
    u = Draws(seed, index, "clumps").uniform(2 * n + 1)
    place = Draws(seed, index, "clump_places").normal(2 * n)
    cos, sin = torch.cos(main["angle"])[:, None], torch.sin(main["angle"])[:, None]
    # Half of a two-dimensional Gaussian lies within 1.18 sigma.
    sigma = main["r_eff"][:, None] / 1.18
    axis = main["q"][:, None].sqrt()
    along, across = place[:, :n] * sigma / axis, place[:, n:] * sigma * axis
    weight = -torch.log(u[:, :n])  # exponential: shares of a uniform partition
    total = source.distribution("clump_flux").quantile(u[:, -1:])
    size = source.distribution("clump_r_eff")
    one = torch.ones_like(along)
    return {
        "x": main["x"][:, None] + along * cos - across * sin,
        "y": main["y"][:, None] + along * sin + across * cos,
        "q": one,
        "angle": torch.zeros_like(one),
        "n": one,
        "r_eff": main["r_eff"][:, None] * size.quantile(u[:, n : 2 * n]),
        "flux": total * weight / weight.sum(-1, keepdim=True),
    }


def _draw_lens_light(
    settings: LensSettings, seed: int, index: Tensor, lens: MacroLens
) -> Sersics | None:
    light = settings.lens_light
    if light.distribution("flux_ratio").is_zero():
        return None
    u = Draws(seed, index, "lens_light").uniform(3)
    drawn = {
        name: light.distribution(name).quantile(u[:, column])[:, None]
        for column, name in enumerate(("flux_ratio", "n", "r_eff"))
    }
    drawn["flux"] = drawn.pop("flux_ratio")
    shape = {name: getattr(lens, name)[:, None] for name in ("x", "y", "q", "angle")}
    return Sersics(**drawn, **shape)
