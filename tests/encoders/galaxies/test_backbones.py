"""What backbones promise: shapes, trained weights throughout, invariance, and errors by name."""

from __future__ import annotations

import copy
from pathlib import Path

import galsim
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everyone calls it
from omegaconf import OmegaConf
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.augment import turning
from encoders.factory import build_part
from encoders.galaxies.backbones import Backbone, ResNet
from encoders.galaxies.draws import Draw
from encoders.galaxies.equivariant import EquivariantWideResNet
from encoders.galaxies.geometry import Geometry, Pose, Resampling
from encoders.residual import ConvNorm, ResidualBlock
from tests.encoders.galaxies.skies import about_of, draw_of, drawn

CONF = Path(__file__).resolve().parents[3] / "conf/backbone"
TURNS = {
    "rotation": lambda x: x.rot90(1, (2, 3)),
    "flip": lambda x: x.flip(3),
    "transposition": lambda x: x.transpose(2, 3),
}
POSE = {"turns": False, "flips": False, "jitter": 0.0, "size": [1.0, 1.0], "order": 3, "hides": []}


def configured(name: str, side: int, **more: object) -> Backbone:
    torch.manual_seed(0)
    spec = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(spec, dict)
    return build_part(spec | more, Backbone, in_channels=3, side=side)  # type: ignore[type-abstract]


def stamps(n: int, side: int, bands: int = 3) -> Tensor:
    return torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(1))


def n_weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def steerable() -> Backbone:
    """The equivariant backbone of the config, which takes seconds to build, as after training."""
    made = configured("e2cnn_wide_resnet", 17)
    with torch.no_grad():
        for _ in range(2):
            made(2.0 * stamps(4, 17) + 1.0)
    return made.eval()


@pytest.mark.parametrize(
    ("name", "n_features"), [("small_resnet", 128), ("resnet18", 512), ("e2cnn_wide_resnet", 128)]
)
def test_every_weight_of_a_configured_backbone_is_trained(
    name: str, n_features: int, steerable: Backbone
) -> None:
    made = copy.deepcopy(steerable) if name.startswith("e2cnn") else configured(name, 17)
    embeddings = made.train()(stamps(4, 17))
    assert embeddings.shape == (4, n_features)
    assert made.n_features == n_features
    (embeddings * torch.randn_like(embeddings)).sum().backward()
    for key, weight in made.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.abs().max() > 0, key


def test_resnet18_has_the_published_number_of_weights() -> None:
    """11 689 512 less the layer of 1000 classes, and a stem of 3 px for that of 7 px."""
    with torch.device("meta"):
        assert n_weights(configured("resnet18", 64)) == 11_689_512 - 513_000 - 3 * 64 * (49 - 9)


def test_the_resnet_is_its_layers_written_out() -> None:
    torch.manual_seed(2)
    made = ResNet(2, 13, stem_stride=2, channels=[4, 6, 8], n_blocks=[1, 0]).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    w = made.state_dict()

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        kernel = w[f"layers.{conv}.weight"]
        x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        mean, var = w[f"layers.{norm}.running_mean"], w[f"layers.{norm}.running_var"]
        return F.batch_norm(x, mean, var, w[f"layers.{norm}.weight"], w[f"layers.{norm}.bias"])

    x = F.relu(layer(stamps(2, 13, 2), "0", "1", 2))
    for block, stride, changes in ((3, 1, True), (4, 1, False), (5, 2, True)):
        y = F.relu(layer(x, f"{block}.conv1", f"{block}.bn1", stride))
        y = layer(y, f"{block}.conv2", f"{block}.bn2")
        if changes:
            x = layer(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
        x = F.relu(x + y)
    assert x.shape == (2, 8, 4, 4)
    torch.testing.assert_close(made(stamps(2, 13, 2)), x.mean((2, 3)))


def test_the_wide_resnet_has_the_depth_and_width_of_its_name() -> None:
    made = EquivariantWideResNet(3, 9, group="C1", depth=16, width=2, n_features=5)
    *_, last = blocks = [m for m in made.modules() if isinstance(m, ResidualBlock)]
    shortcuts = [part for block in blocks for part in block.shortcut if isinstance(part, ConvNorm)]
    convolutions = [m for m in made.network.layers.modules() if isinstance(m, ConvNorm)]
    assert (len(blocks), len(shortcuts)) == (6, 3)
    # The linear layer is the 14th, and papers count the three shortcuts.
    assert len(convolutions) - len(shortcuts) == 13
    channels = [block.second.conv.out_channels for block in blocks]
    assert channels == [32, 32, 64, 64, 128, 128]
    assert made.network.layers(stamps(2, 9)).shape == (2, 128, 3, 3)
    assert last.shortcut(torch.zeros(1, 128, 3, 3)).shape == (1, 128, 3, 3)


@pytest.mark.parametrize("turn", TURNS)
def test_embeddings_do_not_change_under_the_group(steerable: Backbone, turn: str) -> None:
    with torch.no_grad():
        embeddings, turned = steerable(stamps(4, 17)), steerable(TURNS[turn](stamps(4, 17)))
    assert (turned - embeddings).abs().max() < 1e-5 * embeddings.abs().max()
    assert embeddings.std(dim=0).min() > 1e3 * (turned - embeddings).abs().max()


def test_an_ordinary_embedding_changes() -> None:
    made = configured("small_resnet", 17).eval()
    with torch.no_grad():
        change = made(TURNS["rotation"](stamps(4, 17))) - made(stamps(4, 17))
    assert change.abs().max() > 1e-2


class Turned(Geometry):
    """A geometry of one pose."""

    def __init__(self, angle: float, is_mirrored: bool) -> None:
        super().__init__(**POSE)  # type: ignore[arg-type]
        self.turning = turning(torch.tensor([angle]), torch.tensor([is_mirrored]))

    def drawn(self, draw: Draw) -> Pose:
        return Pose(self.turning, torch.zeros(1, 2), torch.ones(1))


def view_of(galaxy: galsim.GSObject, angle: float, is_mirrored: bool, side: int) -> Tensor:
    op = Resampling(48, side, Turned(angle, is_mirrored), None, None)
    return op(drawn(galaxy, 48), about_of(1), draw_of(1))[0]


def test_views_of_an_odd_side_have_one_embedding_in_all_turns(steerable: Backbone) -> None:
    """Stamps of an even side become views with the object on their central pixel."""
    galaxy = galsim.Exponential(half_light_radius=1.2).shear(g1=0.4, g2=0.1).shift(0.4, -0.2)
    poses = [(0.0, False), (torch.pi / 2, False), (0.0, True), (torch.pi, True)]
    wanted = drawn(galaxy, 17)
    views = torch.cat([view_of(galaxy, *pose, 17) for pose in poses]) / wanted.max()
    wanted = wanted / wanted.max()
    assert (views[0] - wanted).abs().max() < 5e-3
    assert (views[1] - wanted).abs().max() > 0.1
    with torch.no_grad():
        embeddings = steerable(5.0 * views.expand(-1, 3, -1, -1))
    assert (embeddings - embeddings[0]).abs().max() < 1e-4 * embeddings.abs().max()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_channels_last_gives_the_same(precision: torch.dtype, steerable: Backbone) -> None:
    tolerance = 1e-4 if precision == torch.float32 else 0.05
    for made in (configured("small_resnet", 17).eval(), steerable):
        x = stamps(2, 17).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = made(stamps(2, 17))
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                found = made(x)
        torch.testing.assert_close(
            found.float(), wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max())
        )


def test_the_resnet_keeps_channels_last() -> None:
    made = configured("small_resnet", 17)
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = stamps(2, 17).contiguous(memory_format=torch.channels_last)
    maps = made.get_submodule("layers")(x)
    assert maps.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("bands", "side"), [(2, 32), (3, 31)])
def test_stamps_of_other_bands_or_sides_are_refused(bands: int, side: int) -> None:
    message = (
        r"stamps of shape \(B, channels, side, side\) = \(B, 3, 32, 32\), for which the network "
        rf"was built, but got \(4, {bands}, {side}, {side}\)"
    )
    with pytest.raises(ConfigError, match=message):
        configured("small_resnet", 32)(stamps(4, side, bands))


@pytest.mark.parametrize(
    ("side", "good"), [(64, "61 or 65"), (63, "61 or 65"), (66, "65 or 69"), (3, "5")]
)
def test_sides_that_break_the_symmetry_are_refused(side: int, good: str) -> None:
    message = rf"multiple of 4 plus 1.* but got side = {side}; .* to {good} px$"
    with pytest.raises(ConfigError, match=message):
        configured("e2cnn_wide_resnet", side)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("small_resnet", {"stem_stride": 0}, "stem_stride >= 1 of a backbone"),
        ("small_resnet", {"channels": [16, 32]}, "each of the 4 stages of n_blocks"),
        ("resnet18", {"n_blocks": [1, 1, 1, -1]}, r"n_blocks = \[1, 1, 1, -1\]"),
        ("e2cnn_wide_resnet", {"depth": 15}, "multiple of 6 plus 4 .* depth = 15"),
        ("e2cnn_wide_resnet", {"depth": 4}, "depth = 4"),
        ("e2cnn_wide_resnet", {"width": 0}, "width >= 1"),
        ("e2cnn_wide_resnet", {"n_features": 0}, "n_features >= 1"),
        ("e2cnn_wide_resnet", {"group": "D"}, "group to be one of"),
    ],
)
def test_options_out_of_range_are_named(name: str, more: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(name, 17, **more)


@pytest.mark.parametrize(("in_channels", "side"), [(0, 17), (3, 0)])
def test_stamps_have_bands_and_pixels(in_channels: int, side: int) -> None:
    with pytest.raises(ConfigError, match=r"expected (in_channels|side) >= 1 .* = 0"):
        ResNet(in_channels, side, stem_stride=1, channels=[4], n_blocks=[])
