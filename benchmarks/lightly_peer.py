"""SimCLR as lightly has it, on the same stamps and backbone, to compare with.

lightly and torchvision are no dependencies of Skyfold, and stand apart from them:
`pip install --no-deps --target peer lightly lightly-utils aenum torchvision`. Only transforms of
PIL images, head and loss are used. Wheels of torchvision whose compiled part does not fit torch are
loaded without it.
"""

from __future__ import annotations

import functools
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from encoders.galaxies.backbones import Backbone
from encoders.optimizers import Groups, decay_groups
from encoders.schedules import WarmupCosine

# Beyond it pixels are white: the largest of so many training pixels [share].
WHITE = 0.9995
# Where black is [softening]: three standard deviations of the sky below zero.
BLACK = -1.5
# What lightly's default leaves no trace of: colours, and sizes; and turns as ours.
TUNED = {"cj_prob": 0.0, "random_gray_scale": 0.0, "min_scale": 0.7, "vf_prob": 0.5, "rr_prob": 1.0}
# Largest norm of a gradient, as in our trainings.
CLIP = 1.0
Bytes = NDArray[np.uint8]


@functools.lru_cache(maxsize=1)
def load(folder: Path) -> tuple[Any, Any, Any]:
    """Return lightly's transform, projection head and loss.

    Args:
        folder: Where lightly and torchvision are installed.

    Raises:
        ImportError: They are not there.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    while "torchvision" not in sys.modules:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            # It describes operators of its compiled part, which the wheel may lack.
            name = re.search(r"torchvision::(\w+)", str(error))
            if name is None:
                raise
            declared.define(f"{name[1]}(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
            for module in [m for m in sys.modules if m.startswith("torchvision")]:
                del sys.modules[module]
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    # The library of declarations lives as long as the modules that need it.
    SimCLRTransform.declared = declared
    return SimCLRTransform, SimCLRProjectionHead, NTXentLoss


class Scale:
    """Eight bits for stretched pixels: one range for all images, so that colours stay.

    Args:
        stretched: Training stamps (n, bands, H, W).
    """

    def __init__(self, stretched: Tensor) -> None:
        self.low = math.asinh(BLACK)
        self.high = float(
            stretched.flatten()[:: max(1, stretched.numel() // 10**6)].quantile(WHITE)
        )

    def bytes(self, stretched: Tensor) -> Bytes:
        """Return images (n, H, W, 3); one band fills all three planes."""
        share = ((stretched - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        planes = (255.0 * share).round().byte().movedim(1, -1)
        return planes.expand(*planes.shape[:3], 3).contiguous().numpy()


class Peer:
    """One training with lightly's transform, head and loss.

    Args:
        backbone: What is trained.
        transform: Options of lightly's transform.
        temperature: Of its loss.
        widths: Of its head: hidden layer and output.
        folder: Where lightly is installed.
    """

    def __init__(
        self,
        backbone: Backbone,
        transform: dict[str, Any],
        temperature: float,
        widths: list[int],
        folder: Path,
    ) -> None:
        kind, head, loss = load(folder)
        self.transform = kind(input_size=backbone.side, **transform)
        self.plain = self.transform.transforms[0].transform.transforms[-2:]
        self.backbone, self.n_bands = backbone, backbone.in_channels
        self.head = head(backbone.n_features, *widths)
        self.trained = nn.ModuleList((backbone, self.head))
        self.loss = loss(temperature=temperature)
        self.augmenting = 0.0

    def parameters(self) -> Groups:
        """Return what is trained, in groups as in our trainings."""
        return decay_groups(self.trained)

    def views(self, images: Bytes) -> tuple[Tensor, Tensor]:
        """Return two views of images, each (B, bands, H, W)."""
        begin = time.process_time()
        pairs = [self.transform(Image.fromarray(image)) for image in images]
        a, b = (torch.stack(views)[:, : self.n_bands] for views in zip(*pairs, strict=True))
        self.augmenting += time.process_time() - begin
        return a, b

    def step(self, images: Bytes, optimizer: torch.optim.Optimizer) -> float:
        """Train on a batch; return its loss."""
        a, b = self.views(images)
        optimizer.zero_grad()
        loss = self.loss(self.head(self.backbone(a)), self.head(self.backbone(b)))
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained.parameters(), CLIP)
        optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def embeddings(self, images: Bytes, n_batch: int = 256) -> Tensor:
        """Return embeddings of images as they are (n, n_features)."""
        self.backbone.eval()
        found = []
        for first in range(0, len(images), n_batch):
            tensors = []
            for image in images[first : first + n_batch]:
                tensor: Any = Image.fromarray(image)
                for step in self.plain:
                    tensor = step(tensor)
                tensors.append(tensor)
            found.append(self.backbone(torch.stack(tensors)[:, : self.n_bands]))
        return torch.cat(found)


def train(
    peer: Peer, images: Bytes, n_steps: int, n_batch: int, optimizer: Callable[..., Any], seed: int
) -> None:
    """Train for so many steps, with the schedule of our trainings."""
    torch.manual_seed(seed)
    trained = optimizer(peer.parameters())
    schedule = WarmupCosine(trained, n_steps, warmup=0.05, final=0.01)
    for places in batches(len(images), n_batch, n_steps, seed):
        peer.step(images[places], trained)
        schedule.step()


def batches(n: int, n_batch: int, n_steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield places of so many whole batches, epoch by epoch in a new order."""
    rng, order = np.random.default_rng(seed), np.empty(0, np.int64)
    for _ in range(n_steps):
        if len(order) < n_batch:
            order = rng.permutation(n)
        yield order[:n_batch]
        order = order[n_batch:]
