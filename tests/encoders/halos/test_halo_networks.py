"""Networks: sizes, symmetries, bottleneck, and what they refuse."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.augment import turn
from encoders.factory import build_part
from encoders.halos.bottleneck import draw_kept, keep_first
from encoders.halos.convnext import ConvNeXtEncoder
from encoders.halos.network import Outputs
from encoders.halos.polar import amplitudes

Composed = Callable[..., DictConfig]


@functools.cache
def chosen(composed: Composed, model: str) -> DictConfig:
    return composed("train", f"model={model}")


def build(composed: Composed, model: str, side: int = 100, *overrides: str) -> Any:  # noqa: ANN401
    cfg = copy.deepcopy(chosen(composed, model))
    for override in overrides:
        cfg.merge_with_dotlist([override])
    spec = OmegaConf.to_container(cfg.model.network)
    sizes = {"in_channels": 1, "n_classes": 4, "side": side}
    torch.manual_seed(0)
    return build_part(spec, nn.Module, **sizes).eval()  # type: ignore[arg-type]


def n_weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("model", "published", "digits"), [("compact_full", 3.44, 2), ("compact_reduced", 0.232, 3)]
)
def test_numbers_of_weights(composed: Composed, model: str, published: float, digits: int) -> None:
    assert round(n_weights(build(composed, model)) / 1e6, digits) == published


def test_features_of_the_public_networks(composed: Composed) -> None:
    assert build(composed, "compact_full").encoder.n_features == 9216
    assert build(composed, "compact_reduced").encoder.n_features == 512


def test_convnext_tiny_is_the_published_one() -> None:
    encoder = ConvNeXtEncoder(3, 64, [96, 192, 384, 768], [3, 3, 9, 3], drop_path=0.1)
    # With the head of 1000 classes of torchvision, whose count this is.
    assert n_weights(encoder) + 768 * 1000 + 1000 == 28_589_128
    features = encoder.eval()(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 768)
    # Layer normalisation without scale yet.
    assert features.mean(dim=1).abs().max() < 1e-5


def test_dropped_paths_keep_the_mean() -> None:
    torch.manual_seed(0)
    encoder = ConvNeXtEncoder(1, 8, [8, 8], [1, 2], drop_path=0.5)
    assert [part.drop for part in encoder.modules() if hasattr(part, "drop")] == [0.0, 0.25, 0.5]
    block = encoder.layers[-1]
    nn.init.ones_(block.scale)
    maps = torch.randn(1, 8, 4, 4)
    whole = block.eval()(maps) - maps
    drawn = block.train()(maps.expand(4000, -1, -1, -1)) - maps
    torch.testing.assert_close(drawn.mean(dim=0), whole[0], rtol=0.1, atol=0.02)
    assert len(torch.unique(drawn.round(decimals=4), dim=0)) == 2


SMALL = "model.network.encoder."


@pytest.mark.parametrize(
    ("model", "side", "tolerance"),
    [("compact_polar", 31, 1e-5), ("compact_polar", 30, 1e-5),
     ("compact_e2cnn", 31, 1e-4), ("compact_e2cnn", 30, 1e-4)],
)  # fmt: skip
def test_quarter_turns_leave_the_latents(
    composed: Composed, model: str, side: int, tolerance: float
) -> None:
    network = build(composed, model, side)
    maps = torch.randn(3, 1, side, side)
    z = network(maps).z.detach()
    assert z.std() > 0.01
    turned = network(torch.rot90(maps, 1, (-2, -1))).z
    torch.testing.assert_close(turned, z, rtol=0, atol=tolerance * z.abs().max().item() + 1e-6)
    flipped = network(maps.flip(-1)).z
    torch.testing.assert_close(flipped, z, rtol=0, atol=tolerance * z.abs().max().item() + 1e-6)


def test_turns_by_any_angle_hardly_move_polar_latents(composed: Composed) -> None:
    network = build(composed, "compact_polar", 40)
    x = torch.linspace(-1.0, 1.0, 40)
    # A smooth map that is not round.
    maps = torch.exp(-2.0 * x**2 - 6.0 * (x[:, None] - 0.1) ** 2)[None, None].expand(6, 1, 40, 40)
    angles = torch.tensor([0.0, 0.3, 1.0, 2.0, 2.5, 4.0])
    z = network(turn(maps, angles, torch.zeros(6, dtype=torch.bool))).z
    other = network(maps[:1] * 0.5).z
    assert (z - z[0]).norm(dim=1).max() < 0.2 * (other - z[0]).norm()


def test_amplitudes_of_waves() -> None:
    azimuth = torch.arange(12) * (2 * math.pi / 12)
    circle = -2.0 + 0.6 * torch.cos(2 * azimuth + 0.7) + 0.2 * torch.cos(3 * azimuth)
    # A wave has half of its amplitude at m, the other half at -m.
    expected = torch.tensor([-2.0, 0.0, 0.3, 0.1, 0.0])
    torch.testing.assert_close(amplitudes(circle, 4), expected, rtol=0, atol=1e-6)
    assert amplitudes(torch.zeros(2, 3, 8), 0).shape == (2, 3, 1)


def test_the_head_sees_the_first_latents_only(composed: Composed) -> None:
    network = build(composed, "compact_reduced", 78)
    maps = torch.randn(3, 1, 78, 78)
    n_kept = torch.tensor([1, 3, 7])
    all_latents = network(maps)
    some = network(maps, n_kept)
    assert torch.equal(some.z, all_latents.z)
    torch.testing.assert_close(some.logits[2], all_latents.logits[2])
    assert not torch.allclose(some.logits[0], all_latents.logits[0])
    z = torch.randn(3, 7, requires_grad=True)
    network.head(keep_first(z, n_kept)).sum().backward()
    assert z.grad is not None
    is_seen = torch.arange(7) < n_kept[:, None]
    assert not z.grad[~is_seen].any()
    assert z.grad[is_seen].all()


def test_draws_of_the_bottleneck() -> None:
    index = torch.arange(14_000)
    drawn = draw_kept(1, 3, index, 7)
    counts = torch.bincount(drawn, minlength=8)
    assert counts[0] == 0
    assert len(counts) == 8
    assert (counts[1:] - 2000).abs().max() < 5 * 45  # five standard deviations
    assert torch.equal(draw_kept(1, 3, index[5:9], 7), drawn[5:9])
    assert not torch.equal(draw_kept(1, 4, index, 7), drawn)


def test_an_autoencoder_draws_in_training_only(composed: Composed) -> None:
    network = build(composed, "halo_autoencoder", 78)
    maps = torch.randn(2, 1, 78, 78)
    outputs: Outputs = network(maps)
    assert outputs.maps is not None
    assert outputs.maps.shape == maps.shape
    assert torch.equal(outputs.maps, network(maps).maps)
    assert torch.equal(outputs.maps, network.decoder(outputs.z))
    torch.manual_seed(1)
    network.train()
    drawn = [network.decoder(network(maps).z) for _ in range(2)]
    assert not torch.equal(network(maps).maps, network(maps).maps)
    assert drawn[0].shape == maps.shape
    # Nothing is drawn for an axis that the bottleneck closes.
    network.to_latent.eval()
    closed = [network(maps, torch.zeros(2, dtype=torch.long)).maps for _ in range(2)]
    assert torch.equal(*closed)


@pytest.mark.parametrize("side", [16, 50, 100, 101])
def test_decoders_return_the_side(composed: Composed, side: int) -> None:
    more = [f"{SMALL}channels=[4,8]", "model.network.decoder=[8,4,4]"]
    network = build(composed, "halo_autoencoder", side, *more)
    assert network(torch.zeros(1, 1, side, side)).maps.shape == (1, 1, side, side)


@pytest.mark.parametrize("model", ["compact_reduced", "halo_regressor", "halo_autoencoder"])
@pytest.mark.parametrize("shape", [(2, 1, 100, 99), (2, 2, 100, 100), (1, 100, 100)])
def test_maps_of_another_shape_are_refused(
    composed: Composed, model: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"= \(B, 1, 100, 100\), for which .* but got \("):
        build(composed, model)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("model", "side", "override", "message"),
    [
        ("compact_reduced", 77, "", r"side = 77; use model\.network\.encoder\.padding=1"),
        ("compact_reduced", 100, "model.network.n_latent=0", r"n_latent >= 1, but got"),
        ("compact_reduced", 100, "model.network.dropout=1", r"0 <= dropout < 1, but got"),
        ("compact_full", 8, "", r"side >= 16 px for 5 stages"),
        ("compact_full", 100, f"{SMALL}stages=[[24]]", r"multiples of 16, but got 24"),
        ("compact_polar", 100, f"{SMALL}n_azimuths=30", r"multiple of 4, but got n_radii = 24"),
        ("compact_polar", 100, f"{SMALL}n_waves=16", r"0 <= n_waves < 16, .* n_waves = 16"),
        ("compact_polar", 100, f"{SMALL}inner=60", r"0 < inner < 49\.5 px .* inner = 60"),
        ("compact_e2cnn", 100, f"{SMALL}group=Q", r"group to be one of"),
        ("compact_e2cnn", 100, f"{SMALL}n_features=0", r"n_features >= 1"),
        ("compact_e2cnn", 8, "", r"side to be a multiple of 8 plus 1"),
        ("compact_convnext", 31, "", r"side >= 32 px for 4 stages"),
        ("compact_convnext", 100, f"{SMALL}depths=[3]", r"for as many stages"),
        ("compact_convnext", 100, f"{SMALL}drop_path=1", r"0 <= drop_path < 1"),
        ("halo_regressor", 100, "model.network.output=both", r"target or classes, but got"),
        ("halo_autoencoder", 100, "model.network.decoder=[]", r"1 to 6 layers .* 100 px"),
        ("compact_full", 100, "model.network.encoder._target_=os.system", r"to name a Encoder"),
    ],
)
def test_wrong_networks_are_refused(
    composed: Composed, model: str, side: int, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(composed, model, side, *([override] if override else []))
    assert "\n" not in str(caught.value)


def test_small_maps_with_padding(composed: Composed) -> None:
    network = build(composed, "compact_reduced", 50, f"{SMALL}padding=1")
    outputs: Tensor = network(torch.zeros(1, 1, 50, 50)).logits
    assert outputs.shape == (1, 4)
    assert network.encoder.n_features == 128 * 3 * 3
