"""Settings of `data_gen=stamps`; the values stand in `conf/data_gen/stamps.yaml`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datagen.checks import check_range, check_subset
from datagen.errors import ConfigError
from datagen.pipeline import JobSettings
from datagen.stamps.settings import SuiteSettings
from datagen.stamps.version import FORMAT_VERSION

if TYPE_CHECKING:
    from datagen.pipeline import Phase

__all__ = ["ImageSettings", "StampsConfig"]


@dataclass
class ImageSettings:
    """What all stamps of a run have in common; whatever comes later reads it from their files.

    Args:
        bands: Planes of a stamp; None: the bands of the suites, which then have to agree.
        store_px: Side of a stamp [px].
        same_scale: Whether suites that are cut by fractions must end with one pixel scale.
    """

    bands: list[str] | None
    store_px: int
    same_scale: bool


@dataclass(frozen=True)
class StampsConfig(JobSettings):
    """Everything that `data_gen=stamps` needs; `nfiles` is the largest number of files of a suite.

    Args:
        suites: Name -> suite.
        image: What all stamps have in common.
        n_stamps_per_file: Images that go into one file; those that are dropped leave no gap.
    """

    suites: dict[str, SuiteSettings]
    image: ImageSettings
    n_stamps_per_file: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.suites:
            raise ConfigError("expected suite to name a suite, such as suite=[a,obs]", {})
        check_range("data_gen.image.store_px", self.image.store_px, 8, 4096)
        check_range("data_gen.n_stamps_per_file", self.n_stamps_per_file, 1, 1_000_000)
        for name, suite in self.suites.items():
            if name != suite.name:
                raise ConfigError(
                    f"expected suites.{name}.name to be {name}, but got {suite.name}", suite.name
                )
        self._check_bands()

    def _check_bands(self) -> None:
        first, *others = self.suites.values()
        if self.image.bands is not None:
            for suite in self.suites.values():
                where = f"data_gen.image.bands, with suite {suite.name}"
                check_subset(where, self.image.bands, list(suite.bands))
            return
        for suite in others:
            if list(suite.bands) != list(first.bands):
                raise ConfigError(
                    f"expected suites of one run to have the same bands, but got "
                    f"{first.name}: {', '.join(first.bands)}, and {suite.name}: "
                    f"{', '.join(suite.bands)}; name those that all have in data_gen.image.bands",
                    list(suite.bands),
                    list(first.bands),
                )

    @property
    def suite(self) -> SuiteSettings:
        """The only suite of a part."""
        (suite,) = self.suites.values()
        return suite

    @property
    def bands(self) -> list[str]:
        """Planes of a stamp, in their order."""
        return list(self.image.bands or next(iter(self.suites.values())).bands)

    def parts(self) -> list[StampsConfig]:
        """Return one run per suite, each with a folder of its own.

        A suite so is made again only where its own settings or files change.

        Raises:
            DataNotFoundError: A suite has no images.
            DataFormatError: None of its first images can be read, or suites differ in pixel scale.
        """
        from datagen.stamps.plan import check_suites

        image = dataclasses.replace(self.image, bands=self.bands)
        parts = [
            dataclasses.replace(
                self, suites={name: suite}, image=image, data_dir=str(Path(self.data_dir) / name)
            )
            for name, suite in self.suites.items()
        ]
        check_suites(parts)
        return parts

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs."""
        content = super().content()
        suites = {name: {k: v for k, v in suite.items() if k != "folder"}
                  for name, suite in content["suites"].items()}  # fmt: skip
        return content | {"suites": suites, "format_version": FORMAT_VERSION}

    def owned(self) -> list[str]:
        """Return patterns of the stamps, their truth and the report."""
        return ["stamps/stamps_*", "truth/stamps_*", "report.json", "drops.ecsv"]

    def build_phases(self) -> list[Phase]:
        """Return one job per file, and one that writes the report."""
        from datagen.stamps.jobs import build_phases

        return build_phases(self)
