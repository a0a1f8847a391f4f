"""How fast are the renderers: CPU-seconds per field, against a plain loop over `drawImage`.

Usage: python benchmarks/renderers.py [--size 2560] [--seed 0]

All three draw the same simulated source catalogue in all bands, without noise, on one thread, in
turns; the fastest of the repetitions counts. The plain loop lets GalSim choose its stamps and its
accuracy. The last columns compare each image with the reference renderer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import galsim
import numpy as np
import torch
from astropy.table import Table
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from conf import schema
from conf.build import build_settings
from datagen.fields.images import Exposure
from datagen.fields.noise import FAINT_FRACTION
from datagen.fields.prior import draw_sky
from datagen.fields.render import View, get_renderer
from datagen.fields.render.components import components
from datagen.fields.render.galsim_renderer import sersic_profile
from datagen.fields.sky import SkyArea
from datagen.fields.wcs import tan_wcs
from datagen.seeds import stream

ROOT = Path(__file__).resolve().parents[1]
Images = NDArray[np.float32]
Draw = Callable[[Table, Sequence[View]], Images]
N_REPEATS = 3


def main() -> None:
    """Draw, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=2560, help="side of the field [px]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sources, views = field(options.size, options.seed)
    methods: dict[str, Draw] = {
        "plain loop": plain_loop,
        "galsim": partial(_rendered, "galsim"),
        "fourier": partial(_rendered, "fourier"),
    }
    seconds, images = measure(methods, sources, views)
    print(f"{len(sources)} sources, {len(views)} bands, {options.size} x {options.size} px")
    print(table(seconds, images, views))


def field(size: int, seed: int) -> tuple[Table, list[View]]:
    """Return the source catalog of a simulated field and the views of its bands."""
    schema.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        wanted = ["data_gen=fields", f"data_gen.image_size={size}", f"data_gen.seed={seed}"]
        config = build_settings(compose("datagen", wanted).data_gen, "data_gen")
    shape = (size, size)
    wcs = tan_wcs(30.0, -30.0, shape, config.image.pixel_scale)
    area = SkyArea.from_image(config.image, config.reference_band, wcs, shape)
    sources, _ = draw_sky(config.prior, area, partial(stream, seed, 0))
    exposure = Exposure(config.image, config.renderer, seed, 0, "field", "")
    return sources, [exposure.view(band, shape) for band in config.bands]


def _rendered(name: str, sources: Table, views: Sequence[View]) -> Images:
    return np.stack(list(get_renderer(name)(sources, views)))


def plain_loop(sources: Table, views: Sequence[View]) -> Images:
    """Draw one source after another as GalSim's own examples do."""
    return np.stack([_plain_band(sources, view) for view in views])


def _plain_band(sources: Table, view: View) -> Images:
    parts = components(sources, [view.band], view.pixel_scale)
    psf = view.psf.galsim().dilate(1.0 / view.pixel_scale)
    image = galsim.ImageF(view.shape[1], view.shape[0], xmin=0, ymin=0, scale=1.0)
    for row in range(len(parts)):
        profile = psf
        if parts.half_light[row] > 0:
            galaxy = sersic_profile(float(parts.sersic[row]), parts.half_light[row])
            g1, g2 = parts.shear[row]
            profile = galsim.Convolve([galaxy.shear(g1=g1, g2=g2), psf])
        centre = galsim.PositionD(parts.x[row], parts.y[row])
        stamp = profile.withFlux(parts.flux[row, 0]).drawImage(scale=1.0, center=centre)
        common = stamp.bounds & image.bounds
        if common.isDefined():
            image[common] += stamp[common]
    return np.asarray(image.array)


def measure(
    methods: dict[str, Draw], sources: Table, views: Sequence[View]
) -> tuple[dict[str, float], dict[str, Images]]:
    """Return the CPU-seconds and the images of each method; tables are built before."""
    images = {name: draw(sources, views) for name, draw in methods.items()}
    seconds = dict.fromkeys(methods, np.inf)
    for _ in range(N_REPEATS):
        for name, draw in methods.items():
            start = time.process_time()
            draw(sources, views)
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds, images


def table(seconds: dict[str, float], images: dict[str, Images], views: Sequence[View]) -> str:
    """Return the rows as text."""
    lines = [f"{'':12} {'CPU-s':>7} {'ratio':>6}   largest difference from galsim [noise sigma]"]
    reference, slowest = images["galsim"], seconds["plain loop"]
    for name, used in seconds.items():
        worst = [
            f"{view.band} {np.abs(image - expected).max() / view.faint_limit * FAINT_FRACTION:.3f}"
            for image, expected, view in zip(images[name], reference, views, strict=True)
        ]
        lines.append(f"{name:12} {used:7.2f} {slowest / used:6.1f}   {'  '.join(worst)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
