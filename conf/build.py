"""Turns composed configuration into checked objects."""

from __future__ import annotations

import dataclasses
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datagen.errors import ConfigError, SkyfoldError


def build(node: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the class that `_target_` names
    """Instantiate the `_target_` of a group with plain Python values.

    Args:
        node: A group with `_target_`.
        **kwargs: Arguments that are known only at run time; they win over the group.

    Returns:
        The object.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or range.
        SkyfoldError: What the constructor itself found wrong.
        Exception: Any other error of the constructor, as it raised it.
    """
    try:
        return instantiate(node, _convert_="all", _recursive_=False, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, SkyfoldError):
            raise cause from error
        if isinstance(cause, TypeError | ValueError) or cause is None:
            target = node.get("_target_") if node else None
            raise ConfigError(f"cannot build {target}: {cause or error}", value=target) from error
        raise cause from error


def build_settings(node: DictConfig, name: str) -> Any:  # noqa: ANN401 - the dataclass named
    """Turn a group whose `_target_` is a dataclass into an instance of it.

    Args:
        node: The composed group.
        name: Name of the group, for messages.

    Returns:
        The instance; its types are checked here, its ranges by its `__post_init__`.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or range.
    """
    settings_class = get_class(node["_target_"])
    if not dataclasses.is_dataclass(settings_class):
        raise ConfigError(
            f"expected {name}._target_ to be a settings class, but got {node['_target_']!r}",
            value=node["_target_"],
        )
    try:
        values = OmegaConf.to_container(node, resolve=True)
        assert isinstance(values, dict)
        del values["_target_"]
        merged = OmegaConf.merge(OmegaConf.structured(settings_class), values)
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, name), value=error.full_key) from error


def _explain(error: OmegaConfBaseException, name: str) -> str:
    """Return OmegaConf's reason in one line that names the full key."""
    reason = (error.msg or str(error)).split("\n")[0].removesuffix(".")
    if "is not a ListConfig" in reason:
        reason = "expected a list, such as [1] or [a,b]"
    key = f"{name}.{error.full_key}" if error.full_key else name
    return f"{key}: {reason}; `--cfg job` shows all keys and values"
