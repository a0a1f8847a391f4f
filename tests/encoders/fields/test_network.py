"""What the networks promise: shapes, view, alignment, independence of windows and batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.fields.losses import N_REDSHIFT_CLASSES
from encoders.fields.network import MembershipNetwork, any_of, logit_of, means_over
from encoders.fields.photometry import source_maps
from encoders.fields.reference_network import ReferenceNetwork


def network(cell_px: int, n_bands: int = 2, width: int = 4) -> MembershipNetwork:
    torch.manual_seed(0)
    made = MembershipNetwork(n_bands, cell_px, width, n_counts=3)
    for module in made.modules():  # as after some training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return made.eval()


@pytest.mark.parametrize("cell_px", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("n_bands", [1, 3])
def test_one_logit_per_cell(cell_px: int, n_bands: int) -> None:
    out = network(cell_px, n_bands)(torch.zeros(2, n_bands, 512, 256))
    assert out.shape == (2, 512 // cell_px, 256 // cell_px)


def test_default_size_fits_any_device() -> None:
    made = MembershipNetwork(4, 128, width=64, n_counts=32)
    assert 20_000 < sum(p.numel() for p in made.parameters()) < 40_000
    assert made.receptive_field_px == 128 + 2 * 390


def test_redshift_classes_per_square_of_sixteen_pixels() -> None:
    made = network(64)
    scores = made.score(source_maps(torch.zeros(1, 2, 256, 128)))
    assert scores.membership.shape == (1, 4, 2)
    assert scores.redshift.shape == (1, N_REDSHIFT_CLASSES, 16, 8)
    assert scores.cluster.mean.shape == scores.cluster.log_sigma.shape == (1, 2, 4, 2)


def everything(made: MembershipNetwork, images: Tensor) -> Tensor:
    """All that is said about cells, (B, ny, nx) each, one after the other on the first axis."""
    scores = made.score(made.measure(images))
    return torch.cat((scores.membership[None], *(v.movedim(1, 0) for v in scores.cluster)))


def input_reach(made: MembershipNetwork, cell_px: int, row: int, size: int) -> int:
    """Return how many pixels beyond a cell the gradient of what is said about it reaches.

    The brightest sources lie at the upper, then at the lower edge of their squares.
    """
    reaches = []
    for first in (0, 12):
        images = torch.randn(1, 2, size, size)
        images[:, :, (torch.arange(size) % 16).sub(first).abs() < 4] += 20.0
        images.requires_grad_()
        everything(made, images)[:, 0, row, row].sum().backward()
        assert images.grad is not None
        seen = images.grad.abs().sum((0, 1, 3)).nonzero()
        reaches += [row * cell_px - int(seen.min()), int(seen.max()) - (row + 1) * cell_px + 1]
    return max(reaches)


@pytest.mark.parametrize("cell_px", [16, 32, 64, 128, 256])
def test_receptive_field_is_exact(cell_px: int) -> None:
    made = network(cell_px)
    assert made.receptive_field_px <= 1036
    # The cells of one aligned square see unlike parts of it; the property covers all of them.
    first = 512 // cell_px
    rows = range(first, first + made.alignment_px // cell_px)
    reaches = [input_reach(made, cell_px, row, 1280) for row in rows]
    assert cell_px + 2 * max(reaches) == made.receptive_field_px


@pytest.mark.parametrize("cell_px", [16, 64, 128])
def test_shifts_by_the_alignment_shift_the_cells(cell_px: int) -> None:
    made = network(cell_px)
    shift, size = made.alignment_px, 1280 + made.alignment_px
    sky = torch.randn(1, 2, size, size)
    with torch.inference_mode():
        first, second = (
            everything(made, part) for part in (sky[..., :1280, :1280], sky[..., shift:, shift:])
        )
    edge, step = -(-made.receptive_field_px // (2 * cell_px)), shift // cell_px
    here = first[..., edge + step : -edge, edge + step : -edge]
    there = second[..., edge : -edge - step, edge : -edge - step]
    assert here.numel() > 0
    assert torch.allclose(here, there, atol=1e-5)


def test_far_sources_do_not_matter() -> None:
    made = network(64)
    sky = torch.randn(1, 2, 1024, 1024)
    other = sky.clone()
    other[..., 646:, 646:] += 50.0
    with torch.inference_mode():
        here, there = everything(made, sky), everything(made, other)
        assert torch.equal(here[..., :4, :4], there[..., :4, :4])
        assert not torch.equal(here[1:], there[1:])


def test_batch_mates_do_not_matter_at_evaluation() -> None:
    made = network(64)
    images = torch.randn(3, 2, 256, 256)
    with torch.inference_mode():
        together = everything(made, images)
        alone = torch.cat([everything(made, image[None]) for image in images], dim=1)
    assert torch.allclose(together, alone, atol=1e-5)


def test_flips_keep_the_grid() -> None:
    """Kernels lie symmetrically on the cells: flipped weights on a flipped sky flip the cells."""
    made = network(64)
    sky = torch.randn(1, 2, 256, 256)
    with torch.inference_mode():
        straight = made(sky)
        for module in made.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.flip(-1))
        assert torch.allclose(made(sky.flip(-1)).flip(-1), straight, atol=1e-5)


def test_sizes_of_whole_cells_are_padded() -> None:
    made = network(16)
    out = made(torch.zeros(1, 2, 112, 96))
    assert out.shape == (1, 7, 6)


def test_channels_last_gives_the_same() -> None:
    made = network(64)
    images = torch.randn(1, 2, 256, 256)
    with torch.inference_mode():
        plain: Tensor = made(images)
        last = made.to(memory_format=torch.channels_last)(
            images.contiguous(memory_format=torch.channels_last)
        )
    assert torch.allclose(plain, last, atol=1e-5)


def test_bf16_is_close() -> None:
    made = network(64)
    images = torch.randn(1, 2, 256, 256)
    with torch.inference_mode():
        exact = made(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = made(images)
    assert torch.allclose(exact, rough, atol=0.1)


@pytest.mark.parametrize("made", [MembershipNetwork(2, 64, 4, 2), ReferenceNetwork(2, 64, 8, 3, 1)])
def test_it_starts_from_the_base_rate(made: MembershipNetwork | ReferenceNetwork) -> None:
    torch.manual_seed(0)
    made.start_from(logit_of(0.03))
    with torch.no_grad():
        scores = torch.sigmoid(made(torch.randn(2, 2, 128, 128)))
    assert scores.mean() == pytest.approx(0.03, rel=0.2)


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-9.0, 60.0), min_size=4, max_size=4),
)
def test_a_cell_holds_a_member_if_any_of_its_squares_does(logits: list[float]) -> None:
    squares = torch.tensor(logits, dtype=torch.float64)
    chance_of_none = torch.nn.functional.logsigmoid(-squares).sum()
    expected = torch.log(torch.expm1(-chance_of_none))
    found = any_of(squares.reshape(1, 2, 2), 2)
    assert torch.allclose(found.double(), expected.reshape(1, 1, 1), rtol=1e-4, atol=1e-4)


def test_means_are_those_of_the_squares_with_a_say() -> None:
    maps, logits = torch.randn(1, 2, 4, 4), torch.randn(1, 1, 4, 4, requires_grad=True)
    found = means_over(maps, logits, 2)
    p = torch.sigmoid(logits)
    expected = (p * maps)[..., :2, 2:].sum((2, 3)) / p[..., :2, 2:].sum((2, 3))
    assert torch.allclose(found[..., 0, 1], expected, atol=1e-4)
    assert not found.requires_grad
    assert torch.allclose(means_over(maps, 0 * logits - 99, 4)[..., 0, 0], maps.mean((2, 3)))


def test_cluster_properties_are_finite_whatever_the_images_hold() -> None:
    made = network(64)
    for value in (0.0, 1e30, -1e30):
        with torch.inference_mode():
            scores = made.score(made.measure(torch.full((1, 2, 128, 128), value)))
        found = scores.cluster.in_units()
        assert all(bool(v.isfinite().all()) and bool((v >= 0).all()) for v in found.values())
        assert bool((found["redshift_error"] > 0).all())
        assert bool((found["richness_error"] > 0).all())


def test_faint_chances_give_a_finite_logit_and_gradient() -> None:
    squares = torch.tensor([[[-200.0, 200.0], [-30.0, -30.0]]], requires_grad=True)
    cells = any_of(squares, 1)
    cells.sum().backward()
    assert squares.grad is not None
    assert torch.isfinite(cells).all()
    assert torch.isfinite(squares.grad).all()


def test_logit_of_the_base_rate() -> None:
    assert logit_of(0.5) == 0.0
    assert logit_of(0.5, pos_weight=torch.e) == pytest.approx(1.0)
    assert logit_of(0.0) == pytest.approx(-9.21, abs=0.01)


@pytest.mark.parametrize("cell_px", [8, 48, 0])
def test_wrong_cells_are_refused(cell_px: int) -> None:
    with pytest.raises(ConfigError, match=f"a power of two >= 16, but got cell_px = {cell_px}"):
        MembershipNetwork(4, cell_px, 16, 2)


def test_wrong_bands_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one band, but got n_bands = 0"):
        MembershipNetwork(0, 64, 16, 2)
    with pytest.raises(ConfigError, match=r"expected images of shape \(B, 2, H, W\).*\(1, 3, 64"):
        network(64)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match=r"multiples of cell_px = 64, but got \(1, 2, 64, 96\)"):
        network(64)(torch.zeros(1, 2, 64, 96))


@pytest.mark.parametrize("cell_px", [16, 64, 256])
def test_reference_network_gives_one_logit_per_cell(cell_px: int) -> None:
    made = ReferenceNetwork(3, cell_px, width=8, n_curves=3, cell_layers=1)
    assert made(torch.zeros(1, 3, 256, 512)).shape == (1, 256 // cell_px, 512 // cell_px)
    assert made.alignment_px == cell_px


def test_reference_network_depends_on_the_window() -> None:
    """The defect it is kept to show: a far source changes every cell."""
    made = ReferenceNetwork(1, 16, width=8, n_curves=3, cell_layers=0).eval()
    sky = torch.randn(1, 1, 512, 512)
    other = sky.clone()
    other[..., -16:, -16:] += 5.0
    assert made.receptive_field_px < 512
    with torch.inference_mode():
        assert not torch.equal(made(sky)[:, 0, 0], made(other)[:, 0, 0])
