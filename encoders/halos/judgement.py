"""What a trained encoder says of maps that it has not seen: by map, and by group of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datagen.errors import ConfigError
from encoders.halos.conformal import coverage_curve, pooled_quantile
from encoders.halos.novelty import Novelty, novelty_threshold
from encoders.halos.overlap import overlap_with_classes
from encoders.halos.samples import Sample
from encoders.halos.targets import LogScale
from encoders.metrics import area

Array = NDArray[np.float64]
VIEW = "latent"
QUANTILES = (0.16, 0.5, 0.84)


@dataclass(frozen=True)
class JudgeOptions:
    """How maps are judged; the values stand in `conf/model/base/halos.yaml`.

    Args:
        level: Share of the maps that intervals shall hold.
        n_neighbours: Which neighbour among the training maps tells how striking a map is.
        false_alarms: Share of usual maps that may be called novel.

    Raises:
        ConfigError: A number is out of range.
    """

    level: float
    n_neighbours: int
    false_alarms: float

    def __post_init__(self) -> None:
        shares = (self.level, self.false_alarms)
        if not all(0 < share < 1 for share in shares) or self.n_neighbours < 1:
            raise ConfigError(
                "expected callbacks.reports.judge to have level and false_alarms between 0 and 1 "
                f"and n_neighbours >= 1, but got {self}",
                str(self),
            )


@dataclass(frozen=True)
class Trio:
    """Answers of one encoder.

    Args:
        trained: To maps that trained it, some of them.
        validated: To maps that chose its best epoch.
        tested: To maps that did neither.
        scale: From cross-section to the first latent; None where that one has no such meaning.
    """

    trained: Sample
    validated: Sample
    tested: Sample
    scale: LogScale | None

    def intervals(self, levels: Sequence[float]) -> tuple[Array, Array]:
        """Return the ends of intervals of the tested maps on the first latent axis (levels, n).

        They are as wide on both sides as the errors on validation maps are at each level.
        """
        answers = self.validated.answers
        is_known = answers.targets.isfinite()
        errors = (answers.z[:, 0] - answers.targets)[is_known].abs().numpy()
        halo = self.validated.halo[is_known.numpy()]
        widths = np.array([pooled_quantile(errors, halo, level) for level in levels])[:, None]
        return self.tested.z[:, 0] - widths, self.tested.z[:, 0] + widths


@dataclass(frozen=True)
class Judged:
    """What was found of the tested maps.

    Args:
        cross_section: [cm^2/g], NaN where the encoder tells none (n,).
        low: Lower ends of the intervals [cm^2/g] (n,).
        high: Upper ends [cm^2/g] (n,).
        novelty: How unlike the training maps each is (n,).
        threshold: Above it a map is novel.
        overlaps: Of the groups of tested maps with those of training maps (G, G').
    """

    cross_section: Array
    low: Array
    high: Array
    novelty: Array
    threshold: float
    overlaps: Array

    @property
    def is_novel(self) -> NDArray[np.bool_]:
        """Whether the encoder should abstain (n,)."""
        return np.asarray(self.novelty > self.threshold)


def judge(trio: Trio, options: JudgeOptions) -> Judged:
    """Return what an encoder says of the tested maps."""
    places = np.full((3, len(trio.tested)), np.nan)
    if trio.scale is not None:
        low, high = trio.intervals([options.level])
        places = trio.scale.inverse(np.stack((trio.tested.z[:, 0], low[0], high[0])))
    measure = Novelty.fit(_view(trio.trained), trio.trained.answers.classes, options.n_neighbours)
    usual = measure.score(_view(trio.validated))
    halo = torch.from_numpy(trio.validated.halo)
    threshold = novelty_threshold(usual, halo, options.false_alarms)
    novelty = measure.score(_view(trio.tested)).numpy()
    overlaps = group_overlaps(trio.tested, trio.trained)
    return Judged(places[0], places[1], places[2], novelty, threshold, overlaps)


def group_overlaps(sample: Sample, trained: Sample) -> Array:
    """Return how much each group of a sample overlaps with each group of training maps (G, G')."""
    groups, known = sample.groups, trained.groups
    found = np.full((len(groups.names), len(known.names)), np.nan)
    for number in range(len(groups.names)):
        z = sample.z[groups.number == number]
        for other, value in overlap_with_classes(z, trained.z, known.number).items():
            found[number, other] = value
    return found


def group_rows(trio: Trio, judged: Judged) -> list[dict[str, Any]]:
    """Return the figures of each group of tested maps, NaN where there are none.

    `set`, `labels`, `cross_section` (true) [cm^2/g], `n_maps`, `n_halos`; quantiles `low`,
    `median`, `high` of the found cross-sections [cm^2/g]; `bias_dex` of the median, `rmse_dex` of
    the maps, share `covered` by their intervals; `accuracy`; largest `overlap` with a group of
    training maps and all `overlaps`; share that is `novel`, and `auroc` of the novelty of held-out
    groups among the other tested maps.
    """
    sample, rows = trio.tested, []
    groups, names = sample.groups, trio.trained.groups.names
    for number in range(len(groups.names)):
        mine, wanted = groups.number == number, sample.sets[int(groups.sets[number])]
        overlaps = dict(zip(names, judged.overlaps[number].tolist(), strict=True))
        rows.append(
            {
                "set": wanted.name,
                "labels": wanted.labels,
                "cross_section": float(groups.cross_sections[number]),
                "n_maps": int(mine.sum()),
                "n_halos": len(np.unique(sample.halo[mine])),
                **_cross_section_figures(trio.scale, judged, sample, mine),
                "accuracy": _accuracy(sample, mine),
                "overlap": max(overlaps.values(), key=lambda v: -np.inf if np.isnan(v) else v),
                "overlaps": overlaps,
                "novel": float(judged.is_novel[mine].mean()),
                "auroc": _auroc(judged.novelty, mine, ~sample.is_held_out),
            }
        )
    return rows


def coverage_by_set(trio: Trio, levels: Sequence[float]) -> dict[str, Array]:
    """Return share and error (levels, 2) of the tested maps of each set that intervals hold."""
    assert trio.scale is not None
    sample, found = trio.tested, {}
    truth = trio.scale.forward(sample.cross_section)
    low, high = trio.intervals(levels)
    for number, one in enumerate(sample.sets):
        mine = (sample.answers.sets.numpy() == number) & np.isfinite(truth)
        if mine.any():
            found[one.name] = coverage_curve(
                truth[mine], low[:, mine], high[:, mine], sample.halo[mine]
            )
    return found


def novelty_by_set(sample: Sample, novelty: Array) -> tuple[Array, dict[str, Array]]:
    """Return the novelty of maps of the sets that were learned, and of each held-out one."""
    sets = sample.answers.sets.numpy()
    numbers = np.unique(sets[sample.is_held_out]).tolist()
    return novelty[~sample.is_held_out], {sample.sets[k].name: novelty[sets == k] for k in numbers}


def _view(sample: Sample) -> Mapping[str, torch.Tensor]:
    return {VIEW: sample.answers.z}


def _cross_section_figures(
    scale: LogScale | None, judged: Judged, sample: Sample, mine: NDArray[np.bool_]
) -> dict[str, float]:
    names = ("low", "median", "high", "bias_dex", "rmse_dex", "covered")
    if scale is None:
        return dict.fromkeys(names, float("nan"))
    found = judged.cross_section[mine]
    quantiles = np.quantile(found, QUANTILES, method="inverted_cdf")
    true = np.maximum(sample.cross_section[mine], scale.zero)
    is_held = (judged.low[mine] <= true) & (true <= judged.high[mine])
    covered = float(is_held.mean()) if np.isfinite(true).all() else float("nan")
    away = np.log10(found / true)
    bias, rmse = np.log10(quantiles[1] / true[0]), np.sqrt((away**2).mean())
    return dict(zip(names, (*quantiles.tolist(), float(bias), float(rmse), covered), strict=True))


def _accuracy(sample: Sample, mine: NDArray[np.bool_]) -> float:
    answers = sample.answers
    is_labelled = answers.is_labelled.numpy() & mine
    if not is_labelled.any() or not answers.logits.shape[1]:
        return float("nan")
    is_right = (answers.logits.argmax(dim=1) == answers.classes).numpy()
    return float(is_right[is_labelled].mean())


def _auroc(novelty: Array, mine: NDArray[np.bool_], usual: NDArray[np.bool_]) -> float:
    if usual[mine].any():
        return float("nan")
    among = mine | usual
    return area(novelty[among], mine[among])
