"""Renderers: from a source catalog to noiseless images; one module and one entry each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.fields.config import RENDERERS
from datagen.fields.render.view import View

__all__ = ["Renderer", "View", "get_renderer"]

Renderer = Callable[[Table, Sequence[View]], Iterator[NDArray[np.float32]]]


def get_renderer(name: str) -> Renderer:
    """Return the function `render(sources, views)` of a renderer in `RENDERERS`."""
    renderer: Renderer = import_module(RENDERERS[name]).render
    return renderer
