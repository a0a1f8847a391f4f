from __future__ import annotations

import pickle

import pytest

from datagen import errors

CLASSES = [
    errors.ConfigError,
    errors.DataFormatError,
    errors.DataNotFoundError,
    errors.CheckpointError,
    errors.OutputError,
]


@pytest.mark.parametrize("cls", CLASSES)
def test_message_value_and_allowed_survive_pickling(cls: type[errors.SkyfoldError]) -> None:
    error = cls("expected n = 2, but got n = 3", value=3, allowed=[2])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == "expected n = 2, but got n = 3"
    assert (copy.value, copy.allowed) == (3, [2])


@pytest.mark.parametrize(
    ("cls", "builtin"),
    zip(CLASSES, [ValueError, ValueError, FileNotFoundError, RuntimeError, OSError], strict=True),
)
def test_each_error_is_also_the_fitting_builtin(
    cls: type[errors.SkyfoldError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin, match="wrong"):
        raise cls("wrong")
