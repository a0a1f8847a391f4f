"""Images of strong lenses by number: the same bits for any batch, order or number of workers.

Image `index` is of class `index % 3`. Whole blocks of consecutive images are computed, see
`datagen/lenses/blocks.py`; what a caller asks for is cut out of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from datagen.lenses.blocks import in_blocks
from datagen.lenses.camera import Camera, Exposure, first_halos
from datagen.lenses.draws import Draws
from datagen.lenses.prior import Macro, draw_macro
from datagen.lenses.scene import Scenes, Subhalos
from datagen.lenses.settings import LensSettings
from datagen.lenses.substructure import (
    Lot,
    compensated_theta_e,
    draw_line_of_sight,
    draw_rods,
    draw_subhalos,
    heaviest_first,
)
from datagen.lenses.truth import lens_columns, substructure_rows
from datagen.lenses.version import CLASSES
from datagen.threads import one_thread

NO_SUB, CDM, VORTEX = range(len(CLASSES))


@dataclass(frozen=True)
class Simulated:
    """Images and what is known of them.

    Args:
        images: Counts, (B, bands, side, side) float32.
        labels: Classes, (B,) int64.
        delta_chi2: Evidence for substructure beyond what a smooth lens explains, (B,) float32; 0
            for the class no_sub, NaN where it was not asked for or images have no noise.
        truth: Columns of the table LENSES, (B,) each.
        substructure: Columns of the table SUBSTRUCTURE, one row per subhalo, rod or halo on the
            line of sight.
    """

    images: Tensor
    labels: Tensor
    delta_chi2: Tensor
    truth: dict[str, Tensor]
    substructure: dict[str, Tensor]


@dataclass(frozen=True)
class Simulator:
    """A preset ready to be drawn from.

    Args:
        settings: The preset.
        seed: The run's seed.
        device: Where images are computed.
        dtype: In which they are computed.
        with_delta_chi2: Compute Delta chi2 also where nothing is selected by it.
    """

    settings: LensSettings
    seed: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    with_delta_chi2: bool = True

    def __call__(self, index: Tensor) -> Simulated:
        """Simulate images.

        Args:
            index: Their numbers, (B,) int64, in any order; consecutive ones cost least.
        """
        settings = self.settings.resolved()
        camera = Camera.build(settings.imaging, self.device, self.dtype)
        blocks, order = in_blocks(index.cpu())
        with one_thread(), torch.no_grad():
            parts = [
                _rows(self._block(settings, camera, block), block, rows) for block, rows in blocks
            ]
        return _joined(parts, order)

    def _block(self, settings: LensSettings, camera: Camera, index: Tensor) -> Simulated:
        labels = index % len(CLASSES)
        macro = draw_macro(settings, self.seed, index, labels)
        lot = Lot(settings, self.seed, index, macro)
        smooth = dataclasses.replace(macro.scenes, subhalos=draw_line_of_sight(lot))
        exposure = camera.expose(smooth, macro)
        images, theta_main = exposure.smooth.clone(), macro.scenes.theta_e.clone()
        substructure = settings.substructure
        need = self.with_delta_chi2 and substructure.has_delta_chi2 and camera.has_noise
        need = need or substructure.min_delta_chi2 > 0.0
        delta_chi2 = torch.full((len(index),), 0.0 if need else torch.nan, dtype=torch.float64)
        delta_chi2[labels == NO_SUB] = 0.0
        found, n_draws = [], torch.ones(len(index), dtype=torch.int64)
        for label in (CDM, VORTEX):
            rows = torch.nonzero(labels == label)[:, 0]
            seen = exposure.rows(rows)
            search = _Search(_part(lot, rows), label, seen.with_basis() if need else seen)
            drawn, n_draws[rows] = search.run()
            images[rows] = drawn.images
            theta_main[rows], delta_chi2[rows] = drawn.theta_main, drawn.delta_chi2
            found.append((index[rows], drawn.scenes))
        there = index.to(self.device)
        noise, photons = (Draws(self.seed, there, name) for name in ("noise", "photons"))
        more = {"THETA_MAIN": theta_main, "DELTA_CHI2": delta_chi2, "N_DRAWS": n_draws}
        return Simulated(
            images=camera.observed(images, noise, photons),
            labels=labels,
            delta_chi2=delta_chi2.float(),
            truth={"INDEX": index, "CLASS": labels, **more, **lens_columns(macro, exposure)},
            substructure=substructure_rows(found, (index, smooth.subhalos)),
        )


@dataclass(frozen=True)
class _Drawn:
    """Scenes with substructure and the main lens that it leaves, one per image; their images."""

    scenes: list[Scenes]
    images: Tensor
    theta_main: Tensor
    delta_chi2: Tensor


@dataclass(frozen=True)
class _Search:
    """Draws substructure of one class until it can be seen.

    Args:
        lot: The images.
        label: Their class.
        exposure: Of the smooth scenes of these images; with a basis if Delta chi2 is needed.
    """

    lot: Lot
    label: int
    exposure: Exposure

    def run(self) -> tuple[_Drawn, Tensor]:
        """Return the chosen draw of each image, and how many there were, (B,)."""
        chosen, n_draws = self._choose()
        groups = [torch.nonzero(chosen == k)[:, 0] for k in sorted(set(chosen.tolist()))]
        parts = [self._whole(rows, int(chosen[rows[0]])) for rows in groups]
        order = torch.argsort(torch.cat(groups))
        scenes = [scene for part in parts for scene in part.scenes]
        images = torch.cat([part.images for part in parts])
        return _Drawn(
            [scenes[k] for k in order.tolist()],
            images[order.to(images.device)],
            torch.cat([part.theta_main for part in parts])[order],
            torch.cat([part.delta_chi2 for part in parts])[order],
        ), n_draws

    def _choose(self) -> tuple[Tensor, Tensor]:
        """Return the first draw of each image that can be seen, or its best, and their number."""
        settings = self.lot.settings.substructure
        rows = torch.arange(len(self.lot.index))
        chosen, n_draws = torch.zeros_like(rows), torch.ones_like(rows)
        if settings.min_delta_chi2 == 0.0:
            return chosen, n_draws
        judge = self._judge()
        best = torch.full(rows.shape, -torch.inf, dtype=torch.float64)
        for attempt in range(settings.max_draws):
            found = self._glance(judge, rows, attempt)
            better = rows[found > best[rows]]
            best[rows] = torch.maximum(best[rows], found)
            chosen[better], n_draws[rows] = attempt, attempt + 1
            rows = rows[best[rows] < settings.min_delta_chi2]
            if len(rows) == 0:
                break
        return chosen, n_draws

    def _judge(self) -> Exposure:
        """Return the exposure by which draws are compared: one ray per pixel, with a basis."""
        camera = self.exposure.camera
        if camera.imaging.supersampling == 1:
            return self.exposure
        return self.exposure.seen_by(camera.coarse()).with_basis()

    def _glance(self, judge: Exposure, rows: Tensor, attempt: int) -> Tensor:
        """Return Delta chi2 of a draw from its heaviest subhalos, (n,) float64."""
        lot, exposure = _part(self.lot, rows), judge.rows(rows)
        scenes = self._substructure(lot, attempt)
        if scenes.subhalos is not None:
            heaviest = first_halos(scenes.subhalos, lot.settings.substructure.n_judged)
            scenes = dataclasses.replace(scenes, subhalos=heaviest)
        images = self._images(self._compensated(scenes), exposure)
        return exposure.delta_chi2(images).cpu().double()

    def _whole(self, rows: Tensor, attempt: int) -> _Drawn:
        lot, exposure = _part(self.lot, rows), self.exposure.rows(rows)
        scenes = self._compensated(self._substructure(lot, attempt))
        images = self._images(scenes, exposure)
        chi2 = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        if exposure.basis is not None:
            chi2 = exposure.delta_chi2(images).cpu().double()
        each = [scenes[row : row + 1] for row in range(len(rows))]
        return _Drawn(each, images, scenes.theta_e, chi2)

    def _images(self, scenes: Scenes, exposure: Exposure) -> Tensor:
        return exposure.camera.expected(_with(scenes, exposure.scenes.subhalos), exposure)

    def _substructure(self, lot: Lot, attempt: int) -> Scenes:
        """Return the smooth lens with a draw of substructure, the heaviest subhalos first."""
        if self.label == CDM:
            return dataclasses.replace(lot.macro.scenes, subhalos=draw_subhalos(lot, attempt))
        return dataclasses.replace(lot.macro.scenes, rods=draw_rods(lot, attempt))

    def _compensated(self, scenes: Scenes) -> Scenes:
        """Return the scenes with the main lens that substructure leaves."""
        if not self.lot.settings.substructure.is_compensated:
            return scenes
        return dataclasses.replace(scenes, theta_e=compensated_theta_e(scenes))


def _with(scenes: Scenes, others: Subhalos | None) -> Scenes:
    """Add halos on the line of sight to those of the scenes."""
    if others is None:
        return scenes
    if scenes.subhalos is None:
        return dataclasses.replace(scenes, subhalos=others)
    names = ("x", "y", "theta_e", "r_s", "r_t")
    both = {
        name: torch.cat([getattr(scenes.subhalos, name), getattr(others, name)], -1)
        for name in names
    }
    halos = heaviest_first(Subhalos(**both, profile=others.profile))
    return dataclasses.replace(scenes, subhalos=halos)


def _part(lot: Lot, rows: Tensor) -> Lot:
    macro = Macro(**{name: value[rows] for name, value in vars(lot.macro).items()})
    return dataclasses.replace(lot, index=lot.index[rows], macro=macro)


def _rows(made: Simulated, block: Tensor, rows: Tensor) -> Simulated:
    """Cut the wanted rows out of a block."""
    is_wanted = torch.isin(made.substructure["INDEX"], block[rows])
    return Simulated(
        made.images[rows.to(made.images.device)],
        made.labels[rows],
        made.delta_chi2[rows],
        {name: column[rows] for name, column in made.truth.items()},
        {name: column[is_wanted] for name, column in made.substructure.items()},
    )


def _joined(parts: list[Simulated], order: Tensor) -> Simulated:
    """Put the blocks' rows in the order in which they were asked for."""
    images = torch.cat([part.images for part in parts])
    return Simulated(
        images[order.to(images.device)],
        torch.cat([part.labels for part in parts])[order],
        torch.cat([part.delta_chi2 for part in parts])[order],
        {name: torch.cat([p.truth[name] for p in parts])[order] for name in parts[0].truth},
        {name: torch.cat([p.substructure[name] for p in parts]) for name in parts[0].substructure},
    )


def simulate(
    index: Tensor, settings: LensSettings, device: str = "cpu", seed: int = 0
) -> Simulated:
    """Simulate images of a preset in single precision, without Delta chi2 unless it selects.

    For simulation while training; `Simulator` has more to choose.
    """
    return Simulator(settings, seed, device, with_delta_chi2=False)(index)
