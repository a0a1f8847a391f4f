"""Forward passes written out with plain functions, layer by layer as the papers list them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - as everyone calls it
from torch import Tensor, nn

from encoders.lenses.densenet import DenseNet201
from encoders.lenses.resnet import ResNet18, ResNet101

State = dict[str, Tensor]


def with_statistics(network: nn.Module) -> nn.Module:
    """Return a network for evaluation whose normalisation does something."""
    torch.manual_seed(11)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


def norm(x: Tensor, w: State, name: str) -> Tensor:
    mean, var = (w[f"{name}.running_{key}"][:, None, None] for key in ("mean", "var"))
    scale, shift = (w[f"{name}.{key}"][:, None, None] for key in ("weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def conv(x: Tensor, w: State, name: str, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding)


def test_resnet18() -> None:
    network = with_statistics(ResNet18(2, 3, 33))
    w, images = network.state_dict(), torch.randn(2, 2, 33, 33)
    x = F.max_pool2d(F.relu(norm(conv(images, w, "conv1", 2, 3), w, "bn1")), 3, 2, 1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(conv(x, w, f"{name}.conv1", stride, 1), w, f"{name}.bn1"))
            y = norm(conv(y, w, f"{name}.conv2", 1, 1), w, f"{name}.bn2")
            if stride == 2:
                x = norm(conv(x, w, f"{name}.downsample.0", 2), w, f"{name}.downsample.1")
            x = F.relu(x + y)
    expected = F.linear(x.mean((2, 3)), w["fc.weight"], w["fc.bias"])
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_resnet101() -> None:
    """Keras: the first block of a stage has a 1x1 shortcut, the last one the stride."""
    network = with_statistics(ResNet101(1, 3, 33))
    w, images = network.state_dict(), torch.randn(2, 1, 33, 33)
    x = F.max_pool2d(conv(images, w, "conv", 2, 3), 3, 2, 1)
    number = 0
    for n_blocks, last_stride in ((3, 2), (4, 2), (23, 2), (3, 1)):
        for block in range(n_blocks):
            name, stride = f"blocks.{number}", last_stride if block == n_blocks - 1 else 1
            before = F.relu(norm(x, w, f"{name}.norm1"))
            short = (
                conv(before, w, f"{name}.shortcut") if block == 0 else x[:, :, ::stride, ::stride]
            )
            y = F.relu(norm(conv(before, w, f"{name}.conv1"), w, f"{name}.norm2"))
            y = F.relu(norm(conv(y, w, f"{name}.conv2", stride, 1), w, f"{name}.norm3"))
            x = short + conv(y, w, f"{name}.conv3")
            number += 1
    x = F.relu(norm(x, w, "norm"))
    expected = F.linear(x.mean((2, 3)), w["fc.weight"], w["fc.bias"])
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_densenet201() -> None:
    network = with_statistics(DenseNet201(2, 3, 32, head="global", save_memory=False))
    w, images = network.state_dict(), torch.randn(2, 2, 32, 32)
    x = F.relu(norm(conv(images, w, "features.conv0", 2, 3), w, "features.norm0"))
    x = F.max_pool2d(x, 3, 2, 1)
    for number, n_layers in enumerate((6, 12, 48, 32), 1):
        for layer in range(1, n_layers + 1):
            name = f"features.denseblock{number}.denselayer{layer}"
            y = conv(F.relu(norm(x, w, f"{name}.norm1")), w, f"{name}.conv1")
            y = conv(F.relu(norm(y, w, f"{name}.norm2")), w, f"{name}.conv2", 1, 1)
            x = torch.cat((x, y), 1)
        if number < 4:
            name = f"features.transition{number}"
            x = F.avg_pool2d(conv(F.relu(norm(x, w, f"{name}.norm")), w, f"{name}.conv"), 2)
    x = F.relu(norm(x, w, "features.norm5"))
    expected = F.linear(x.mean((2, 3)), w["classifier.weight"], w["classifier.bias"])
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
