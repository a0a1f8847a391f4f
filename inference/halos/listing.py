"""How sets of maps are found."""

from __future__ import annotations

from datagen.halos.format import COMMAND, is_dataset, map_files, truth_of
from inference.stack_parts import StackKind

MAPS = StackKind("maps", "set", f"{COMMAND} halo={{}}", "a", is_dataset, map_files, truth_of)
