"""Entry point: `python datagen/validate.py data/fields` checks every file of a data folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python put this folder first; its modules would hide packages of the same name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from datagen.errors import SkyfoldError


def main(arguments: list[str] | None = None) -> None:
    """Run `skyfold-validate`: one summary line and status 0, or the first error and status 2."""
    parser = argparse.ArgumentParser(
        prog="skyfold-validate", description="Check every file that datagen wrote to a folder."
    )
    parser.add_argument("folder", type=Path, help="data folder of any data_gen")
    folder = parser.parse_args(arguments).folder
    try:
        summary = _checked(folder)
    except SkyfoldError as error:
        sys.stderr.write(f"skyfold: {error}\n")
        sys.exit(2)
    sys.stdout.write(f"OK: {summary}\n")


def _checked(folder: Path) -> str:
    """Check a folder with the validator of the simulator that wrote it."""
    from datagen.lenses.validate import holds_lenses, validate_lenses

    if holds_lenses(folder):
        return validate_lenses(folder)
    from datagen.halos.format import is_dataset

    if is_dataset(folder):
        from datagen.halos.validate import validate_halos

        return validate_halos(folder)
    from datagen.galaxies.format import holds_labels

    if holds_labels(folder):
        from datagen.galaxies.validate import validate_galaxies

        return validate_galaxies(folder)
    from datagen.stamps import format as stamps

    if stamps.is_dataset(folder):
        from datagen.stamps.validate import validate_stamps

        return validate_stamps(folder)
    from datagen.prepared.format import prepared_path

    if prepared_path(folder).is_file():
        from datagen.prepared.validate import validate_prepared

        return validate_prepared(folder)
    from datagen.fields.validate import validate_folder

    return validate_folder(folder)


if __name__ == "__main__":
    main()
