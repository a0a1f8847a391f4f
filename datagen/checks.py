"""Checks of settings: each message says what was expected, what was given, and what is allowed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from datagen.errors import ConfigError

N_DIFFERENCES = 5


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise `ConfigError` unless ``low <= value <= high``."""
    if not low <= value <= high:
        allowed = f"[{low:g}, {high:g}]" if high < float("inf") else f">= {low:g}"
        raise ConfigError(
            f"expected {name} in {allowed}, but got {name} = {value:g}",
            value=value,
            allowed=allowed,
        )


def check_positive(name: str, value: float) -> None:
    """Raise `ConfigError` unless ``value > 0``."""
    if not value > 0:
        raise ConfigError(
            f"expected {name} > 0, but got {name} = {value:g}", value=value, allowed="> 0"
        )


def check_choice(name: str, value: str, allowed: Collection[str]) -> None:
    """Raise `ConfigError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        names = ", ".join(allowed)
        raise ConfigError(
            f"expected {name} to be one of {names}, but got {name} = {value}",
            value=value,
            allowed=names,
        )


def check_subset(name: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise `ConfigError` unless ``values`` are distinct, at least one, and all in ``allowed``."""
    names = ", ".join(allowed)
    if not values or len(set(values)) < len(values) or not set(values) <= set(allowed):
        got = "[" + ", ".join(values) + "]"
        raise ConfigError(
            f"expected {name} to be distinct names out of {names}, but got {name} = {got}",
            value=list(values),
            allowed=names,
        )


def check_interval(name: str, values: Sequence[float], low: float, high: float) -> None:
    """Raise `ConfigError` unless ``values`` is [lower, upper] inside [low, high]."""
    if len(values) != 2 or not low <= values[0] < values[1] <= high:
        got = "[" + ", ".join(f"{v:g}" for v in values) + "]"
        allowed = f"[lower, upper] with {low:g} <= lower < upper <= {high:g}"
        raise ConfigError(
            f"expected {name} to be {allowed}, but got {name} = {got}",
            value=list(values),
            allowed=allowed,
        )


def check_keys(
    name: str, values: Mapping[str, Any], needed: Sequence[str], allowed: Sequence[str]
) -> None:
    """Raise `ConfigError` unless ``values`` has all ``needed`` keys and no other than allowed."""
    wrong = [f"no entry for {key}" for key in needed if key not in values]
    wrong += [f"an entry for {key}" for key in values if key not in allowed]
    if wrong:
        keys = ", ".join(allowed)
        raise ConfigError(
            f"expected {name} to have an entry for each of {', '.join(needed) or 'none'}, "
            f"out of {keys}, but got {', '.join(wrong)}",
            value=list(values),
            allowed=keys,
        )


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], key_of: Callable[[str], str]
) -> list[str]:
    """Say in words where nested settings differ, sorted; the first five places.

    Args:
        before: Plain values.
        now: The same, as they shall be.
        key_of: Gives the key that users know for one of the outermost.
    """
    found = [
        f"{name} was {old!r}, now {new!r}"
        for key in sorted(before.keys() | now.keys())
        for name, old, new in _changes(before.get(key), now.get(key), key_of(key))
    ]
    more = [f"and {len(found) - N_DIFFERENCES} more"] if len(found) > N_DIFFERENCES else []
    return found[:N_DIFFERENCES] + more


def _changes(before: Any, now: Any, name: str) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _changes(before.get(key), now.get(key), f"{name}.{key}")
    elif before != now:
        yield name, before, now


def build_checked(cls: Any, values: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - the class given
    """Build a dataclass from plain values.

    Args:
        cls: The dataclass.
        values: One for each of its fields.
        name: What messages call them, such as lens.imaging.

    Raises:
        ConfigError: A key is unknown or missing, or a value is out of range.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    check_keys(name, values, names, names)
    return cls(**values)
