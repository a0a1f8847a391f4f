from __future__ import annotations

import pytest
import torch

from datagen.lenses.blocks import BLOCK, in_blocks
from datagen.threads import one_thread


@pytest.mark.parametrize("wanted", [[70], [3, 4, 5], [127, 0, 63, 64, 0], [*range(1, 90)]])
def test_rows_of_whole_blocks_are_put_into_the_order_of_the_request(wanted: list[int]) -> None:
    blocks, order = in_blocks(torch.tensor(wanted))
    for block, _ in blocks:
        assert block.tolist() == list(range(int(block[0]), int(block[0]) + BLOCK))
        assert block[0] % BLOCK == 0
    assert len(blocks) == len({number // BLOCK for number in wanted})
    assert torch.cat([block[rows] for block, rows in blocks])[order].tolist() == wanted


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    before = torch.get_num_threads()
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise RuntimeError
    except RuntimeError:
        assert torch.get_num_threads() == before
