"""Finds other packages that hide ours: the names conf, datagen, encoders, inference are common."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from datagen.errors import ConfigError

PACKAGES = ("conf", "datagen", "encoders", "inference")
HOME = Path(__file__).resolve().parents[1]


def check_packages() -> None:
    """Make sure that all four packages are ours.

    Raises:
        ConfigError: Another package comes first on the import path.
    """
    for name in PACKAGES:
        found = package_folder(name)
        if found != HOME / name:
            raise ConfigError(
                f"the package `{name}` is imported from {found}, which hides ours at "
                f"{HOME / name}; give Skyfold an environment of its own and check PYTHONPATH "
                "(`make doctor` tells more)",
                value=str(found),
            )


def package_folder(name: str) -> Path | None:
    """Return the folder from which Python would import a package, or None."""
    spec = find_spec(name)
    if spec is None:
        return None
    if spec.origin:
        return Path(spec.origin).resolve().parent
    return Path(next(iter(spec.submodule_search_locations or ["."]))).resolve()
