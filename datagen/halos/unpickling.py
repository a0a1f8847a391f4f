"""Reads pickles of numbers without running what else they may ask for.

A pickle is a program: it names functions and calls them. Here it meets an interpreter that knows
only the instructions for plain values and the few calls with which numpy stores its arrays. These
calls are ours: an array is built from type, shape and bytes after all three were checked. Nothing
of numpy's own is called, since its `__setstate__` trusts what it is given.
"""

from __future__ import annotations

import functools
import math
import pickle
import pickletools
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError

ADMITTED = "numpy arrays, numpy scalars, numbers, text, bytes, lists, tuples and dicts"
# Containers within containers; simulation pickles have three.
MAX_DEPTH = 16
MAX_DIMENSIONS, MAX_SIDE = 8, 2**40
# Keys of dicts, and places in the memo: larger numbers can be chosen so that all have one hash.
MAX_KEY = 2**32
# Kind and bytes per element: truth values, numbers, bytes, text, objects.
_TYPE = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?")
_PLAIN = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "EMPTY_DICT"),
    *("BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL"),
)


def read_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever plain values the file holds
    """Read a pickle that holds numbers, text, numpy arrays and plain containers.

    Truth values in arrays become 0 and 1. Arrays are read-only.

    Args:
        path: A file of any pickle protocol, written by Python 3.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: The file is damaged, or asks for anything else; nothing is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(f"{path} does not exist", str(path))
    try:
        with path.open("rb") as stream:
            return _plain(_Unpickler(_Bounded(stream, path.stat().st_size)).load(), {}, 0)
    except RefusedError as error:
        raise DataFormatError(
            f"{path} is refused: it asks for {error}; it may hold {ADMITTED} only, since anything "
            "else could run code",
            str(error),
            ADMITTED,
        ) from None
    except Exception as error:  # the base class raises whatever it meets in damaged bytes
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise DataFormatError(f"cannot read pickle {path}: {reason[0][:200]}", str(path)) from error


class RefusedError(Exception):
    """What a pickle asks for is not admitted."""


class _Type:
    """A numpy type as a pickle describes it: a name, then its byte order."""

    def __init__(self, name: object, *_: object) -> None:
        if type(name) is not str or not _TYPE.fullmatch(name):
            raise RefusedError(f"numpy.dtype({_shown(name)})")
        # Bytes other than 0 and 1 are no truth values.
        self.dtype = np.dtype("u1" if name == "b1" else name)

    def set_state(self, state: object) -> None:
        """Take the byte order; fields, subarrays and metadata are not for plain numbers."""
        if type(state) is not tuple or len(state) != 8 or any(x is not None for x in state[2:5]):
            raise RefusedError("a numpy.dtype with fields or metadata")
        if type(state[1]) is not str or state[1] not in ("<", ">", "|", "="):
            raise RefusedError(f"a numpy.dtype of byte order {_shown(state[1])}")
        self.dtype = self.dtype.newbyteorder(state[1])  # type: ignore[arg-type]


class _Array:
    """An array as a pickle describes it: made empty, then filled."""

    def __init__(self) -> None:
        self.content: NDArray[Any] | list[Any] = []
        self.shape: tuple[int, ...] = (0,)

    def set_state(self, state: object) -> None:
        """Take (version, shape, type, whether in Fortran order, content)."""
        if type(state) is not tuple or len(state) != 5:
            raise RefusedError("a numpy.ndarray of unknown layout")
        _, shape, kind, is_fortran, content = state
        self.fill(content, kind, shape, "F" if is_fortran is True else "C")

    def fill(self, content: object, kind: object, shape: object, order: object) -> None:
        """Take the elements; nothing is allocated that the file does not hold."""
        self.shape = _checked_shape(shape)
        if type(kind) is not _Type or type(order) is not str or order not in ("C", "F"):
            raise RefusedError("a numpy.ndarray of unknown layout")
        n = math.prod(self.shape)
        if kind.dtype.kind != "O":
            flat = _numbers(content, kind.dtype, n)
            self.content = flat.reshape(self.shape, order="F" if order == "F" else "C")
        elif type(content) is list and len(content) == n and order == "C":
            self.content = content
        else:
            raise RefusedError(f"a numpy.ndarray of {n} objects from other content")


class _Call:
    """A function that a pickle may name and call: ours in the place of numpy's."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _NDARRAY:
        raise RefusedError(f"numpy's _reconstruct of {_shown(kind)}")
    return _Array()


def _from_buffer(content: object, kind: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.fill(content, kind, shape, order)
    return array


def _scalar(kind: object, content: object = None) -> object:
    if type(kind) is not _Type or kind.dtype.kind == "O":
        raise RefusedError("numpy's scalar of an object")
    return _numbers(content, kind.dtype, 1)[0]


def _encoder() -> _Call:
    """Return what stands for `_codecs.encode`: text that is used many times is kept once."""
    kept = functools.cache(lambda text: text.encode("latin1"))

    # Not kept itself: a cache asks for the hash of its arguments, and that of tuples in tuples
    # takes forever, or the stack.
    def encode(text: object, encoding: object) -> object:
        if type(text) is not str or type(encoding) is not str or encoding != "latin1":
            raise RefusedError(f"_codecs.encode of a {type(text).__name__} to {_shown(encoding)}")
        return kept(text)

    return _Call(encode)


def _no_bytes(*content: object) -> bytes:
    if content:
        raise RefusedError("bytes of something")
    return b""


def _numbers(content: object, dtype: np.dtype[Any], n: int) -> NDArray[Any]:
    """Return `n` elements of a plain type from exactly their bytes, not copied."""
    if type(content) is not bytes or not dtype.itemsize or len(content) != n * dtype.itemsize:
        size = f"{len(content)} bytes" if type(content) is bytes else _shown(content)
        raise RefusedError(f"a numpy.ndarray of {n} elements of {dtype} from {size}")
    if dtype.kind == "U" and n:
        characters = np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.byteorder))
        if characters.max() > sys.maxunicode:
            raise RefusedError("a numpy.ndarray of characters that do not exist")
    return np.frombuffer(content, dtype)


def _checked_shape(shape: object) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
        raise RefusedError(f"a numpy.ndarray of more than {MAX_DIMENSIONS} dimensions")
    if any(type(n) is not int or not 0 <= n < MAX_SIDE for n in shape):
        raise RefusedError("a numpy.ndarray whose shape is no tuple of lengths")
    return shape


def _shown(value: object) -> str:
    """Say what a value is in a few printable characters, whatever it holds."""
    return repr(value[:80]) if type(value) is str else f"a {type(value).__name__.strip('_')}"


_NDARRAY = object()
_NAMES: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(_Type),
    # How protocols before 3 write b"".
    ("__builtin__", "bytes"): _Call(_no_bytes),
    ("builtins", "bytes"): _Call(_no_bytes),
    # numpy.core is what numpy 1 calls numpy._core.
    **{
        (f"numpy.{core}.{module}", name): _Call(function)
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _Bounded:
    """A file that is never asked for more than it holds, so that nothing larger is allocated."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size
        self.readline = stream.readline

    def read(self, n: int, /) -> bytes:
        """Return the next `n` bytes."""
        left = self.size - self.stream.tell()
        if not 0 <= n <= left:
            raise EOFError(f"it goes on for {n} bytes where {left} are left in the file")
        return self.stream.read(n)


class _Instructions(dict[int, Callable[[Any], None]]):
    """The instructions that are known; any other is refused by its name."""

    def __missing__(self, code: int) -> Callable[[Any], None]:
        names = [known.name for known in pickletools.opcodes if ord(known.code) == code]
        raise RefusedError(f"the instruction {names[0] if names else code}")


class _Unpickler(pickle._Unpickler):
    """An interpreter of the plain instructions.

    The base is the one in Python: unlike that in C it can be given other instructions, keeps no
    table as long as the largest number that it is told, and finds no extensions in `copyreg`.
    """

    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file)
        self._encode = _encoder()

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the base class says so
        """Return what stands for a name; the name is never looked up."""
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) not in _NAMES:
            raise RefusedError(repr(f"{module[:80]}.{name[:80]}")[1:-1])
        return _NAMES[module, name]

    def call(self) -> None:
        """Call one of the functions above."""
        arguments, function = self.stack.pop(), self.stack[-1]
        if type(function) is not _Call or type(arguments) is not tuple:
            raise RefusedError(f"a call of {_shown(function)}")
        self.stack[-1] = function.function(*arguments)

    def build(self) -> None:
        """Fill an array, or complete a type."""
        state, built = self.stack.pop(), self.stack[-1]
        if type(built) not in (_Array, _Type):
            raise RefusedError(f"a change of {_shown(built)}")
        built.set_state(state)

    def put(self) -> None:
        """Keep a value in the memo."""
        place = int(self.readline())
        if not 0 <= place < MAX_KEY:
            raise RefusedError(f"a place in the memo beyond 0 to {MAX_KEY - 1}")
        self.memo[place] = self.stack[-1]

    def long_bytes(self) -> None:
        """Read bytes of any length; those that could be changed are not told apart."""
        self.stack.append(self.read(*struct.unpack("<Q", self.read(8))))

    def append_one(self) -> None:
        """Append to a list."""
        self._extend([self.stack.pop()])

    def append_all(self) -> None:
        """Append what stands behind the mark to a list."""
        self._extend(self.pop_mark())

    def set_one(self) -> None:
        """Add an entry to a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def set_all(self) -> None:
        """Add what stands behind the mark to a dict."""
        self._update(self.pop_mark())

    def dict_of(self) -> None:
        """Make a dict of what stands behind the mark."""
        items = self.pop_mark()
        self.stack.append({})
        self._update(items)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise RefusedError(f"elements of {_shown(target)}")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise RefusedError(f"entries of {_shown(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Python hashes tuples in tuples without a limit of depth.
            if type(key) is not str and (type(key) is not int or abs(key) >= MAX_KEY):
                raise RefusedError(f"a dict whose key is {_shown(key)}")
            target[key] = value

    dispatch = _Instructions(
        {
            **{ord(known.code): pickle._Unpickler.dispatch[ord(known.code)]
               for known in pickletools.opcodes if known.name in _PLAIN},
            pickle.REDUCE[0]: call,
            pickle.BUILD[0]: build,
            pickle.PUT[0]: put,
            pickle.BINBYTES8[0]: long_bytes,
            pickle.BYTEARRAY8[0]: long_bytes,
            pickle.APPEND[0]: append_one,
            pickle.APPENDS[0]: append_all,
            pickle.SETITEM[0]: set_one,
            pickle.SETITEMS[0]: set_all,
            pickle.DICT[0]: dict_of,
        }
    )  # fmt: skip


def _plain(value: Any, seen: dict[int, Any], depth: int) -> Any:  # noqa: ANN401 - plain values
    """Return a value with its arrays built; what is used many times is built once."""
    if value is None or isinstance(value, bool | int | float | str | bytes | np.generic):
        return value
    if id(value) not in seen:
        if depth > MAX_DEPTH:
            raise RefusedError(f"containers in containers, more than {MAX_DEPTH}")
        seen[id(value)] = _PENDING
        seen[id(value)] = _built(value, lambda item: _plain(item, seen, depth + 1))
    if seen[id(value)] is _PENDING:
        raise RefusedError("a container that holds itself")
    return seen[id(value)]


_PENDING = object()


def _built(value: Any, plain: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - plain values
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    if type(value) is not _Array:
        raise RefusedError("a function, or a type, as a value")
    if isinstance(value.content, np.ndarray):
        return value.content
    objects = np.empty(len(value.content), object)
    for place, item in enumerate(value.content):
        objects[place] = plain(item)
    return objects.reshape(value.shape)
