from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built from a copy of the tracked files."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\n"):
        if name and (root / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((root / name).read_bytes())
    target = tmp_path_factory.mktemp("wheel")
    command = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", command, str(target)], cwd=source, check=True, capture_output=True
    )
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """Return the file names inside the wheel."""
    with zipfile.ZipFile(wheel) as content:
        return content.namelist()


def test_the_wheel_holds_the_four_packages_their_starter_and_nothing_else(names: list[str]) -> None:
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "conf",
        "datagen",
        "encoders",
        "inference",
        "skyfold.py",
    }


def test_the_wheel_holds_every_module_yaml_and_table(root: Path, names: list[str]) -> None:
    for package in ("conf", "datagen", "encoders", "inference"):
        for pattern in ("**/*.py", "**/*.yaml", "**/*.ecsv", "py.typed"):
            for path in (root / package).glob(pattern):
                assert path.relative_to(root).as_posix() in names


def test_the_entry_points_exist(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for target in project["scripts"].values():
        module, function = target.split(":")
        text = (root / (module.replace(".", "/") + ".py")).read_text()
        assert f"def {function}(" in text


@pytest.mark.parametrize("name", ["conf", "datagen"])
def test_commands_of_the_wheel_name_what_hides_a_package(
    wheel: Path, tmp_path: Path, name: str
) -> None:
    home, other = tmp_path / "site", tmp_path / "other"
    with zipfile.ZipFile(wheel) as content:
        content.extractall(home)
    (other / name).mkdir(parents=True)
    (other / name / "__init__.py").write_text("")
    code = "import sys; sys.argv = ['x', '--help']; from skyfold import validate; validate()"
    for paths, status in (([home], 0), ([other, home], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        )
        assert done.returncode == status, done.stderr
    assert done.stderr.startswith(f"skyfold: the package `{name}` is imported from {other / name}")
    assert f"hides ours at {home / name}" in done.stderr
