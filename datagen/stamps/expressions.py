"""Arithmetic over named columns, as users write it in a suite's file; nothing is ever executed.

The text is parsed, and only what stands in the tables of this module is computed: numbers, names
of columns, `+ - * / **`, comparisons, elements of vector columns and a few functions.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError

Values = NDArray[np.float64]

MAX_LENGTH = 300
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("abs", "sqrt", "exp", "log", "log10", "sin", "cos")},
    **{name: getattr(np, name) for name in ("arctan2", "hypot", "minimum", "maximum", "where")},
}
_ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul},
    **{ast.Div: operator.truediv, ast.Pow: operator.pow},
    **{ast.UAdd: operator.pos, ast.USub: operator.neg},
    **{ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne},
}
ALLOWED = (
    "numbers, names of columns (in quotes where they are no plain words), + - * / **, "
    f"comparisons, elements such as X[4], and {', '.join(FUNCTIONS)}"
)


class Expression:
    """A formula of columns, such as `log10(SubhaloMassType[4] * 1e10 / HubbleParam)`.

    Args:
        text: The formula.
        where: The setting that holds it, for messages.

    Raises:
        ConfigError: It is no formula, or holds something that is not allowed.
    """

    def __init__(self, text: str | float, where: str = "expression") -> None:
        self.text, self.where = str(text), where
        self._names: dict[str, None] = {}
        try:
            if len(self.text) > MAX_LENGTH:
                raise self._refused(f"{len(self.text)} characters, more than {MAX_LENGTH}")
            self._tree = ast.parse(self.text.strip(), mode="eval").body
            self._check(self._tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigError):
                raise
            reason = str(getattr(error, "msg", error)).splitlines()[:1]
            raise self._refused("".join(reason)) from error

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that the formula takes, in their order."""
        return tuple(self._names)

    @property
    def is_name(self) -> bool:
        """Whether the formula is the name of one column and nothing else."""
        return isinstance(self._tree, ast.Name | ast.Constant) and bool(self._names)

    def __call__(self, columns: Mapping[str, Any]) -> Values:
        """Compute the formula.

        Args:
            columns: Name -> numbers (n,), vectors (n, k), or one number.

        Returns:
            (n,) or a number; not finite where the formula has no value, such as log10(0).

        Raises:
            DataFormatError: A column is missing, is not numbers, or has no such element.
        """
        try:
            with np.errstate(all="ignore"):
                return np.asarray(self._value(self._tree, columns), np.float64)
        except (ValueError, TypeError, IndexError) as error:
            if isinstance(error, DataFormatError):
                raise
            reason = (str(error).splitlines() or [""])[0]
            raise DataFormatError(
                f"{self.where}: cannot compute {self.text}: {reason}", self.text
            ) from error

    def _check(self, node: ast.AST) -> None:
        """Refuse whatever is not in the tables, and collect the names of columns."""
        parts = _parts(node)
        if parts is None:
            raise self._refused(ast.unparse(node))
        match node:
            case ast.Name(id=name) | ast.Constant(value=str(name)):
                self._names[name] = None
        for part in parts:
            self._check(part)

    def _value(self, node: ast.AST, columns: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Compute a node that `_check` has passed."""
        match node:
            case ast.Constant(value=int() | float() as number):
                # Whole numbers of Python would grow without limit under powers.
                return np.float64(number)
            case ast.Name(id=name) | ast.Constant(value=str(name)):
                return self._column(name, columns)
            case ast.UnaryOp(op=op, operand=inner):
                return _ARITHMETIC[type(op)](self._value(inner, columns))
            case (
                ast.BinOp(op=op, left=left, right=right)
                | ast.Compare(ops=[op], left=left, comparators=[right])
            ):
                return _ARITHMETIC[type(op)](
                    self._value(left, columns), self._value(right, columns)
                )
            case ast.Call(func=ast.Name(id=name), args=args):
                return FUNCTIONS[name](*(self._value(argument, columns) for argument in args))
            case ast.Subscript(value=inner):
                return np.asarray(self._value(inner, columns))[..., _element(node)]
        raise self._refused(ast.unparse(node))

    def _column(self, name: str, columns: Mapping[str, Any]) -> Values:
        if name not in columns:
            there = ", ".join(list(columns)[:40]) or "none"
            raise DataFormatError(
                f"{self.where}: {self.text} takes {name}, but the columns are {there}", name, there
            )
        return np.asarray(columns[name]).astype(np.float64)

    def _refused(self, got: str) -> ConfigError:
        return ConfigError(
            f"expected {self.where} to be made of {ALLOWED}, but got {self.text[:80]!r}: {got}",
            self.text,
            ALLOWED,
        )


def _parts(node: ast.AST) -> list[ast.expr] | None:
    """Return what a node is computed from, None if it is not allowed."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() | str()) | ast.Name():
            return []
        case ast.UnaryOp(op=op, operand=inner) if type(op) in _ARITHMETIC:
            return [inner]
        case (
            ast.BinOp(op=op, left=left, right=right)
            | ast.Compare(ops=[op], left=left, comparators=[right])
        ) if type(op) in _ARITHMETIC:
            return [left, right]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return list(args)
        case ast.Subscript(value=inner) if _element(node) is not None:
            return [inner]
    return None


def _element(node: ast.AST) -> int | None:
    """Return k of X[k] or X[:, k], None for any other subscript."""
    match node:
        case (
            ast.Subscript(slice=ast.Constant(value=int(k)))
            | ast.Subscript(
                slice=ast.Tuple(
                    elts=[ast.Slice(lower=None, upper=None, step=None), ast.Constant(value=int(k))]
                )
            )
        ):
            return k
    return None
