"""The command line: quick answers, typed errors in one line, exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from conf import doctor, entry
from datagen.errors import SkyfoldError
from tests.conftest import ENTRIES, Command

HEAVY = ("torch", "lightning", "galsim", "astropy", "matplotlib", "scipy")


def call(root: Path, script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


def assert_quick(root: Path, folder: Path, name: str, lines: str, first: Path) -> None:
    """Make sure that help and `--cfg job` answer without heavy imports, in one new process.

    Args:
        root: The checkout.
        folder: Where the process runs, an empty folder.
        name: Name of the entry point.
        lines: Statement that starts it.
        first: What Python puts first on its path.
    """
    code = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(first)!r})\n"
        "for flag in ('--help', '--cfg=job'):\n"
        f"    sys.argv = [{str(root / ENTRIES[name])!r}, *flag.split('=')]\n"
        f"    {lines}\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.stderr.write('HEAVY ' + ' '.join(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == "HEAVY "
    assert "usage: " in done.stdout
    assert "\ntask_name: " in done.stdout
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ENTRIES)
def test_quick_answers_import_nothing_heavy(root: Path, tmp_path: Path, name: str) -> None:
    script = root / ENTRIES[name]
    start = f"runpy.run_path({str(script)!r}, run_name='__main__')"
    assert_quick(root, tmp_path, name, start, script.parent)


@pytest.mark.parametrize("name", ENTRIES)
def test_quick_answers_of_installed_commands(root: Path, tmp_path: Path, name: str) -> None:
    assert_quick(root, tmp_path, name, f"import skyfold; skyfold.{name}()", root)


def test_help_lists_groups_with_their_choices(root: Path, tmp_path: Path) -> None:
    said = call(root, "train.py", "model=none", "--help", cwd=tmp_path).stdout
    assert said.startswith("Trains an encoder.\n\nusage: train.py [group=choice ...]")
    assert "model       membership       of byol, compact_convnext, compact_e2cnn, " in said
    assert "lens        fair (data=lenses_online) of fair, " in said
    assert "logger      tensorboard      of csv, none, tensorboard\n" in said
    said = call(root, "datagen/run.py", "--help", cwd=tmp_path).stdout
    assert "survey      des_dr2 (data_gen=tiles) of decam_exposures, des_dr2, generic" in said
    assert "suite       a (data_gen=stamps) of a, a2, b, c, clusters, decam_exposures" in said


@pytest.mark.parametrize(
    ("name", "arguments", "status", "message"),
    [
        ("datagen", ["data_gen.nfile=3"], 1, "Key 'nfile' is not in struct"),
        ("datagen", ["data_gen.nfile=3"], 1, "did you mean data_gen.nfiles\n"),
        ("train", ["modle=e2cnn"], 1, "did you mean model\n"),
        ("evaluate", ["evaluate.x=3"], 1, "keys are evaluate."),
        ("datagen", ["+data_gen.nfile=3"], 2, "data_gen.nfile: Key 'nfile' not in 'FieldsConfig'"),
        ("datagen", ["+nfiles=3"], 2, "unknown key 'nfiles'; the keys here are task_name, paths"),
        ("datagen", ["data_gen.nfiles=-3"], 2, "data_gen.nfiles to be an integer >= 1, but got -3"),
        ("datagen", ["data_gen.nfiles=many"], 2, "data_gen.nfiles: Value 'many' of type 'str'"),
        ("datagen", ["data_gen=field"], 1, "Could not find 'data_gen/field'"),
        ("datagen", ["data_gen.tile_size=300"], 2, "tile_size"),
        ("datagen", ["data_gen=tiles"], 2, "data_gen.tiles_dir = data/survey is not a folder"),
        (
            "datagen",
            ["data_gen=tiles", "survey.units=Jy"],
            2,
            "survey.units to be counts, counts_p",
        ),
        ("datagen", ["data_gen=tiles", "survey.align=so"], 2, "survey.align: Value 'so' is not a"),
        ("datagen", ["data_gen.bands=[g,q]"], 2, "out of g, r, i, z, but got bands = [g, q]"),
        ("train", ["model.networks=1"], 1, "Key 'networks' is not in struct"),
        ("train", ["+data.colour=1"], 2, "unexpected keyword argument 'colour'"),
        ("train", [], 2, "python datagen/run.py"),
        ("predict", ["predict.batchsize=3"], 1, "Key 'batchsize' is not in struct"),
        ("predict", [], 2, "python train.py"),
        ("evaluate", ["evaluate.radius=3"], 1, "Key 'radius' is not in struct"),
    ],
)
def test_a_wrong_command_gets_one_clear_message(
    command: Command, name: str, arguments: list[str], status: int, message: str
) -> None:
    ended = command(name, *arguments)
    assert ended.status == status, ended.errors
    assert message in ended.errors
    assert "Traceback" not in ended.errors


def test_a_wrong_command_ends_its_process(root: Path, tmp_path: Path) -> None:
    done = call(root, ENTRIES["train"], "+trainers=1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("skyfold: unknown key 'trainers'; the keys here are task_name")
    assert done.stderr.count("\n") == 1


def test_doctor_reports_versions_packages_devices_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    for expected in ("torch", "galsim", "package conf", "cores", "gpu", "python train.py"):
        assert expected in said


COMMANDS = ("datagen", "train", "predict", "evaluate", "validate", "doctor")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *(("conf", command) for command in COMMANDS),
        *zip(("datagen", "encoders", "inference", "datagen", "datagen"), COMMANDS, strict=False),
    ],
)
def test_an_installed_command_names_what_hides_a_package(
    root: Path, tmp_path: Path, name: str, command: str
) -> None:
    done = installed(root, tmp_path, name, command)
    assert done.returncode == 2
    assert done.stderr.startswith(f"skyfold: the package `{name}` is imported from {tmp_path}")
    assert f"which hides ours at {root / name}" in done.stderr
    assert done.stderr.endswith("(`make doctor` tells more)\n")
    assert done.stderr.count("\n") == 1


def test_doctor_itself_reports_a_hidden_package(root: Path, tmp_path: Path) -> None:
    done = installed(root, tmp_path, "datagen", "doctor")
    assert done.returncode == 1
    assert f"PROBLEM                      `datagen` is imported from {tmp_path}" in done.stdout


def installed(
    root: Path, folder: Path, hidden: str, command: str
) -> subprocess.CompletedProcess[str]:
    """Run what the script of an installed command runs, where one of our packages is hidden."""
    (folder / hidden).mkdir()
    (folder / hidden / "__init__.py").write_text("")
    return subprocess.run(
        [sys.executable, "-c", f"from skyfold import {command}; {command}()"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{root}"},
    )


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("data_gen.data_dir=file/fields", "cannot write file/fields/settings.json"),
        ("paths.log_dir=file/logs", "cannot write file/logs/datagen/runs/"),
    ],
)
def test_an_output_folder_that_cannot_be_is_one_line(
    command: Command, tmp_path: Path, override: str, start: str
) -> None:
    (tmp_path / "file").write_text("")
    ended = command("datagen", override)
    assert ended.status == 2
    assert ended.errors.startswith(f"skyfold: {start}")
    reason = ": a part of the path is a file; free it or choose another folder\n"
    assert ended.errors.endswith(reason)
    assert ended.errors.count("\n") == 1


def test_slurm_is_missed_in_one_line(root: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(root / "inference" / "predict.py"), "launcher=slurm"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("skyfold: expected launcher=slurm on a machine with SLURM")
    assert done.stderr.count("\n") == 1


def test_a_job_of_a_sweep_that_failed_does_not_end_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exit would: Hydra and its launchers expect exceptions."""
    monkeypatch.setattr(entry.schema, "check_root", lambda cfg: None)
    mode = SimpleNamespace(mode=RunMode.MULTIRUN)
    monkeypatch.setattr(entry.HydraConfig, "get", lambda: mode)
    with pytest.raises(SkyfoldError, match="the job ended with status 3; its log says why"):
        entry._guarded(lambda cfg: 3, OmegaConf.create())
    mode.mode = RunMode.RUN
    with pytest.raises(SystemExit) as ended:
        entry._guarded(lambda cfg: 3, OmegaConf.create())
    assert ended.value.code == 3
