"""Files of TensorBoard's embedding projector: points with a picture and values each."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datagen.files import write_bytes, write_text

# Name of the points, and their files, below the folder of the events.
NAME = "stamps"
TENSORS, METADATA, SPRITES = (f"{NAME}/{file}" for file in ("tensors.tsv", "metadata.tsv",
                                                            "sprites.png"))  # fmt: skip
# The file that TensorBoard looks for.
CONFIG_FILE = "projector_config.pbtxt"
CONFIG = f"""embeddings {{{{
  tensor_name: "{NAME}"
  tensor_path: "{TENSORS}"
  metadata_path: "{METADATA}"
  sprite {{{{
    image_path: "{SPRITES}"
    single_image_dim: {{width}}
    single_image_dim: {{height}}
  }}}}
}}}}
"""


def write_projector(
    folder: Path,
    embeddings: NDArray[np.float32],
    sprites: NDArray[np.float32],
    columns: Mapping[str, Sequence[str | float]],
) -> None:
    """Write points in place of those that were there before.

    `SummaryWriter.add_embedding` would keep a folder of each step, and list all of them.

    Args:
        folder: Of the events of a run.
        embeddings: (n, D).
        sprites: Pictures of the points, 0 to 1 (n, H, W, 3).
        columns: What is known of each point, two columns at least: TensorBoard takes a single one
            to have no head. Numbers that are not finite are left empty, as it wants missing ones.
    """
    rows = zip(*columns.values(), strict=True)
    write_text(folder / TENSORS, _lines(embeddings.tolist()))
    write_text(folder / METADATA, _lines([list(columns), *map(list, rows)]))
    write_bytes(folder / SPRITES, _png(tiled(sprites)))
    _, height, width, _ = sprites.shape
    write_text(folder / CONFIG_FILE, CONFIG.format(height=height, width=width))


def tiled(sprites: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pictures (n, H, W, 3) row by row in a square of them (m H, m W, 3), black where empty.

    The first row of pixels comes to the bottom of each, as in all pictures of the sky.
    """
    n, height, width, _ = sprites.shape
    side = int(np.ceil(np.sqrt(n)))
    full = np.pad(sprites[:, ::-1], ((0, side * side - n), (0, 0), (0, 0), (0, 0)))
    grid = full.reshape(side, side, height, width, 3).swapaxes(1, 2)
    return grid.reshape(side * height, side * width, 3)


def _lines(rows: Sequence[Sequence[str | float]]) -> str:
    return "".join("\t".join(map(_text, row)) + "\n" for row in rows)


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    return f"{value:.7g}" if np.isfinite(value) else ""


def _png(image: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.round(255.0 * image).astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()
