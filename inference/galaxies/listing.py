"""How suites of stamps are found."""

from __future__ import annotations

from datagen.stamps.format import COMMAND, is_dataset, stamp_files, truth_of
from inference.stack_parts import StackKind

STAMPS = StackKind(
    "stamps", "suite", f"{COMMAND} 'suite=[{{}}]'", "a", is_dataset, stamp_files, truth_of
)
