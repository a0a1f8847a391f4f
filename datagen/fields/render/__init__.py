"""Renderers: from a source catalog to noiseless images; one module and one entry each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.fields.render.view import View

__all__ = ["RENDERERS", "Renderer", "View", "get_renderer"]

Renderer = Callable[[Table, Sequence[View]], Iterator[NDArray[np.float32]]]

# Imported on demand: each renderer brings its own heavy library.
RENDERERS = {
    "fourier": "datagen.fields.render.fourier_renderer",
    "galsim": "datagen.fields.render.galsim_renderer",
}


def get_renderer(name: str) -> Renderer:
    """Return the function `render(sources, views)` of a renderer.

    Raises:
        ConfigError: No renderer has this name.
    """
    if name not in RENDERERS:
        names = ", ".join(RENDERERS)
        raise ConfigError(
            f"expected renderer to be one of {names}, but got renderer = {name}",
            value=name,
            allowed=names,
        )
    renderer: Renderer = import_module(RENDERERS[name]).render
    return renderer
