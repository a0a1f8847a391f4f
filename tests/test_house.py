"""The house rules that a machine can check: who imports whom, and how long things are."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("conf", "datagen", "encoders", "inference")
MODULES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
OURS = [*MODULES, *sorted(ROOT.glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]

LOWEST = {
    f"datagen.{name}" for name in ("checks", "errors", "files", "progress", "seeds", "threads")
}
# Physics and file formats of a simulator, which everyone may import.
OPEN = {
    f"datagen.fields.{name}"
    for name in ("clusters", "cosmology", "format", "galaxies", "noise", "stars", "version", "wcs")
}
OPEN |= {
    f"datagen.tiles.{name}"
    for name in ("align", "background", "bands", "catalogs", "geometry", "listing", "sections")
}
OPEN |= {"datagen.tiles.stack", "datagen.tiles.survey"}
OPEN |= {
    f"datagen.lenses.{name}"
    for name in ("blocks", "deflectors", "detect", "draws", "format", "light", "observe", "prior")
}
OPEN |= {
    f"datagen.lenses.{name}"
    for name in ("render", "scene", "settings", "simulate", "units", "version")
}
OPEN |= {f"datagen.halos.{name}" for name in ("cosmology", "format", "nfw", "version")}
OPEN |= {f"datagen.galaxies.{name}" for name in ("format", "physics", "version")}
OPEN |= {f"datagen.stamps.{name}" for name in ("cropping", "format", "petrosian", "resizing")}
OPEN |= {"datagen.stamps.drops", "datagen.stamps.version"}
OPEN |= {f"datagen.prepared.{name}" for name in ("balance", "format", "splitting", "version")}
KNOW_TRAINER = {"encoders/training.py", "inference/engine.py"}
KNOW_HYDRA = {"conf/build.py", "conf/entry.py", "conf/running.py", "conf/schema.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(package: str, prefixes: tuple[str, ...], allowed: set[str]) -> list[str]:
    found = []
    for path in MODULES:
        if not name_of(path).startswith(f"{package}/"):
            continue
        for module in imports(path):
            is_named = any(module == p or module.startswith(f"{p}.") for p in prefixes)
            is_allowed = any(module == a or module.startswith(f"{a}.") for a in allowed)
            if is_named and not is_allowed and module != "datagen":
                found.append(f"{name_of(path)} imports {module}")
    return found


def test_datagen_knows_nothing_of_training_or_prediction() -> None:
    assert offenders("datagen", ("lightning", "encoders", "inference"), set()) == []


def test_encoders_and_inference_see_only_the_open_parts_of_datagen() -> None:
    seen = OPEN | LOWEST
    rooms = ("fields", "galaxies", "halos", "lenses", "prepared", "stamps", "tiles")
    parents = {f"datagen.{room}" for room in rooms}
    for package in ("encoders", "inference"):
        wrong = offenders(package, ("datagen",), seen)
        wrong = [line for line in wrong if line.rsplit(" ", 1)[1] not in parents]
        assert wrong == []


def test_encoders_do_not_know_inference() -> None:
    assert offenders("encoders", ("inference",), set()) == []


def test_the_pipeline_knows_no_simulator() -> None:
    assert not any(m.startswith("datagen.fields") for m in imports(ROOT / "datagen/pipeline.py"))


def test_only_two_modules_build_a_trainer() -> None:
    for path in MODULES:
        calls = (n.func for n in nodes_of(path) if isinstance(n, ast.Call))
        names = {c.id if isinstance(c, ast.Name) else getattr(c, "attr", "") for c in calls}
        assert "Trainer" not in names or name_of(path) in KNOW_TRAINER, name_of(path)


def test_only_the_composing_functions_know_hydra() -> None:
    for path in MODULES:
        knows = any(m == "hydra" or m.startswith("hydra.") for m in imports(path))
        assert not knows or name_of(path) in KNOW_HYDRA, name_of(path)


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert path.read_text().count("\n") <= 400
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            documented = ast.get_docstring(node, clean=False) or ""
            assert length - documented.count("\n") <= 40, node.name
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            n_own = sum(a.arg not in ("self", "cls") for a in arguments)
            assert n_own <= 7 or node.name == "__init__", node.name


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_no_todo_and_no_print(path: Path) -> None:
    text = path.read_text()
    assert "TODO" not in text
    assert "FIXME" not in text
