"""Simulated images: determinism, brightness, selection, and what must not tell the classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from datagen.lenses.blocks import BLOCK
from datagen.lenses.camera import brightest_pixel
from datagen.lenses.observe import psf_kernel
from datagen.lenses.render import Grid, render
from datagen.lenses.scene import Rods, Scenes, Sersics, Subhalos
from datagen.lenses.settings import LensSettings
from datagen.lenses.simulate import Simulated, Simulator, simulate
from tests.datagen.lenses.presets import lens_preset

# Few pixels and few subhalos: fast, with all parts at work.
SMALL = {
    "imaging__side": 33,
    "imaging__pixel_scale": 0.16,
    "imaging__supersampling": 1,
    "substructure__cdm__profile": "sis",
    "substructure__cdm__mass_fraction": "uniform(0.001, 0.01)",
    "substructure__min_delta_chi2": 50.0,
    "substructure__max_draws": 8,
}


@pytest.fixture(scope="module")
def settings() -> LensSettings:
    return lens_preset("fair", **SMALL)


@pytest.fixture(scope="module")
def made(settings: LensSettings) -> Simulated:
    return Simulator(settings, 4)(torch.arange(2 * BLOCK))


def test_bits_do_not_depend_on_batch_and_order(settings: LensSettings, made: Simulated) -> None:
    some = torch.tensor([100, 3, 64, 3])
    again = Simulator(settings, 4)(some)
    assert torch.equal(again.images, made.images[some])
    assert torch.equal(again.delta_chi2, made.delta_chi2[some])
    for name, column in again.truth.items():
        assert torch.equal(column, made.truth[name][some]), name
    rows = torch.isin(made.substructure["INDEX"], some)
    for name, column in again.substructure.items():
        order = torch.argsort(column if name == "X" else again.substructure["X"])
        whole = made.substructure[name][rows]
        assert torch.equal(column[order], whole[torch.argsort(made.substructure["X"][rows])])


def test_bits_do_not_depend_on_the_batch_with_several_rays_per_pixel() -> None:
    few = SMALL | {"imaging__side": 17, "imaging__pixel_scale": 0.3, "imaging__supersampling": 2}
    settings = lens_preset("fair", **few | {"substructure__min_delta_chi2": 0.0})
    some = torch.tensor([70, 4])
    whole, again = (simulate(index, settings, "cpu", 4) for index in (torch.arange(80), some))
    assert torch.equal(again.images, whole.images[some])


def test_bits_do_not_depend_on_the_number_of_threads(
    settings: LensSettings, made: Simulated
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = Simulator(settings, 4)(torch.arange(5))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(again.images, made.images[:5])


def test_classes_take_turns_and_have_their_substructure(made: Simulated) -> None:
    assert made.labels.tolist() == [k % 3 for k in range(2 * BLOCK)]
    kinds = {label: set() for label in range(3)}  # type: dict[int, set[int]]
    for index, kind in zip(
        *(made.substructure[n].tolist() for n in ("INDEX", "KIND")), strict=True
    ):
        kinds[index % 3].add(kind)
    assert kinds == {0: set(), 1: {0}, 2: {1}}
    assert torch.all(made.delta_chi2[made.labels == 0] == 0.0)
    lens = made.truth["THETA_MAIN"] / made.truth["THETA_E"]
    assert torch.all(lens[made.labels == 0] == 1.0)
    assert torch.all(lens <= 1.0)
    assert float(lens[made.labels == 1].max()) < 1.0


def test_selection_changes_substructure_only(settings: LensSettings, made: Simulated) -> None:
    free = dataclasses.replace(settings.substructure, min_delta_chi2=0.0)
    unselected = Simulator(dataclasses.replace(settings, substructure=free), 4)(torch.arange(BLOCK))
    for name, column in unselected.truth.items():
        if name not in ("THETA_MAIN", "DELTA_CHI2", "N_DRAWS"):
            assert torch.equal(column, made.truth[name][:BLOCK]), name
    before, after = unselected.delta_chi2, made.delta_chi2[:BLOCK]
    assert torch.all(after >= before)
    assert torch.equal(after[before > 50.0], before[before > 50.0])
    cdm = unselected.labels == 1
    assert float((before[cdm] > 50.0).double().mean()) < float((after[cdm] > 50.0).double().mean())
    n_draws = made.truth["N_DRAWS"][:BLOCK]
    assert torch.all(n_draws[(after < 50.0) & (made.labels[:BLOCK] > 0)] == 8)


def test_simulation_while_training_gives_the_same_images(
    settings: LensSettings, made: Simulated
) -> None:
    online = simulate(torch.arange(BLOCK), settings, "cpu", 4)
    assert torch.equal(online.images, made.images[:BLOCK])
    assert torch.equal(online.delta_chi2, made.delta_chi2[:BLOCK])
    free = dataclasses.replace(settings.substructure, min_delta_chi2=0.0)
    unselected = simulate(
        torch.arange(3), dataclasses.replace(settings, substructure=free), "cpu", 4
    )
    assert unselected.delta_chi2[1].isnan()
    assert unselected.delta_chi2[0] == 0.0


def test_brightness_and_noise_are_what_was_asked_for(made: Simulated) -> None:
    assert torch.allclose(made.truth["SNR"].min(), torch.tensor(20.0).double(), atol=2.0)
    # Of neighbouring pixels in the corners, where the light is faint and smooth.
    corner = made.images[:, 0, :3, :3].double()
    step = (corner[..., 1:] - corner[..., :-1]).flatten().abs().median()
    assert float(step) == pytest.approx(0.6745 * 2.0**0.5, rel=0.1)
    snr = torch.tensor([3.0, 25.0], dtype=torch.float64)
    for per_count in (0.0, 0.5):
        counts = brightest_pixel(snr, 4.0, per_count)
        assert torch.allclose(counts / (4.0 + per_count * counts).sqrt(), snr)


def test_the_truth_determines_the_image(settings: LensSettings, made: Simulated) -> None:
    """Scenes built from the tables alone leave white noise of the variance that they predict."""
    for row in (1, 2):
        truth = {name: column[row : row + 1] for name, column in made.truth.items()}
        halos = {n: c[made.substructure["INDEX"] == row] for n, c in made.substructure.items()}
        lens = ("Q", "ANGLE", "X", "Y", "GAMMA_1", "GAMMA_2")
        light = ("X", "Y", "Q", "ANGLE", "N", "R_EFF", "FLUX")
        source = Sersics(**{name.lower(): truth[f"SRC_{name}"][:, None] for name in light})
        scenes = Scenes(
            theta_e=truth["THETA_MAIN"],
            **{name.lower(): truth[name] for name in lens},
            source=source,
            subhalos=Subhalos(
                **{n.lower(): halos[n][None] for n in ("X", "Y", "THETA_E", "R_S", "R_T")},
                profile="sis",
            )
            if row == 1
            else None,
            rods=Rods(*(halos[n] for n in ("X", "Y", "ANGLE", "LENGTH", "THETA_E")))
            if row == 2
            else None,
        )
        psf = psf_kernel(0.15, 0.45, 0.16)
        expected = render(scenes, Grid(33, 0.16), psf)[0, 0]
        rest = (made.images[row, 0] - expected) / (truth["SKY_SIGMA"] ** 2 + expected).sqrt()
        assert abs(float(rest.mean())) < 4.0 / 33.0
        assert float(rest.std()) == pytest.approx(1.0, abs=0.09)
        assert float(rest.abs().max()) < 6.0


def test_lens_light_and_bands_add_light() -> None:
    small = SMALL | {"substructure__min_delta_chi2": 0.0, "substructure__has_delta_chi2": False}
    dark = Simulator(lens_preset("fair", **small), 4)(torch.arange(3))
    bright = Simulator(lens_preset("fair", **small, lens_light__flux_ratio="0.5"), 4)(
        torch.arange(3)
    )
    ratio = bright.images.sum((1, 2, 3)) / dark.images.sum((1, 2, 3))
    assert torch.allclose(ratio, torch.full_like(ratio, 1.5), atol=0.1)
    few = {"imaging__side": 17, "imaging__pixel_scale": 0.3, "source__n_clumps": 2}
    few |= {"imaging__supersampling": 1}
    few |= {"substructure__cdm__profile": "point", "substructure__cdm__n_subhalos": 5.0}
    colour = Simulator(lens_preset("model_4", **few), 4)(torch.arange(3))
    assert colour.images.shape == (3, 3, 17, 17)
    assert colour.truth["SRC_X"].shape == (3, 3)
    assert torch.all(colour.images[:, 2].sum((1, 2)) > colour.images[:, 0].sum((1, 2)))


def test_doubled_images_have_no_noise() -> None:
    few = {"imaging__side": 21, "imaging__pixel_scale": 0.3}
    made = Simulator(lens_preset("model_2", legacy_flaws=True, **few), 4)(torch.arange(2))
    image = made.images[0, 0]
    assert torch.all(image >= -1e-3 * image.max())
    assert made.truth["SNR"].isnan().all()
    assert made.truth["DELTA_CHI2"][1].isnan()
    assert torch.all(made.truth["SKY_SIGMA"] == 0.0)
    # 4 x 565 s of magnitude 20 with zero point 24, twice.
    counts = 2.0 * 10.0 ** (0.4 * 4.0) * 4.0 * 565.0
    assert made.truth["SRC_FLUX"].tolist() == pytest.approx([counts, counts])
    # All lenses alike, but for the place of the source.
    for name in ("THETA_E", "Q", "X", "GAMMA_1", "SRC_N"):
        assert made.truth[name][0] == made.truth[name][1]


def features(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Measure ring radius, flux and ellipticity on images: moments of the light above 3 sigma."""
    light = np.where(images[:, 0] > 3.0, images[:, 0], 0.0).astype(float)
    side = light.shape[-1]
    y, x = np.mgrid[:side, :side] - 0.5 * (side - 1)
    total = light.sum((1, 2))

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return (light * values).sum((1, 2)) / total

    middle_x, middle_y = mean(x), mean(y)
    xx, yy = mean(x * x) - middle_x**2, mean(y * y) - middle_y**2
    xy = mean(x * y) - middle_x * middle_y
    radius = mean(np.hypot(x, y))
    ellipticity = np.hypot(xx - yy, 2.0 * xy) / (xx + yy)
    measured = np.stack([radius, np.log(total), ellipticity], 1)
    return (measured - measured.mean(0)) / measured.std(0)


def logistic_accuracy(values: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Fit a logistic regression on squares and products too to one half, score the other."""
    first, second = np.triu_indices(values.shape[1])
    products = values[:, first] * values[:, second]
    inputs = np.concatenate([np.ones((len(values), 1)), values, products], 1)
    train, test = np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1
    one_hot = np.eye(3)[labels]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(-1, 3)
        logits = inputs[train] @ weights
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        n = train.sum()
        value = -np.log((p * one_hot[train]).sum(1)).mean() + 0.5e-3 * (flat**2).sum()
        slope = inputs[train].T @ (p - one_hot[train]) / n + 1e-3 * weights
        return float(value), slope.ravel()

    best = minimize(loss, np.zeros(inputs.shape[1] * 3), jac=True, method="L-BFGS-B").x
    guessed = (inputs[test] @ best.reshape(-1, 3)).argmax(1)
    return float((guessed == labels[test]).mean())


def accuracy_of(settings: LensSettings, n: int) -> float:
    made = Simulator(settings, 11)(torch.arange(n))
    return logistic_accuracy(features(made.images.numpy()), made.labels.numpy())


def test_radius_flux_and_ellipticity_do_not_tell_the_classes(settings: LensSettings) -> None:
    """Without selection; on 192 scored images the error of chance, 33.3 %, is 3.4 %."""
    free = dataclasses.replace(settings.substructure, min_delta_chi2=0.0, has_delta_chi2=False)
    settings = dataclasses.replace(settings, substructure=free)
    assert accuracy_of(settings, 384) == pytest.approx(1.0 / 3.0, abs=3.0 * 0.034)


@pytest.mark.slow
def test_fair_images_do_not_tell_the_classes_within_three_points() -> None:
    """On 3072 images, 1536 of them scored, the error of chance is 1.2 %."""
    assert accuracy_of(lens_preset("fair"), 3072) == pytest.approx(1.0 / 3.0, abs=0.03)


@pytest.mark.slow
def test_flawed_images_tell_the_classes() -> None:
    """The same measurement on a public set with its flaws: far above chance."""
    assert accuracy_of(lens_preset("model_2", legacy_flaws=True), 3000) > 0.5
