"""How fast are the lens networks: the equivariant one, its export, its twin, and plain e2cnn.

Usage: python benchmarks/lens_networks.py [--side 65] [--group D4] [--batch 32]

All have the layers of `conf/model/e2cnn.yaml` and see the same images on one thread, in turns; the
fastest of the repetitions counts, in CPU time. `e2cnn` is the same network with e2cnn's own modules
on its typed tensors, whose filters `eval()` expands once.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from encoders.e2cnn_compat import enn
from encoders.equivariant import SteerableConv, lattice_options, quarter_turns
from encoders.factory import build_part
from encoders.lenses.export import plain
from encoders.residual import ConvNorm, ResidualNetwork
from encoders.symmetry import FieldNorm, GroupFields, fields_of

MODELS = Path(__file__).resolve().parents[1] / "conf/model"
N_CLASSES = 3
N_REPEATS = 5


class E2cnnNetwork(nn.Module):
    """The same network with the modules of e2cnn alone, which pass typed tensors.

    Args:
        network: Of a finite group; its filters become those that e2cnn's modules begin with.
        fields: Those of its group.
    """

    def __init__(self, network: ResidualNetwork, fields: GroupFields) -> None:
        super().__init__()
        made: Any = copy.deepcopy(network).train()
        pairs = [
            [m for m in n.layers.modules() if isinstance(m, ConvNorm)] for n in (network, made)
        ]
        for ours, pair in zip(*pairs, strict=True):
            kind = fields.kind(pair.conv.out_channels // fields.size)
            pair.conv, pair.norm = _conv(ours.conv, kind, fields), _norm(ours.norm, kind)
        first, blocks = made.layers[0], made.layers[2:]
        self.in_type = first.conv.in_type
        made.layers[1] = enn.ReLU(first.conv.out_type, inplace=True)
        for block in blocks:
            kind = block.first.conv.out_type
            block.inner, block.outer = enn.ReLU(kind, inplace=True), enn.ReLU(kind, inplace=True)
            if len(block.shortcut) > 1:
                block.shortcut[0] = enn.PointwiseAvgPool(block.first.conv.in_type, 3, 2, 1)
        self.layers, self.pool = made.layers, enn.GroupPooling(blocks[-1].outer.out_type)
        invariants: Any = network.invariants
        self.mix = _mix(invariants.kinds[1][0].conv, fields)
        self.head = made.head

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) for images (B, C, side, side)."""
        found = self.layers(enn.GeometricTensor(images, self.in_type))
        maps = torch.cat((self.pool(found).tensor, self.mix(found).tensor), dim=1)
        logits: Tensor = self.head(torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), dim=1))
        return logits


def _conv(conv: SteerableConv, kind: Any, fields: GroupFields) -> Any:  # noqa: ANN401 - e2cnn ships no types
    n, is_first = conv.in_channels, conv.in_channels % fields.size > 0
    one = [fields.space.trivial_repr] if is_first else [fields.space.regular_repr]
    in_type = enn.FieldType(fields.space, one * (n if is_first else n // fields.size))
    return _begun(conv, in_type, kind)


def _mix(conv: SteerableConv, fields: GroupFields) -> Any:  # noqa: ANN401 - e2cnn ships no types
    """Return the convolution to scalars with its normalisation, which begins as all do."""
    kind = enn.FieldType(fields.space, [fields.space.trivial_repr] * conv.out_channels)
    made = _begun(conv, fields.kind(conv.in_channels // fields.size), kind)
    return enn.SequentialModule(made, enn.InnerBatchNorm(kind), enn.ReLU(kind, inplace=True))


def _begun(conv: SteerableConv, in_type: Any, out_type: Any) -> Any:  # noqa: ANN401 - e2cnn ships no types
    """Return e2cnn's convolution as it begins, and give its filters to ours."""
    on_lattice = quarter_turns(in_type.gspace)
    options = lattice_options(conv.kernel_size) if on_lattice else {}
    options |= {"stride": conv.stride, "padding": conv.padding}
    made = enn.R2Conv(in_type, out_type, conv.kernel_size, bias=False, initialize=False, **options)
    enn.init.generalized_he_init(made.weights.data, made.basisexpansion, cache=True)
    filters, _ = made.expand_parameters()
    conv.set_filters(filters.detach())
    return made


def _norm(norm: FieldNorm, kind: Any) -> Any:  # noqa: ANN401 - e2cnn ships no types
    made = enn.InnerBatchNorm(kind)
    getattr(made, f"batch_norm_[{norm.size}]").load_state_dict(norm.norm.state_dict())
    return made


def build(name: str, side: int, **options: Any) -> nn.Module:  # noqa: ANN401 - as in YAML
    """Build the network of a model's YAML for one channel."""
    spec = OmegaConf.to_container(OmegaConf.load(MODELS / f"{name}.yaml").model.network)
    assert isinstance(spec, dict)
    more = {"in_channels": 1, "n_classes": N_CLASSES, "side": side, **options}
    return build_part({str(k): v for k, v in spec.items()}, nn.Module, **more)


def seconds(steps: Mapping[str, Callable[[], object]], n_repeats: int) -> dict[str, float]:
    """Return the least CPU-seconds of each step, taken in turns after a first, uncounted one."""
    least = dict.fromkeys(steps, float("inf"))
    for repeat in range(n_repeats + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if repeat:
                least[name] = min(least[name], time.process_time() - start)
    return least


def _train(network: nn.Module, images: Tensor) -> None:
    network.train()(images).square().sum().backward()


def measure(side: int, group: str, n_images: int, n_repeats: int) -> list[tuple[str, ...]]:
    """Return rows of name, weights, ms per image in training, images per second at evaluation."""
    torch.manual_seed(0)
    equivariant = build("e2cnn", side, group=group)
    assert isinstance(equivariant, ResidualNetwork)
    networks = {
        "equivariant": equivariant,
        "e2cnn": E2cnnNetwork(equivariant, fields_of(group)),
        "plain CNN": build("plain_cnn", side),
    }
    images = torch.randn(n_images, 1, side, side)
    trained = seconds({name: partial(_train, m, images) for name, m in networks.items()}, n_repeats)
    exported = {f"{name}, exported": plain(networks[name]) for name in ("equivariant", "plain CNN")}
    with torch.no_grad():
        ready = {name: made.eval() for name, made in [*networks.items(), *exported.items()]}
        evaluated = seconds({name: partial(m, images) for name, m in ready.items()}, n_repeats)
    rows: list[tuple[str, ...]] = []
    for name, made in ready.items():
        n_weights = sum(p.numel() for p in made.parameters())
        ms = f"{1e3 * trained[name] / n_images:.1f}" if name in trained else "-"
        rows.append((name, f"{n_weights}", ms, f"{n_images / evaluated[name]:.0f}"))
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=65, help="side of the images [px]")
    parser.add_argument("--group", default="D4", help="finite group, such as C8")
    parser.add_argument("--batch", type=int, default=32, help="images per batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options.side, options.group, options.batch, N_REPEATS)
    heads = ("network", "weights", "training [ms/image]", "evaluation [images/CPU-s]")
    for row in [heads, *rows]:
        print(f"{row[0]:24}{row[1]:>10}{row[2]:>22}{row[3]:>28}")


if __name__ == "__main__":
    main()
