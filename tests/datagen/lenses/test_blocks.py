from __future__ import annotations

from collections.abc import Callable

import torch

from datagen.lenses.blocks import BLOCK, in_blocks, one_thread
from datagen.lenses.render import Grid, render
from datagen.lenses.scene import Scenes


def test_images_have_the_same_bits_for_any_request(make_scenes: Callable[..., Scenes]) -> None:
    scenes = make_scenes(2 * BLOCK, 3, "tnfw", torch.float32)
    grid, psf = Grid(21, 0.25), torch.full((3, 3), 1.0 / 9.0)

    def images(index: torch.Tensor) -> list[torch.Tensor]:
        return [render(scenes[index], grid, psf), index]

    whole, index = in_blocks(images, torch.arange(2 * BLOCK))
    assert torch.equal(index, torch.arange(2 * BLOCK))
    for wanted in ([70], [3, 4, 5], [127, 0, 63, 64, 0], list(range(1, 90))):
        some, rows = in_blocks(images, torch.tensor(wanted))
        assert rows.tolist() == wanted
        assert torch.equal(some, whole[wanted])


def test_blocks_are_computed_once_and_on_one_thread() -> None:
    seen = []

    def compute(index: torch.Tensor) -> list[torch.Tensor]:
        seen.append((index[0].item(), len(index), torch.get_num_threads()))
        return [index]

    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    in_blocks(compute, torch.tensor([200, 5, 201, 6]))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(n_threads)
    assert seen == [(0, BLOCK, 1), (192, BLOCK, 1)]


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    before = torch.get_num_threads()
    try:
        with one_thread():
            raise RuntimeError
    except RuntimeError:
        assert torch.get_num_threads() == before
