"""What lens networks promise: shapes, invariance, sides, groups, and a twin that costs the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.e2cnn_compat import enn
from encoders.equivariant import SteerableConv
from encoders.factory import build_part
from encoders.lenses.e2cnn_network import EquivariantNetwork
from encoders.lenses.plain_network import PlainNetwork
from encoders.lenses.reference_network import SIGMA, Blur, ReferenceNetwork
from encoders.symmetry import FieldNorm, GroupPool, VectorNorm, fields_of

MODELS = Path(__file__).resolve().parents[3] / "conf/model"
TURNS = {
    "rotation": lambda x: x.rot90(1, (2, 3)),
    "half turn": lambda x: x.rot90(2, (2, 3)),
    "flip": lambda x: x.flip(3),
    "transposition": lambda x: x.transpose(2, 3),
}


def network(group: str = "D4") -> EquivariantNetwork:
    torch.manual_seed(1)
    return EquivariantNetwork(1, 3, 33, group, channels=[8, 16, 16], n_blocks=[0, 1])


def images(n: int = 4, side: int = 33) -> Tensor:
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(2))


def train(made: nn.Module, n_steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    labels = torch.arange(6) % 3
    for _ in range(n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(images(6)), labels).backward()
        optimizer.step()


@torch.no_grad()
def change(made: nn.Module, turn: str) -> float:
    """Largest change of a logit under a turn of the images, relative to their spread."""
    made.eval()
    logits = made(images())
    return float((made(TURNS[turn](images())) - logits).abs().max() / logits.std())


@pytest.mark.parametrize(
    ("group", "is_trained"),
    [
        ("C4", True),
        ("C8", False),
        ("D4", False),
        ("D4", True),
        ("D8", True),
        ("SO2", True),
        ("O2", True),
    ],
)
def test_logits_do_not_change_under_the_group(group: str, is_trained: bool) -> None:
    made = network(group)
    if is_trained:
        train(made)
    assert change(made, "rotation") < 1e-5
    assert change(made, "half turn") < 1e-5
    for turn in ("flip", "transposition"):
        has_flips = group in ("D4", "D8", "O2")
        assert (change(made, turn) < 1e-5) is has_flips


def test_the_network_of_the_config_is_invariant_at_the_default_side() -> None:
    """Relative to the logits: noise alone makes those of an untrained network nearly equal."""
    torch.manual_seed(1)
    spec = OmegaConf.to_container(OmegaConf.load(MODELS / "e2cnn.yaml").model.network)
    made = build_part(spec, nn.Module, in_channels=1, n_classes=3, side=65).eval()
    with torch.no_grad():
        logits = made(images(2, 65))
        for name, turn in TURNS.items():
            turned = made(turn(images(2, 65)))
            assert float((turned - logits).abs().max() / logits.abs().max()) < 1e-5, name


def test_the_twin_changes() -> None:
    torch.manual_seed(0)
    assert change(PlainNetwork(1, 3, 33, channels=[8, 16], n_blocks=[1]), "rotation") > 1e-2


def test_an_even_side_would_break_the_symmetry() -> None:
    # The reason why such sides are refused.
    made = network().eval()
    even = images(side=32)
    with torch.no_grad():
        error = (made(even.rot90(1, (2, 3))) - made(even)).abs().max() / made(even).std()
    assert error > 1e-2


@pytest.mark.parametrize(
    ("side", "good"), [(64, "57 or 65"), (100, "97 or 105"), (66, "65 or 73"), (7, "9")]
)
def test_other_sides_are_refused_with_the_nearest_good_ones(side: int, good: str) -> None:
    message = rf"multiple of 8 plus 1, .* but got data.side = {side}; .* to {good} px$"
    with pytest.raises(ConfigError, match=message):
        PlainNetwork(1, 3, side, [8, 8, 8, 8], [0, 0, 0])
    with pytest.raises(ConfigError, match=message):
        EquivariantNetwork(1, 3, side, "C4", [8, 8, 8, 8], [0, 0, 0])


@pytest.mark.parametrize("group", ["c8", "C0", "D", "SO3", "O(2)", "C100", ""])
def test_unknown_groups_are_refused(group: str) -> None:
    with pytest.raises(ConfigError, match=r"group to be one of C1, C2, .*SO2; O2 .* but got '"):
        fields_of(group)


@pytest.mark.parametrize(
    ("in_channels", "channels", "n_blocks", "message"),
    [
        (0, [8, 8], [0], "in_channels = 0"),
        (1, [8, 0], [0], r"channels = \[8, 0\]"),
        (1, [8, 8], [-1], r"n_blocks = \[-1\]"),
        (1, [8], [0], "the stem and then each of the 1 stages"),
        (1, [], [], r"channels = \[\]"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(
    in_channels: int, channels: list[int], n_blocks: list[int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PlainNetwork(in_channels, 3, 33, channels, n_blocks)
    with pytest.raises(ConfigError, match=message):
        EquivariantNetwork(in_channels, 3, 33, "C4", channels, n_blocks)


@pytest.mark.parametrize("name", ["e2cnn", "plain_cnn"])
def test_configs_build_networks_of_any_number_of_channels(name: str) -> None:
    spec = OmegaConf.to_container(OmegaConf.load(MODELS / f"{name}.yaml").model.network)
    made = build_part(spec, nn.Module, in_channels=2, n_classes=4, side=65)
    assert made(torch.randn(2, 2, 65, 65)).shape == (2, 4)


def test_the_twin_has_the_same_maps_and_many_more_weights() -> None:
    specs = [
        OmegaConf.load(MODELS / f"{name}.yaml").model.network for name in ("e2cnn", "plain_cnn")
    ]
    for key in ("channels", "n_blocks"):
        assert specs[0][key] == specs[1][key]
    one, twin = (
        build_part(OmegaConf.to_container(s), nn.Module, in_channels=1, n_classes=3, side=65)
        for s in specs
    )
    shapes = [made.layers(torch.zeros(2, 1, 65, 65)).shape for made in (one, twin)]
    assert shapes[0] == shapes[1]
    sizes = [sum(p.numel() for p in made.parameters()) for made in (one, twin)]
    # Eight times fewer in the convolutions; each group of eight channels has its own invariants.
    assert 7 < sizes[1] / sizes[0] < 8


def test_the_reference_is_the_known_architecture() -> None:
    # Of one element alone the group makes a small network.
    made = ReferenceNetwork(2, 3, 37, "C1")
    widths = [m.out_channels for m in made.modules() if isinstance(m, SteerableConv)]
    assert widths == [24, 48, 48, 96, 96, 64]
    assert made(torch.randn(2, 2, 37, 37)).shape == (2, 3)
    with pytest.raises(ConfigError, match="finite group such as C8, but got O2"):
        ReferenceNetwork(1, 3, 65, "O2")
    with pytest.raises(ConfigError, match=r"side = 25; .* to 29 px"):
        ReferenceNetwork(1, 3, 25, "C4")


@pytest.mark.slow
def test_the_head_of_the_reference_sees_orientation() -> None:
    torch.manual_seed(0)
    made = ReferenceNetwork(1, 3, 33, "C4").eval()
    with torch.no_grad():
        turned = made.layers(images().rot90(1, (2, 3)))
        torch.testing.assert_close(turned, made.layers(images()).rot90(1, (2, 3)))
    assert change(made, "rotation") > 1e-2


def test_norms_and_pools_are_those_of_e2cnn() -> None:
    kind = fields_of("D4").kind(3)
    pairs = [
        (FieldNorm(3, 8), enn.InnerBatchNorm(kind)),
        (GroupPool(8), enn.GroupPooling(kind)),
        (Blur(24, 2, 2), enn.PointwiseAvgPoolAntialiased(kind, SIGMA, 2)),
        (Blur(24, 1, 0), enn.PointwiseAvgPoolAntialiased(kind, SIGMA, 1, padding=0)),
    ]
    for ours, theirs in pairs:
        fields = 3 * torch.randn(4, kind.size, 9, 9) + 1
        for is_training in (True, False):
            ours.train(is_training)
            theirs.train(is_training)
            expected = theirs(enn.GeometricTensor(fields, kind)).tensor
            torch.testing.assert_close(ours(fields), expected, rtol=1e-4, atol=1e-5)


def test_vectors_get_unit_mean_square_and_keep_their_direction() -> None:
    norm = VectorNorm(3)
    fields = 5 * torch.randn(64, 6, 9, 9)
    for _ in range(100):
        normed = norm(fields)
    vectors, before = (x.reshape(64, 3, 2, 9, 9) for x in (normed, fields))
    # Per channel, so that a vector counts as two.
    torch.testing.assert_close(vectors.square().mean((0, 2, 3, 4)), torch.ones(3))
    torch.testing.assert_close(
        vectors[:, :, 0] * before[:, :, 1], vectors[:, :, 1] * before[:, :, 0]
    )
    torch.testing.assert_close(norm.eval()(fields), normed, rtol=1e-3, atol=1e-4)
