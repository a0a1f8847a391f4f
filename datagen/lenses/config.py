"""Settings of `data_gen=lenses`; the values stand in `conf/data_gen/lenses.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datagen.checks import check_choice, check_range
from datagen.errors import ConfigError
from datagen.lenses.settings import LensSettings
from datagen.lenses.version import FORMAT_VERSION
from datagen.pipeline import JobSettings

if TYPE_CHECKING:
    from datagen.pipeline import Phase

DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "float64")

__all__ = ["DEVICES", "DTYPES", "LensesConfig"]


@dataclass(frozen=True)
class LensesConfig(JobSettings):
    """Everything that `data_gen=lenses` needs; `nfiles` counts files of images.

    Args:
        n_images_per_file: Images in one file; image k of all files together is of class k % 3.
        device: `cpu` or `cuda`.
        dtype: `float32` or `float64`: in which images are computed; files hold float32.
        lens: The preset.
    """

    n_images_per_file: int
    device: str
    dtype: str
    lens: LensSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("n_images_per_file", self.n_images_per_file, 1, 1_000_000)
        check_choice("device", self.device, DEVICES)
        check_choice("dtype", self.dtype, DTYPES)
        self.lens.resolved()
        if self.device == "cuda" and self.backend != "sequential" and self.n_jobs != 1:
            raise ConfigError(
                f"expected data_gen.n_jobs = 1 with data_gen.device = cuda, but got {self.n_jobs}: "
                "workers would share one GPU",
                value=self.n_jobs,
                allowed=1,
            )

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs."""
        return super().content() | {"format_version": FORMAT_VERSION}

    def key_of(self, name: str) -> str:
        """Return the key of an entry of `content`; `lens` is a group of its own."""
        return name if name == "lens" else super().key_of(name)

    def owned(self) -> list[str]:
        """Return patterns of the images and of their truth."""
        return ["images/lenses_*", "truth/lenses_*"]

    def expected_bytes(self) -> float:
        """Return about the size of images and truth."""
        from datagen.lenses.jobs import expected_bytes

        return expected_bytes(self)

    def build_phases(self) -> list[Phase]:
        """Return one job per file."""
        from datagen.lenses.jobs import build_phases

        return build_phases(self)
