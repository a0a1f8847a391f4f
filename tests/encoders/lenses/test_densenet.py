from __future__ import annotations

import pytest
import torch
from torch import nn

from datagen.errors import ConfigError
from encoders.lenses.densenet import DenseBlock, DenseNet201


def n_weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_it_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        network = DenseNet201(3, 1000, 224, head="global", save_memory=False)
    assert n_weights(network) == 20_013_928


def test_the_known_head_flattens_30720_values_of_150_px() -> None:
    with torch.device("meta"):
        network = DenseNet201(1, 3, 150, head="known", save_memory=False).eval()
        assert network(torch.zeros(2, 1, 150, 150)).shape == (2, 3)
    layers = [m for m in network.classifier if isinstance(m, nn.Linear)]
    assert [m.in_features for m in layers] == [30720, 1024, 64]
    assert layers[-1].out_features == 3


def test_a_layer_sees_all_maps_before_it() -> None:
    block = DenseBlock(4, 3, save_memory=False)
    assert [layer.conv1.in_channels for layer in block.values()] == [4, 36, 68]
    x = torch.randn(2, 4, 5, 5)
    maps = block(x)
    assert maps.shape == (2, 100, 5, 5)
    torch.testing.assert_close(maps[:, :4], x)
    torch.testing.assert_close(block["denselayer2"]([x, maps[:, 4:36]]), maps[:, 36:68])


def test_saving_memory_changes_neither_gradients_nor_statistics() -> None:
    x = torch.randn(2, 4, 5, 5)
    found = []
    for save_memory in (False, True):
        torch.manual_seed(2)
        block = DenseBlock(4, 3, save_memory)
        block(x).square().mean().backward()
        found.append([p.grad for p in block.parameters()] + list(block.buffers()))
    for plain, saving in zip(*found, strict=True):
        torch.testing.assert_close(saving, plain, rtol=0, atol=0)


def test_saving_memory_keeps_fewer_maps() -> None:
    kept = []
    for save_memory in (False, True):
        block, sizes = DenseBlock(256, 3, save_memory), []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            if tensor.ndim == 4 and tensor.shape[-1] == 9:
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            block(torch.randn(2, 256, 9, 9))
        kept.append(sum(sizes))
    assert kept[1] < 0.6 * kept[0]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"expected data\.side >= 32 .* data\.side = 31"):
        DenseNet201(1, 3, 31, head="global", save_memory=False)
    with pytest.raises(ConfigError, match="global, known, but got head = dense"):
        DenseNet201(1, 3, 65, head="dense", save_memory=False)
    with pytest.raises(ConfigError, match=r"images of 150 px for head = known.*side = 65"):
        DenseNet201(1, 3, 65, head="known", save_memory=False)
