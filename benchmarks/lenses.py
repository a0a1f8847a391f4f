"""How fast are lenses drawn: images per CPU-second, against lenstronomy and caustics.

Usage: python benchmarks/lenses.py [--device cpu] [--n-images 64] [--repeats 3]

An image is an SIE with shear and 25 subhalos, a Sersic source, PSF and noise. On the CPU all three
draw the same scenes on one thread, in turns; the fastest of the repetitions counts. Skyfold and
caustics draw in float32, lenstronomy in float64; caustics draws one image at a time, all at once
(vmap) and eight at once. The last column is the largest difference from our images in float64, in
units of the peak. With `--device cuda` only our own speed is measured, by wall time, for several
batch sizes.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from datagen.lenses.light import sersic_b, sersic_peak
from datagen.lenses.observe import add_noise, psf_kernel
from datagen.lenses.render import Grid, render
from datagen.lenses.scene import Profile, Scenes, Sersics, Subhalos
from datagen.lenses.units import mass_of_arcsec2

GRIDS = (Grid(64, 0.08), Grid(150, 0.05))
PROFILES: tuple[Profile, ...] = ("point", "tnfw")
N_SUBHALOS, SIGMA = 25, 0.05
REDSHIFTS = (0.5, 1.0)
# Least ratio to lenstronomy that is asked for.
TARGETS = {("point", 64): 5.0, ("point", 150): 3.0, ("tnfw", 64): 2.0, ("tnfw", 150): 2.0}
GPU_BATCHES, GPU_TARGET = (1024, 4096, 16384), 50_000
Array = NDArray[np.float64]
Draw = Callable[[bool], Array]


def main() -> None:
    """Draw, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--n-images", type=int, default=64, help="images per repetition")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.device == "cuda":
        print(f"{torch.cuda.get_device_name()}; wanted at 64 x 64: {GPU_TARGET} images/s")
        measure_gpu(options.repeats)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # caustics warns of every redshift that a plane sets
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    print(f"{'':24} {'images/CPU-s':>12} {'ratio':>6} {'wanted':>6} {'difference':>10}")
    for grid in GRIDS:
        for profile in PROFILES:
            measure(grid, profile, options.n_images, options.repeats)


def measure(grid: Grid, profile: Profile, n_images: int, repeats: int) -> None:
    """Print the rows of one grid and kind of subhalos; ratios are those to lenstronomy."""
    scenes = draw_scenes(n_images, profile)
    kernel = psf_kernel(0.15, 0.4, grid.ray_scale)
    reference = render(scenes, grid, kernel)[:, 0].numpy()
    methods: dict[str, Draw] = {
        "skyfold": partial(ours, scenes.to("cpu", torch.float32), grid, kernel.float()),
        "lenstronomy": lenstronomy(scenes, grid, kernel),
    }
    for name, chunk in (("single", 0), ("vmap", n_images), ("vmap of 8", 8)):
        methods[f"caustics {name}"] = caustics(scenes, grid, kernel, chunk)
    seconds, errors = dict.fromkeys(methods, np.inf), {}
    for name, draw in methods.items():
        errors[name] = np.abs(draw(False) - reference).max() / reference.max()
    for _ in range(repeats):
        for name, draw in methods.items():
            start = time.process_time()
            draw(True)
            seconds[name] = min(seconds[name], time.process_time() - start)
    for name, used in seconds.items():
        label = f"{grid.side} {profile} {name}"
        ratio = seconds["lenstronomy"] / used
        wanted = f"{TARGETS[profile, grid.side]:6.1f}" if name == "skyfold" else " " * 6
        print(f"{label:24} {n_images / used:12.0f} {ratio:6.2f} {wanted} {errors[name]:10.1e}")


def measure_gpu(repeats: int) -> None:
    """Print our images per second on the GPU."""
    for grid in GRIDS:
        kernel = psf_kernel(0.15, 0.4, grid.ray_scale).float().cuda()
        for profile in PROFILES:
            for n_images in GPU_BATCHES:
                scenes = draw_scenes(n_images, profile).to("cuda", torch.float32)
                best = np.inf
                for _ in range(repeats + 1):  # the first one warms up
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    noisy(scenes, grid, kernel)
                    torch.cuda.synchronize()
                    best = min(best, time.perf_counter() - start)
                label = f"{grid.side} {profile} batch {n_images}"
                print(f"{label:24} {n_images / best:12.0f} images/s")


def draw_scenes(n_images: int, profile: Profile) -> Scenes:
    """Return random scenes with subhalos, float64."""
    rng = torch.Generator().manual_seed(0)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        numbers = torch.rand((n_images, *shape), generator=rng, dtype=torch.float64)
        return low + (high - low) * numbers

    n = N_SUBHALOS
    source = Sersics(
        x=draw(-0.1, 0.1, 1),
        y=draw(-0.1, 0.1, 1),
        q=draw(0.5, 0.95, 1),
        angle=draw(0.0, 3.0, 1),
        n=draw(0.8, 2.0, 1),
        r_eff=draw(0.1, 0.25, 1),
        flux=draw(50.0, 100.0, 1),
    )
    subhalos = Subhalos(
        x=draw(-2.0, 2.0, n),
        y=draw(-2.0, 2.0, n),
        theta_e=draw(0.01, 0.05, n),
        r_s=draw(0.03, 0.1, n),
        r_t=draw(0.1, 0.3, n),
        profile=profile,
    )
    shapes = {"theta_e": (0.9, 1.4), "q": (0.5, 0.9), "angle": (0.0, 3.0), "x": (-0.05, 0.05)}
    shapes |= {"y": (-0.05, 0.05), "gamma_1": (-0.05, 0.05), "gamma_2": (-0.05, 0.05)}
    lens = {name: draw(*limits) for name, limits in shapes.items()}
    return Scenes(source=source, subhalos=subhalos, **lens)  # type: ignore[arg-type]


def noisy(scenes: Scenes, grid: Grid, kernel: Tensor) -> Tensor:
    """Draw the scenes with white noise."""
    image = render(scenes, grid, kernel)
    one = torch.ones_like(scenes.theta_e)
    return add_noise(image, SIGMA * one, one, torch.randn_like(image))


@torch.no_grad()
def ours(scenes: Scenes, grid: Grid, kernel: Tensor, with_noise: bool) -> Array:
    """Draw all scenes at once."""
    draw = noisy if with_noise else render
    return draw(scenes, grid, kernel)[:, 0].double().numpy()


def lenstronomy(scenes: Scenes, grid: Grid, kernel: Tensor) -> Draw:
    """Return a function that draws the scenes one after another; models are built once."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    corner = -0.5 * (grid.side - 1) * grid.pixel_scale
    data = ImageData(
        image_data=np.zeros((grid.side, grid.side)),
        transform_pix2angle=grid.pixel_scale * np.eye(2),
        ra_at_xy_0=corner,
        dec_at_xy_0=corner,
    )
    assert scenes.subhalos is not None
    name = {"point": "POINT_MASS", "tnfw": "TNFW"}[scenes.subhalos.profile]
    model = ImageModel(
        data,
        PSF("PIXEL", kernel_point_source=kernel.numpy()),
        LensModel(["SIE", "SHEAR"] + [name] * N_SUBHALOS),
        LightModel(["SERSIC_ELLIPSE"]),
    )
    arguments = [lenstronomy_arguments(scenes[k : k + 1]) for k in range(len(scenes))]
    rng = np.random.default_rng(0)

    def draw(with_noise: bool) -> Array:
        images = []
        for lens, source in arguments:
            image = model.image(lens, source)
            noise = SIGMA * rng.standard_normal(image.shape) if with_noise else 0.0
            images.append(image + noise)
        return np.stack(images)

    return draw


def lenstronomy_arguments(scene: Scenes) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return the arguments of one scene in lenstronomy's conventions."""
    s = {k: float(v) for k, v in vars(scene).items() if isinstance(v, Tensor)}
    e1, e2 = ellipticity(s["q"], s["angle"])
    centre = {"center_x": s["x"], "center_y": s["y"]}
    lens = [{"theta_E": s["theta_e"], "e1": e1, "e2": e2, **centre}]
    lens.append({"gamma1": s["gamma_1"], "gamma2": s["gamma_2"]})
    sub = scene.subhalos
    assert sub is not None
    for k in range(N_SUBHALOS):
        x, y, theta, r_s, r_t = (
            float(values[0, k]) for values in (sub.x, sub.y, sub.theta_e, sub.r_s, sub.r_t)
        )
        own = {"theta_E": theta}
        if sub.profile == "tnfw":
            # deflection at r_s of the untruncated halo with the same central density
            t2 = (r_t / r_s) ** 2
            total = (t2 - 1) * math.log(r_t / r_s) + math.pi * r_t / r_s - (t2 + 1)
            scale = (t2 + 1) ** 2 / t2 / total * (1 + math.log(0.5))
            own = {"alpha_Rs": theta**2 * scale / r_s, "Rs": r_s, "r_trunc": r_t}
        lens.append({**own, "center_x": x, "center_y": y})
    light = {k: float(v) for k, v in vars(scene.source).items()}
    e1, e2 = ellipticity(light["q"], light["angle"])
    # lenstronomy has its own b_n: the same profile at another radius
    b, theirs = float(sersic_b(scene.source.n)), 1.9992 * light["n"] - 0.3271
    peak = float(sersic_peak(scene.source.flux, scene.source.n, scene.source.r_eff))
    source = {
        "amp": peak * math.exp(-theirs),
        "R_sersic": light["r_eff"] * (theirs / b) ** light["n"],
        "n_sersic": light["n"],
        "e1": e1,
        "e2": e2,
        "center_x": light["x"],
        "center_y": light["y"],
    }
    return lens, [source]


def ellipticity(q: float, angle: float) -> tuple[float, float]:
    """Return (1 - q) / (1 + q) times cosine and sine of twice the angle."""
    size = (1 - q) / (1 + q)
    return size * math.cos(2 * angle), size * math.sin(2 * angle)


def caustics(scenes: Scenes, grid: Grid, kernel: Tensor, chunk: int) -> Draw:
    """Return a function that draws `chunk` scenes at once, or one after another for 0."""
    import caustics as c

    assert scenes.subhalos is not None
    kind = {"point": c.Point, "tnfw": c.TNFW}[scenes.subhalos.profile]
    cosmology = c.FlatLambdaCDM(h0=0.7, Om0=0.3, name="cosmology")
    shear = c.ExternalShear(cosmology=cosmology, name="shear", x0=0.0, y0=0.0)
    lenses = [c.SIE(cosmology=cosmology, name="main"), shear]
    lenses += [kind(cosmology=cosmology, name=f"halo{k}") for k in range(N_SUBHALOS)]
    z_l, z_s = REDSHIFTS
    plane = c.SinglePlane(cosmology=cosmology, lenses=lenses, z_l=z_l, z_s=z_s, name="plane")
    source = c.Sersic(name="source")
    camera = c.LensSource(plane, source, grid.pixel_scale, grid.side, psf=kernel.float())
    for parameter in (shear.x0, shear.y0):
        parameter.to_static(0.0)
    values = caustics_values(scenes)
    columns = [values[p.name][next(iter(p.parents)).name] for p in camera.dynamic_params]
    parameters = torch.stack(columns, 1).float()
    batched = torch.vmap(camera, chunk_size=chunk) if chunk else None

    def draw(with_noise: bool) -> Array:
        with torch.no_grad():
            images = (
                batched(parameters) if batched else torch.stack([camera(p) for p in parameters])
            )
            images = images * grid.pixel_scale**2
            if with_noise:
                images = images + SIGMA * torch.randn_like(images)
        return images.double().numpy()

    return draw


def caustics_values(scenes: Scenes) -> dict[str, dict[str, Tensor]]:
    """Return parameter -> part -> values of each scene in the conventions of caustics."""
    s, sub, light = scenes, scenes.subhalos, scenes.source
    assert sub is not None
    peak = sersic_peak(light.flux, light.n, light.r_eff) * torch.exp(-sersic_b(light.n))
    own: dict[str, dict[str, Any]] = {
        "main": {"x0": s.x, "y0": s.y, "q": s.q, "phi": s.angle, "Rein": s.theta_e},
        "shear": {"gamma_1": s.gamma_1, "gamma_2": s.gamma_2},
        "source": {
            "x0": light.x[:, 0],
            "y0": light.y[:, 0],
            "q": light.q[:, 0],
            "phi": light.angle[:, 0],
            "n": light.n[:, 0],
            "Re": (light.r_eff / light.q.sqrt())[:, 0],  # on the major axis
            "Ie": peak[:, 0],
        },
    }
    unit = float(mass_of_arcsec2(*REDSHIFTS))
    for k in range(N_SUBHALOS):
        own[f"halo{k}"] = {
            "x0": sub.x[:, k],
            "y0": sub.y[:, k],
            "Rein": sub.theta_e[:, k],
            "mass": unit * sub.theta_e[:, k] ** 2,
            "Rs": sub.r_s[:, k],
            "tau": sub.r_t[:, k] / sub.r_s[:, k],
        }
    names = {name for part in own.values() for name in part}
    return {n: {part: v[n] for part, v in own.items() if n in v} for n in names}


if __name__ == "__main__":
    main()
