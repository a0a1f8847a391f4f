"""Starts the installed commands after a look at where the four packages would come from.

Their names are common, and another package of the same name may come first on the import path.
The name of this module is not: it is found even then, and its own packages lie beside it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("conf", "datagen", "encoders", "inference")
HOME = Path(__file__).resolve().parent
USER_ERROR = 2


def datagen() -> None:
    """Run `skyfold-datagen`."""
    _run("conf.entry", "datagen")


def train() -> None:
    """Run `skyfold-train`."""
    _run("conf.entry", "train")


def predict() -> None:
    """Run `skyfold-predict`."""
    _run("conf.entry", "predict")


def evaluate() -> None:
    """Run `skyfold-evaluate`."""
    _run("conf.entry", "evaluate")


def validate() -> None:
    """Run `skyfold-validate`."""
    _run("datagen.validate", "main")


def doctor() -> None:
    """Run `skyfold-doctor`, which reports on the packages itself and needs only its own."""
    _run("conf.doctor", "main", needed=("conf",))


def hidden_package(names: tuple[str, ...] = PACKAGES) -> str | None:
    """Return one line on the first package of ours that another one hides, or None."""
    for name in names:
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


def _run(module: str, function: str, needed: tuple[str, ...] = PACKAGES) -> None:
    """Call a function of our packages; end with status 2 and one line if one is hidden."""
    message = hidden_package(needed)
    if message is not None:
        sys.stderr.write(f"skyfold: {message}\n")
        sys.exit(USER_ERROR)
    getattr(import_module(module), function)()
