"""The restricted unpickler: what numpy writes comes back, and nothing that is asked for runs."""

from __future__ import annotations

import copyreg
import pickle
import pickletools
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.halos.unpickling import read_pickle

RNG = np.random.default_rng(0)
ARRAYS = {
    "float64": RNG.normal(size=(3, 2, 4, 4)),
    "fortran": np.asfortranarray(RNG.normal(size=(3, 5))),
    "strided": RNG.normal(size=(6, 6))[::2, 1:4],
    "big endian": np.arange(5, dtype=">f4"),
    "text, big endian": np.array(["\u2713", "\U0010ffff"], ">U2"),
    "int": np.arange(7, dtype=np.int16).reshape(7, 1),
    "text": np.array(["BAHAMAS-1", "x", "é"]),
    "bytes": np.array([b"a", b"bcd"]),
    "no elements": np.empty((0, 4)),
    "no dimension": np.array(2.5),
}


def save(path: Path, content: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back(tmp_path: Path, name: str, protocol: int) -> None:
    array = ARRAYS[name]
    found = read_pickle(save(tmp_path / "a.pkl", array, protocol))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_and_scalars_come_back(tmp_path: Path, protocol: int) -> None:
    shared = np.arange(3.0)
    ragged = np.empty((2, 1), object)
    ragged[0, 0], ragged[1, 0] = shared, np.ones((2, 3))
    scalars = [np.float64(1.5), np.int32(-2), np.str_("x"), np.float32(0.1), np.bool_(True)]
    content = ({"label": 0.1, "none": None, "galaxies": ragged, 3: [True, (), b"\xff", ""]}, shared)
    content += (scalars, 2**70, -1, "\n\u2713", 1e300, bytearray(b"xy") if protocol == 5 else b"xy")
    labels, images, found, *rest = read_pickle(save(tmp_path / "a.pkl", content, protocol))
    assert labels["label"] == 0.1
    assert labels["none"] is None
    assert labels[3] == [True, (), b"\xff", ""]
    assert labels["galaxies"].shape == (2, 1)
    # What is used twice is read once.
    assert labels["galaxies"][0, 0] is images
    np.testing.assert_array_equal(labels["galaxies"][1, 0], np.ones((2, 3)))
    assert found == scalars
    assert [type(x) for x in found[:4]] == [type(x) for x in scalars[:4]]
    assert rest == [2**70, -1, "\n\u2713", 1e300, b"xy"]


def test_truth_values_become_numbers(tmp_path: Path) -> None:
    found = read_pickle(save(tmp_path / "a.pkl", np.array([True, False, True])))
    assert found.tolist() == [1, 0, 1]


def test_names_of_numpy_1_are_known(tmp_path: Path) -> None:
    content = pickle.dumps(ARRAYS["float64"], 2)
    assert b"numpy._core" in content
    path = tmp_path / "a.pkl"
    path.write_bytes(content.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(read_pickle(path), ARRAYS["float64"])


class Calls:
    """Pickled, it calls a function with arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.how = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.how


class Stateful:
    """Pickled, it brings a state, which an unpickler would set."""

    x = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("f8", False, True), {"x": 1}


@pytest.fixture
def touched(tmp_path: Path) -> Iterator[Path]:
    """Yield a file that the attacks try to make; it must not be there at the end."""
    path = tmp_path / "touched"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_functions_are_refused_and_not_called(tmp_path: Path, touched: Path, protocol: int) -> None:
    import os

    in_objects = np.empty(2, object)
    in_objects[:] = [1.0, Calls(os.system, f"touch {touched}")]
    attacks: list[tuple[object, str]] = [
        (Calls(os.system, f"touch {touched}"), "posix.system"),
        (Calls(eval, f"open({str(touched)!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
        (({"label": Calls(exec, "1")}, np.ones(2)), r"(builtins|__builtin__)\.exec"),
        (in_objects, "posix.system"),
        ((in_objects.reshape(2, 1), {"a": [in_objects]}), "posix.system"),
        (Calls(getattr, "x", "upper"), r"(builtins|__builtin__)\.getattr"),
        (Calls(np.load, str(touched)), "numpy.*load"),
        (Calls(np.fromfile, str(touched)), r"numpy\S*fromfile"),
        (Calls(np.zeros, 10**12), "numpy.*zeros"),
        (np.array([1.0]).astype(np.complex128), r"numpy.dtype\('c16'\)"),
        (np.zeros(2, [("a", "O")]), r"numpy.dtype\('V8'\)"),
        (np.zeros(2, "M8[s]"), r"numpy.dtype\('M8'\)"),
        (np.ma.array([1.0]), "numpy.ma.*_mareconstruct"),
        (np.random.default_rng(0), "numpy.random"),
        ({1, 2}, r"set|EMPTY_SET"),
        (Stateful(), "fields or metadata"),
        (Path("x"), "pathlib"),
        (print, r"(builtins|__builtin__)\.print"),
        (np.ndarray, "a function, or a type, as a value"),
        (np.dtype("f8"), "a function, or a type, as a value"),
    ]
    for content, name in attacks:
        path = save(tmp_path / "a.pkl", content, protocol)
        with pytest.raises(DataFormatError, match=rf"a\.pkl is refused: it asks for .*{name}.*run"):
            read_pickle(path)


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
KIND = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R"
OBJECTS = b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R"
LITTLE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
SYSTEM = b"cposix\nsystem\n"
HUGE = struct.pack("<q", 2**50)


def state(shape: bytes, kind: bytes, content: bytes) -> bytes:
    return b"(K\x01" + shape + kind + b"\x89" + content + b"tb"


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        # Names with dots, and a name made of a memo.
        (b"\x8c\x07os.path\x8c\x06system\x93.", r"os\.path\.system"),
        (b"\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", r"numpy\.ndarray\.dumps"),
        (b"\x8c\x05posix\x94\x8c\x06system\x9400h\x00h\x01\x93.", r"posix\.system"),
        (b"cposix\x1b[2J\nsystem\n.", r"posix\\x1b\[2J\.system"),
        # Entry points of numpy that take objects, or pickles of their own.
        (b"cnumpy._core.multiarray\nscalar\n" + OBJECTS + b"C\x01.\x86R.", "scalar of an object"),
        (b"cnumpy.core.multiarray\nscalar\n" + OBJECTS + SYSTEM + b"\x86R.", r"posix\.system"),
        (b"cnumpy\nload\n.", r"numpy\.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "multiarray.fromfile"),
        (b"cnumpy.core._internal\n_ctypes\n.", "_internal._ctypes"),
        (b"cnumpy.testing._private.utils\nrunstring\n.", "runstring"),
        # Arrays of other classes, of pointers, of other lengths; changed flags of a type.
        (ARRAY.replace(b"numpy\nndarray", b"numpy\ndtype") + b".", "_reconstruct of a Call"),
        (ARRAY + state(b"K\x01\x85", OBJECTS, b"C\x08" + b"\x41" * 8) + b".", "from other content"),
        (ARRAY + state(b"K\x03\x85", OBJECTS, b"]N\x61") + b".", "3 objects from other content"),
        (ARRAY + state(b"K\x02\x85", KIND, b"C\x08" + b"\x00" * 8) + b".", "2 elements of float64"),
        (ARRAY + state(b"K\x01\x85", KIND, b"]") + b".", "1 elements of float64 from a list"),
        (ARRAY + state(b"J\xff\xff\xff\xff\x85", KIND, b"C\x00") + b".", "no tuple of lengths"),
        (ARRAY + state(b"\x8a\x08" + HUGE + b"\x85", KIND, b"C\x00") + b".", "tuple of lengths"),
        (ARRAY + state(b"\x88\x85", KIND, b"C\x08" + b"\x00" * 8) + b".", "no tuple of lengths"),
        (ARRAY + state(b"(" + b"K\x01" * 9 + b"t", KIND, b"C\x08aaaaaaaa") + b".", "more than 8"),
        (ARRAY + b"}b.", "unknown layout"),
        (KIND + LITTLE.replace(b"<NNN", b"<N(X\x01\x00\x00\x00atN") + b".", "fields or metadata"),
        (KIND + LITTLE.replace(b"<", b"q") + b".", "byte order 'q'"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00f9\x85R.", r"numpy\.dtype\('f9'\)"),
        (b"cnumpy\ndtype\n]\x85R.", r"numpy\.dtype\(a list\)"),
        # Instructions that look things up elsewhere, or make objects.
        (b"\x82\xf0.", "instruction EXT1"),
        (b"\x83\xf0\x00.", "instruction EXT2"),
        (b"\x84\xf0\x00\x00\x00.", "instruction EXT4"),
        (b"Psomething\n.", "instruction PERSID"),
        (b"K\x01Q.", "instruction BINPERSID"),
        (b"(iposix\nsystem\n.", "instruction INST"),
        (b"(" + KIND + b"o.", "instruction OBJ"),
        (b"cnumpy\nndarray\n)\x81.", "instruction NEWOBJ"),
        (b"cnumpy\nndarray\n)}\x92.", "instruction NEWOBJ_EX"),
        (b"\x97.", "instruction NEXT_BUFFER"),
        (b"\xff.", "instruction 255"),
        # Calls and changes of what is no function and no array.
        (b"K\x01)R.", "a call of a int"),
        (b"cnumpy\nndarray\n)R.", "a call of a object"),
        (b"cnumpy\ndtype\n]R.", "a call of a Call"),
        (b"cnumpy\ndtype\n}X\x08\x00\x00\x00functionK\x01sb.", "a change of a Call"),
        (b"cnumpy\ndtype\nN}\x86b.", "a change of a Call"),
        (b"cnumpy\ndtype\nK\x01a.", "elements of a Call"),
        (b"cnumpy\ndtype\nK\x01K\x01s.", "entries of a Call"),
        (b"})K\x01s.", "key is a tuple"),
        (b"}\x8a\x08" + HUGE + b"K\x01s.", "key is a int"),
        (b"}\x8a\x05\x00\x00\x00\x00\xffK\x01s.", "key is a int"),
        (b"K\x01p4294967296\n.", "place in the memo beyond"),
        (b"K\x01p-1\n.", "place in the memo beyond"),
        (b"cbuiltins\nbytes\nK\x05\x85R.", "bytes of something"),
        (
            b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
            "encode of a str to 'rot13'",
        ),
        # Containers that hold themselves, or one another too often.
        (b"]q\x00h\x00a.", "holds itself"),
        (ARRAY + b"q\x00" + state(b"K\x01\x85", OBJECTS, b"]h\x00a") + b".", "holds itself"),
        (b"]" * 18 + b"a" * 17 + b".", "more than 16"),
    ],
)
def test_hostile_instructions_are_refused(
    tmp_path: Path, instructions: bytes, message: str
) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(instructions)
    with pytest.raises(DataFormatError, match=rf"is refused: it asks for .*{message}"):
        read_pickle(path)


def test_extension_codes_run_nothing(tmp_path: Path) -> None:
    """The interpreter in C takes what `copyreg` keeps without asking `find_class`."""
    copyreg.add_extension("posix", "system", 240)
    try:
        path = tmp_path / "a.pkl"
        path.write_bytes(b"\x82\xf0X\x01\x00\x00\x00:\x85R.")
        with pytest.raises(DataFormatError, match="instruction EXT1"):
            read_pickle(path)
    finally:
        copyreg.remove_extension("posix", "system", 240)


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x8e" + HUGE + b"abc.",  # BINBYTES8
        b"\x96" + HUGE + b"abc.",  # BYTEARRAY8
        b"\x8d" + HUGE + b"abc.",  # BINUNICODE8
        b"B\xff\xff\xff\x7fabc.",  # BINBYTES
        b"\x8b\xff\xff\xff\x7fabc.",  # LONG4
        b"\x80\x04\x95" + HUGE + b"abc.",  # FRAME
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"",
        b"K",
        b".",
        b"t.",
        b"h\x05.",
        b"\x80\x63.",
        b"(K\x01K\x02K\x03d.",
    ],
)
def test_damaged_files_are_named(tmp_path: Path, instructions: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(instructions)
    with pytest.raises(DataFormatError, match=r"cannot read pickle .*a\.pkl: "):
        read_pickle(path)


def test_what_is_asked_for_is_not_allocated(tmp_path: Path) -> None:
    """A large place in the memo and shared containers stay small."""
    path = tmp_path / "a.pkl"
    path.write_bytes(b"K\x01r\xff\xff\xff\xff.")
    assert read_pickle(path) == 1
    # Each of 15 lists holds the one before ten times.
    layers = b"".join(b"]" + b"(" + b"h%c" % k * 10 + b"e" + b"q%c" % (k + 1) for k in range(15))
    path.write_bytes(b"]q\x00" + layers + b".")
    found = read_pickle(path)
    assert len(found) == 10
    assert all(inner is found[0] for inner in found)
    # The same text, as bytes, a thousand times.
    text = b"X" + struct.pack("<I", 10**5) + b"a" * 10**5 + b"q\x00"
    call = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86Ra"
    path.write_bytes(text + b"]" + call * 1000 + b".")
    found = read_pickle(path)
    assert sys.getsizeof(found[0]) > 10**5
    assert all(inner is found[0] for inner in found)


ENCODE = b"c_codecs\nencode\n"
LATIN1 = b"X\x06\x00\x00\x00latin1"


@pytest.mark.parametrize(
    "tuples",
    [
        # Two hundred thousand tuples in tuples: their hash ends the stack of the process.
        pytest.param(b"\x85" * 200_000, id="deep"),
        # Tuples of two that are the same, sixty times: their hash takes longer than anyone waits.
        pytest.param(b"2\x86" * 60, id="wide"),
    ],
)
def test_what_is_to_be_encoded_is_not_hashed(tmp_path: Path, tuples: bytes) -> None:
    path = tmp_path / "a.pkl"
    for arguments in (b")" + tuples + LATIN1, LATIN1 + b")" + tuples):
        path.write_bytes(ENCODE + arguments + b"\x86R.")
        with pytest.raises(DataFormatError, match=r"asks for _codecs\.encode of a"):
            read_pickle(path)


def test_numbers_of_one_hash_are_refused(tmp_path: Path) -> None:
    """A dict of a million multiples of 2^61 - 1, whose hash is 0, would take days to make."""
    path = tmp_path / "a.pkl"
    numbers = [(2**61 - 1) * (k + 1) for k in range(1000)]
    keys = b"".join(b"\x8a\x0a" + number.to_bytes(10, "little") + b"N" for number in numbers)
    path.write_bytes(b"}(" + keys + b"u.")
    with pytest.raises(DataFormatError, match="a dict whose key is a int"):
        read_pickle(path)
    path.write_bytes(b"N" + b"".join(b"p%d\n" % number for number in numbers) + b".")
    with pytest.raises(DataFormatError, match="a place in the memo beyond"):
        read_pickle(path)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_changed_bytes_give_values_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, cut: bool
) -> None:
    content = bytearray(pickle.dumps(({"label": 0.1, "a": ARRAYS["text"]}, np.arange(4.0)), 4))
    place %= len(content)
    content[place] = byte
    path = tmp_path_factory.getbasetemp() / "changed.pkl"
    path.write_bytes(content[:place] if cut else content)
    try:
        read_pickle(path)
    except DataFormatError as error:
        assert "changed.pkl" in str(error)  # noqa: PT017 - both outcomes are right


def test_every_known_instruction_is_one_of_python() -> None:
    from datagen.halos.unpickling import _PLAIN

    assert set(_PLAIN) <= {known.name for known in pickletools.opcodes}
    assert len(set(_PLAIN)) == len(_PLAIN)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"a\.pkl does not exist"):
        read_pickle(tmp_path / "a.pkl")
