from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from datagen.lenses.scene import Profile, Rods, Scenes, Sersics, Subhalos

MakeScenes = Callable[..., Scenes]


@pytest.fixture(scope="session")
def make_scenes() -> MakeScenes:
    """Random scenes: SIE, shear and one source, with n subhalos if any are asked for."""

    def make(
        n_images: int,
        n_halos: int = 0,
        profile: Profile = "point",
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> Scenes:
        rng = torch.Generator().manual_seed(seed)

        def draw(low: float, high: float, *shape: int) -> torch.Tensor:
            numbers = torch.rand(shape or (n_images,), generator=rng, dtype=torch.float64)
            return low + (high - low) * numbers

        one, many = (n_images, 1), (n_images, n_halos)
        source = Sersics(
            x=draw(-0.1, 0.1, *one),
            y=draw(-0.1, 0.1, *one),
            q=draw(0.5, 0.95, *one),
            angle=draw(0.0, 3.0, *one),
            n=draw(0.7, 1.5, *one),
            r_eff=draw(0.1, 0.2, *one),
            flux=draw(50.0, 100.0, *one),
        )
        subhalos = Subhalos(
            x=draw(-2.0, 2.0, *many),
            y=draw(-2.0, 2.0, *many),
            theta_e=draw(0.01, 0.06, *many),
            r_s=draw(0.02, 0.1, *many),
            r_t=draw(0.1, 0.3, *many),
            profile=profile,
        )
        scenes = Scenes(
            theta_e=draw(0.8, 1.4),
            q=draw(0.5, 0.9),
            angle=draw(0.0, 3.0),
            x=draw(-0.05, 0.05),
            y=draw(-0.05, 0.05),
            gamma_1=draw(-0.05, 0.05),
            gamma_2=draw(-0.05, 0.05),
            source=source,
            subhalos=subhalos if n_halos else None,
        )
        return scenes.to("cpu", dtype)

    return make


@pytest.fixture(scope="session")
def rods() -> Rods:
    """Two rods of different place, direction and mass."""
    columns = torch.tensor(
        [[0.8, 0.3], [-0.2, 0.9], [0.4, 2.0], [1.5, 0.7], [0.16, 0.1]], dtype=torch.float64
    )
    return Rods(*columns)
