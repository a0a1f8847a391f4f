"""What a user may set in every prediction; the values stand in `conf/predict/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from datagen.errors import ConfigError


@dataclass(frozen=True)
class RunSettings:
    """What every prediction can be told.

    Args:
        cached_data_path: Folder of what is predicted on.
        weight_save_path: Checkpoint of the encoder.
        output_dir: Where the results go.
        batch_size: Inputs of the encoder in one forward pass.
        num_workers: Loader processes of each rank; 0 reads in the main process.
        devices: Number of devices, or a list of their indices.
        accelerator: Lightning's word for the kind of device.
        strategy: Lightning's word for how several devices work together.
        num_nodes: Number of machines.
        precision: Lightning's word, such as 32-true or bf16-mixed.
        n_threads: CPU threads of each rank; fixed because sums depend on it in the last bits.
        overwrite: Make finished results again, and accept other settings than before.
    """

    cached_data_path: str
    weight_save_path: str
    output_dir: str
    batch_size: int
    num_workers: int
    devices: Any
    accelerator: str
    strategy: str
    num_nodes: int
    precision: str
    n_threads: int
    overwrite: bool

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_nodes", "n_threads"):
            at_least(name, getattr(self, name), 1)
        at_least("num_workers", self.num_workers, 0)

    @property
    def batch(self) -> str:
        """What decides how much memory a forward pass needs, as users know it."""
        return f"predict.batch_size = {self.batch_size}"


def at_least(name: str, value: float, least: float) -> None:
    """Raise `ConfigError` if a number is too small."""
    if value < least:
        refuse(f"predict.{name}", value, f"a number >= {least}")


def refuse(name: str, value: object, allowed: str) -> NoReturn:
    """Raise `ConfigError` for a value that is not allowed."""
    raise ConfigError(
        f"expected {name} to be {allowed}, but got {name} = {value}", value=value, allowed=allowed
    )
