"""Builds objects from plain mappings with `_target_`, which checkpoints carry.

A checkpoint is data from elsewhere: what it names may be a class of a known kind in known packages,
and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from datagen.errors import ConfigError

T = TypeVar("T")

PACKAGES = ("encoders", "torch")


def build_part(spec: Mapping[str, Any], kind: type[T], *args: object, **kwargs: object) -> T:
    """Construct the class that `spec["_target_"]` names with the other entries of `spec`.

    Args:
        spec: `_target_` and keyword arguments, plain values.
        kind: The class must be derived from this one.
        *args: Positional arguments.
        **kwargs: More keyword arguments; they win over `spec`.

    Raises:
        ConfigError: `_target_` is missing or not allowed, or an argument is unknown, missing or
            out of range.
    """
    target = spec.get("_target_")
    found = _find(target)
    if found is None or not issubclass(found, kind):
        raise ConfigError(
            f"expected _target_ to name a {kind.__name__} of the packages {', '.join(PACKAGES)}, "
            f"but got _target_ = {target!r}",
            target,
            PACKAGES,
        )
    options = {str(key): value for key, value in spec.items() if key != "_target_"} | kwargs
    try:
        return found(*args, **options)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot build {target}: {error}", target) from error


def _find(target: object) -> type | None:
    """Return the class of that name if it is defined in an allowed package."""
    if not isinstance(target, str) or target.split(".")[0] not in PACKAGES or "." not in target:
        return None
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    # A module's own imports (`encoders.x.os`) are not its classes.
    is_own = isinstance(found, type) and found.__module__.split(".")[0] in PACKAGES
    return found if is_own else None
