"""Finds other packages that hide ours: the names conf, datagen, encoders, inference are common."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("conf", "datagen", "encoders", "inference")
HOME = Path(__file__).resolve().parents[1]


def check_packages() -> None:
    """Make sure that all four packages are ours.

    Raises:
        ConfigError: Another package comes first on the import path.
    """
    # Here and not above: what hides `datagen` hides this class, and the doctor must still run.
    from datagen.errors import ConfigError

    message = hidden_package()
    if message is not None:
        raise ConfigError(message)


def hidden_package() -> str | None:
    """Return one line on the first package of ours that another one hides, or None."""
    for name in PACKAGES:
        found = package_folder(name)
        if found != HOME / name:
            return (
                f"the package `{name}` is imported from {found}, which hides ours at "
                f"{HOME / name}; give Skyfold an environment of its own and check PYTHONPATH "
                "(`make doctor` tells more)"
            )
    return None


def package_folder(name: str) -> Path | None:
    """Return the folder from which Python would import a package, or None."""
    spec = find_spec(name)
    if spec is None:
        return None
    if spec.origin:
        return Path(spec.origin).resolve().parent
    return Path(next(iter(spec.submodule_search_locations or ["."]))).resolve()
