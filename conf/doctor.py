"""`make doctor`: what is installed, what hides what, which devices and data are there."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from skyfold import HOME, PACKAGES, package_folder

DISTRIBUTION = "skyfold"
OPTIONAL = ("dask", "hydra-submitit-launcher", "hydra-optuna-sweeper", "jupytext")


def main() -> None:
    """Print the report; exit with status 1 when something needs attention."""
    problems = _report_python() + _report_versions() + _report_packages()
    _report_devices()
    _report_data()
    for problem in problems:
        _line("PROBLEM", problem)
    if not problems:
        _line("all good", "nothing needs attention")
    sys.exit(1 if problems else 0)


def _report_python() -> list[str]:
    _line("python", f"{platform.python_version()} at {sys.executable}")
    _line("machine", f"{platform.system()} {platform.machine()}")
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return ["Skyfold needs Python 3.11-3.13"]
    return []


def _report_versions() -> list[str]:
    """Print the versions of Skyfold and of what it needs."""
    try:
        needed = metadata.requires(DISTRIBUTION) or []
        _line(DISTRIBUTION, f"{metadata.version(DISTRIBUTION)} (installed)")
    except metadata.PackageNotFoundError:
        _line(DISTRIBUTION, f"not installed, run from the checkout {HOME}")
        needed = ["torch", "lightning", "hydra-core", "omegaconf", "galsim", "astropy"]
    missing = []
    for requirement in needed:
        if "extra ==" in requirement:
            continue
        name = _name(requirement)
        version = _version(name)
        _line(f"  {name}", version or "MISSING")
        if version is None:
            missing.append(f"{name} is not installed: run make install")
    for name in OPTIONAL:
        _line(f"  {name}", _version(name) or "not installed (optional)")
    return missing


def _report_packages() -> list[str]:
    """Print where the four packages come from, and which distributions claim their names."""
    owners = metadata.packages_distributions()
    problems = []
    for name in PACKAGES:
        found = package_folder(name)
        others = sorted(set(owners.get(name, [])) - {DISTRIBUTION})
        if found != HOME / name:
            owner = f" (distribution {', '.join(others)})" if others else ""
            problems.append(f"`{name}` is imported from {found}{owner}, not from {HOME / name}")
        elif others:
            problems.append(f"the distribution {', '.join(others)} installs a package `{name}` too")
        _line(f"package {name}", str(found))
    return problems


def _report_devices() -> None:
    """Print processors and accelerators as torch sees them."""
    _line("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"))
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            _line(f"gpu {index}", torch.cuda.get_device_name(index))
    elif torch.backends.mps.is_available():
        _line("gpu", "Apple MPS")
    else:
        _line("gpu", "none that torch can use; everything runs on the CPU")


def _report_data() -> None:
    """Print which results stand in the working directory, or the command that makes them."""
    for folder, command in (
        ("data/fields/file_data", "python datagen/run.py data_gen=fields"),
        ("data/survey", "python datagen/run.py data_gen=survey"),
        ("outputs/membership/best.ckpt", "python train.py model=membership"),
    ):
        _line(folder, "there" if Path(folder).exists() else f"not there; made by: {command}")


def _name(requirement: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else " " for c in requirement).split()[0]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _line(what: str, text: str) -> None:
    sys.stdout.write(f"{what:28} {text}\n")


if __name__ == "__main__":
    main()
