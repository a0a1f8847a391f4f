"""Notebooks: both forms say the same, hold no outputs, and run from nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

jupytext = pytest.importorskip("jupytext")
SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.py"))


def cells(path: Path) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def outputs(notebook: Any, mime: str) -> list[str]:  # noqa: ANN401 - a nbformat node
    found = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    data = [out.get("data", {"text/plain": out.get("text", "")}) for out in found]
    return [part[mime] for part in data if mime in part]


def test_there_is_a_notebook() -> None:
    assert [path.stem for path in SCRIPTS] == ["look_at_fields"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_both_forms_agree_and_hold_no_outputs(script: Path) -> None:
    """Else run `jupytext --to ipynb notebooks/<name>.py`."""
    notebook = script.with_suffix(".ipynb")
    assert cells(script) == cells(notebook)
    for cell in jupytext.read(notebook).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_runs_from_nothing(script: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbconvert")
    before = sorted(script.parent.rglob("*"))
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute"]
    command += [str(script.with_suffix(".ipynb")), "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(script.parent.rglob("*")) == before
    executed = jupytext.read(tmp_path / f"{script.stem}.ipynb")
    assert len(outputs(executed, "image/png")) == 1
    text = "".join(outputs(executed, "text/plain"))
    numbers = re.search(r"mean score: (\S+) with members, (\S+) without", text)
    assert numbers is not None
    assert float(numbers[1]) > float(numbers[2])
