from __future__ import annotations

import pytest
import torch
from torch import nn

from datagen.errors import ConfigError
from encoders.lenses.resnet import BOTTLENECKS, Bottleneck, ResNet18, ResNet101
from encoders.residual import BasicBlock


def n_weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def n_statistics(network: nn.Module) -> int:
    return sum(b.numel() for name, b in network.named_buffers() if "running" in name)


def test_resnet18_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        network = ResNet18(3, 1000, 224)
    assert n_weights(network) == 11_689_512


def test_resnet101_has_the_published_number_of_weights() -> None:
    """Keras counts 44 675 560 for ResNet101V2, of which 97 664 are running statistics."""
    with torch.device("meta"):
        network = ResNet101(3, 1000, 224)
    assert n_weights(network) == 44_577_896
    assert n_weights(network) + n_statistics(network) == 44_675_560


@pytest.mark.parametrize("kind", [ResNet18, ResNet101])
def test_any_bands_and_side(kind: type[ResNet18 | ResNet101]) -> None:
    with torch.device("meta"):
        logits = kind(2, 3, 50).eval()(torch.zeros(2, 2, 50, 50))
    assert logits.shape == (2, 3)


def test_a_block_is_its_formula() -> None:
    """Without its convolutions a basic block is relu(x + bias), whatever the normalisation does."""
    block = BasicBlock(2, 2, 1).eval()
    nn.init.zeros_(block.bn2.weight)
    nn.init.constant_(block.bn2.bias, -0.5)
    x = torch.linspace(-1, 1, 18).view(1, 2, 3, 3)
    torch.testing.assert_close(block(x), (x - 0.5).clamp(min=0))


def test_a_bottleneck_leaves_what_passes_it_as_it_is() -> None:
    """Pre-activation: the sum is not rectified, and a stride takes every other pixel of it."""
    block = Bottleneck(8, 2, stride=2).eval()
    nn.init.zeros_(block.conv3.weight)
    nn.init.constant_(block.conv3.bias, 0.25)
    x = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(block(x), x[..., ::2, ::2] + 0.25)


def test_the_strides_of_resnet101_stand_in_the_last_blocks() -> None:
    with torch.device("meta"):
        blocks = ResNet101(1, 3, 65).blocks
    strides = [block.conv2.stride[0] for block in blocks]
    assert len(strides) == sum(BOTTLENECKS)
    assert [i for i, stride in enumerate(strides) if stride == 2] == [2, 6, 29]


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(1)
    network = ResNet18(1, 3, 17)
    images, labels = torch.randn(6, 1, 17, 17), torch.tensor([0, 1, 2] * 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kind", [ResNet18, ResNet101])
def test_wrong_sizes_are_named(kind: type[ResNet18 | ResNet101]) -> None:
    with pytest.raises(ConfigError, match=r"expected in_channels >= 1 .* in_channels = 0"):
        kind(0, 3, 65)
    with pytest.raises(ConfigError, match="n_classes = 1"):
        kind(1, 1, 65)
    with pytest.raises(ConfigError, match="side = 0"):
        kind(1, 3, 0)
    with torch.device("meta"), pytest.raises(ConfigError, match=r"\(B, 1, 65, 65\).*\(2, 1, 64,"):
        kind(1, 3, 65)(torch.zeros(2, 1, 64, 64))
