"""Figures of a classifier from its answers: exact, and the same for any number of processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn.functional import softmax
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from encoders.metrics import area

Array = NDArray[np.float64]
GUESSING = "no better than guessing: the accuracy holds nothing yet, train longer or on more images"


@dataclass(frozen=True)
class Answers:
    """What a classifier answered, by rising index; each image once.

    Args:
        logits: Not calibrated (n, K), float64.
        labels: (n,), int64.
        index: (n,), int64.
        delta_chi2: NaN where unknown (n,), float64.
    """

    logits: Tensor
    labels: Tensor
    index: Tensor
    delta_chi2: Tensor

    @classmethod
    def from_rows(cls, rows: Tensor) -> Answers:
        """Split the rows that `Predictions` returns."""
        first = torch.from_numpy(np.unique(rows[:, 1].numpy(), return_index=True)[1])
        labels, index, delta_chi2 = rows[first, :3].unbind(dim=1)
        return cls(rows[first, 3:], labels.long(), index.long(), delta_chi2)

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """Return `softmax(logits / temperature)`, (n, K)."""
        return softmax(self.logits / temperature, dim=1)


class Predictions(Metric):
    """Collects answers of all processes; images with weight 0 do not count.

    Label, index, Delta chi2 and the logits of each image are kept: a test set is a few megabytes,
    and figures that need the order of the answers are exact. Double precision begins on the CPU:
    not all devices have it.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    numbers: list[Tensor]
    values: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.add_state("numbers", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, batch: dict[str, Tensor]) -> None:
        """Collect a batch.

        Args:
            logits: (B, K).
            batch: `labels`, `index`, `delta_chi2` and `weight` (B,).
        """
        counts = batch["weight"] > 0
        numbers = torch.stack((batch["labels"], batch["index"]), dim=1)
        values = torch.cat((batch["delta_chi2"][:, None].float(), logits.detach().float()), dim=1)
        self.numbers.append(numbers[counts])
        self.values.append(values[counts])

    def compute(self) -> Tensor:
        """Return rows of label, index, Delta chi2 and logits (n, 3 + K), float64, on the CPU."""
        if not len(self.numbers):
            return torch.zeros(0, 3).double()
        parts = (dim_zero_cat(self.numbers), dim_zero_cat(self.values))
        return torch.cat([part.cpu().double() for part in parts], dim=1)


class Running(Metric):
    """Mean loss and accuracy over the images since it was reset, in all processes.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    loss: Tensor
    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        # Not in double precision, which some devices lack; integers are exact.
        self.add_state("loss", default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("counts", default=torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, n_right: Tensor, n_images: int) -> None:
        """Count a batch.

        Args:
            loss: Mean over the batch, a scalar.
            n_right: Number of images whose class was found, a scalar.
            n_images: Images in the batch.
        """
        self.loss += loss.detach().float() * n_images
        self.counts[0] += n_right
        self.counts[1] += n_images

    def compute(self) -> dict[str, Tensor]:
        """Return `epoch_loss` and `accuracy`, float32."""
        n_right, n_images = self.counts
        return {"epoch_loss": self.loss / n_images, "accuracy": n_right / n_images}


def auroc_ovr(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean over classes of the area of one class against the rest."""
    p, true = probabilities.numpy(), labels.numpy()
    return _mean([area(p[:, k], true == k) for k in range(p.shape[1])])


def auroc_ovo(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean over ordered pairs of classes of the area of one against the other.

    M of Hand & Till (2001, doi:10.1023/A:1010920819831), equation 7.
    """
    p, true = probabilities.numpy(), labels.numpy()
    areas = []
    for k in range(p.shape[1]):
        for other in range(p.shape[1]):
            among = (true == k) | (true == other)
            if other != k:
                areas.append(area(p[among, k], true[among] == k))
    return _mean(areas)


def is_guessing(n_right: int, n_images: int, n_classes: int) -> bool:
    """Tell whether the 95 % Wilson interval of an accuracy does not exclude that of guessing.

    Args:
        n_right: Images whose class was found.
        n_images: All of them.
        n_classes: Of which a guess names one.
    """
    if not n_images:
        return False
    interval = stats.binomtest(n_right, n_images).proportion_ci(0.95, method="wilson")
    return bool(interval.low <= 1 / n_classes)


def _mean(areas: list[float]) -> float:
    """Return the mean of what is defined, NaN if nothing is."""
    defined = [value for value in areas if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


@dataclass(frozen=True)
class BinnedAccuracy:
    """Accuracy in bins of Delta chi2.

    Args:
        edges: Of the bins, rising (n_bins + 1,).
        n_images: In each bin (n_bins,).
        accuracy: In each bin, NaN in empty ones (n_bins,).
    """

    edges: Array
    n_images: NDArray[np.int64]
    accuracy: Array


def accuracy_by_delta_chi2(
    is_right: NDArray[np.bool_], delta_chi2: Array, edges: Array
) -> BinnedAccuracy:
    """Return the accuracy in bins of Delta chi2; images where it is unknown do not count.

    Args:
        is_right: Whether the class was found (n,).
        delta_chi2: (n,).
        edges: Rising (n_bins + 1,); a bin holds its lower edge.
    """
    n_images = np.histogram(delta_chi2[np.isfinite(delta_chi2)], edges)[0]
    n_right = np.histogram(delta_chi2[np.isfinite(delta_chi2) & is_right], edges)[0]
    share = np.where(n_images > 0, n_right / np.maximum(n_images, 1), np.nan)
    return BinnedAccuracy(np.asarray(edges, dtype=np.float64), n_images, share)
