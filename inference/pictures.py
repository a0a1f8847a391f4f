"""How all pictures of predictions are written."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from datagen import files


def save_png(path: Path, figure: Figure) -> Path:
    """Write a figure atomically as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())
    return path
