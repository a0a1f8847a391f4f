"""File data of the field simulator as batches for the membership encoder."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.fields.format import read_file_data
from datagen.files import content_hash
from encoders.augment import augment, symmetry_of
from encoders.data import (
    FILLER,
    LoaderOptions,
    assign_split,
    check_splits,
    make_loader,
    split_names,
)
from encoders.fields.layout import CLUSTER_KEYS, check_same, layout_of
from encoders.fields.normalize import estimate_background, normalize
from encoders.fields.photometry import source_maps

log = logging.getLogger(__name__)

TASK = "membership"
_COUNTS = ("n_cells", "n_members")
# What flips and turns with a field.
TURNED = ("images", "sources", "redshift_map", "membership", "weight", *CLUSTER_KEYS)
# Memory maps are cheap, but each one counts against the limit of the process.
N_OPEN_FILES = 256


@dataclass(frozen=True)
class FieldFile:
    """What training needs to know of a file datum before it reads images.

    Args:
        path: The file.
        n_fields: Fields in it.
        layout: Common meta values and the image shape.
        config_hash: Settings that the file was made with.
        n_members: Cells with a member, weighted.
        n_cells: All cells, weighted.
    """

    path: Path
    n_fields: int
    layout: dict[str, Any]
    config_hash: str
    n_members: float
    n_cells: float


def index_file(path: Path) -> FieldFile:
    """Read labels and meta of a file datum; the images stay on disk.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged or a key is missing; the message names file and key.
    """
    fields = read_file_data(path)
    if not fields:
        raise DataFormatError(f"expected {path} to hold at least one field, but got none", 0)
    layouts = [layout_of(path, number, datum) for number, datum in enumerate(fields)]
    for number, layout in enumerate(layouts):
        check_same(f"{path}, field {number}", layout, layouts[0], f"{path}, field 0")
    cells = [_cells(datum) for datum in fields]
    return FieldFile(
        path=path,
        n_fields=len(fields),
        layout=layouts[0],
        config_hash=str(fields[0]["meta"].get("config_hash", "")),
        n_members=sum(float((member * weight).sum()) for member, weight in cells),
        n_cells=sum(float(weight.sum()) for _, weight in cells),
    )


def index_folder(data_dir: Path) -> list[FieldFile]:
    """Index all file data below `data_dir/file_data`, in the order of their names.

    Raises:
        DataNotFoundError: There are none; the message gives the command that makes them.
        DataFormatError: A file is damaged or does not fit the others.
    """
    folder = data_dir / "file_data"
    # A killed simulation leaves hidden partial files behind.
    paths = sorted(folder.glob("[!.]*.pt"))
    if not paths:
        raise DataNotFoundError(
            f"expected file data (*.pt) in data.data_dir = {data_dir} below file_data/, but found "
            f"none; make them with: python datagen/run.py data_gen=fields "
            f"data_gen.data_dir={data_dir}",
            str(folder),
        )
    files = [index_file(path) for path in paths]
    for file in files[1:]:
        check_same(str(file.path), file.layout, files[0].layout, str(files[0].path))
    hashes = {file.config_hash for file in files}
    if len(hashes) > 1:
        raise DataFormatError(
            f"expected the file data in {folder} to be made with one set of settings, but got "
            f"{len(hashes)}; make them again with data_gen.overwrite=true, or keep them apart",
            sorted(hashes),
        )
    return files


class MapCache:
    """Source maps in memory, those that come first, as long as they fit.

    Args:
        n_bytes: Memory for all of them [bytes].
    """

    def __init__(self, n_bytes: float) -> None:
        self._n_free = n_bytes
        self._maps: dict[tuple[Path, int], Tensor] = {}

    def get(self, place: tuple[Path, int]) -> Tensor | None:
        """Return the maps of a field (file and number in it), or None if they are not there."""
        return self._maps.get(place)

    def offer(self, place: tuple[Path, int], maps: Tensor) -> None:
        """Keep the maps of a field if they fit."""
        if maps.nbytes <= self._n_free:
            self._n_free -= maps.nbytes
            self._maps[place] = maps


class FieldsDataset(Dataset[dict[str, Any]]):
    """The fields of some files, one sample each, with background and noise measured once.

    The index `FILLER` gives a field with weight 0 (see `encoders.data.OnceSampler`).

    Args:
        files: Indexed files.
        bands: Bands to use, in this order.
        cache: Memory for source maps, which then take the place of the images in a sample;
            None gives images. Datasets may share it if their bands are the same.
    """

    def __init__(
        self, files: Sequence[FieldFile], bands: Sequence[str], cache: MapCache | None = None
    ) -> None:
        self.cache = cache
        self.places = [(file.path, j) for file in files for j in range(file.n_fields)]
        names = list(files[0].layout["bands"]) if files else []
        self.channels = [names.index(band) for band in bands] if files else []
        self._noise: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = 0 if index == FILLER else index
        path, j = self.places[number]
        membership, weight = _cells(_open(path)[j])
        sample = {
            "membership": membership,
            "weight": torch.zeros_like(weight) if index == FILLER else weight,
            "redshift_map": _open(path)[j]["redshift_map"],
            "field": f"{path.name}/{j}",
        }
        cells = _open(path)[j]["tile_catalog"]
        sample |= {key: cells[key][..., 0, 0] for key in CLUSTER_KEYS}
        if self.cache is not None:
            return sample | {"sources": self._measured(number, self.cache)}
        background, sigma = self._levels(number)
        return sample | {
            "images": self._images(number),
            "background": background,
            "sigma": sigma,
        }

    def _images(self, number: int) -> Tensor:
        path, j = self.places[number]
        images: Tensor = _open(path)[j]["images"]
        return images if self.channels == list(range(len(images))) else images[self.channels]

    def _levels(self, number: int) -> tuple[Tensor, Tensor]:
        """Return background and noise per band."""
        if number not in self._noise:
            pairs = torch.tensor([estimate_background(image) for image in self._images(number)])
            self._noise[number] = (pairs[:, 0], pairs[:, 1])
        return self._noise[number]

    def _measured(self, number: int, cache: MapCache) -> Tensor:
        """Return the source maps of a field, from memory if they are there."""
        maps = cache.get(self.places[number])
        if maps is None:
            levels = [level[None] for level in self._levels(number)]
            maps = source_maps(normalize(self._images(number)[None], *levels))[0]
            cache.offer(self.places[number], maps)
        return maps


class FieldsDataModule(LightningDataModule):
    """Train, val and test fields, split by the hash of their file names.

    Args:
        data_dir: Folder with `file_data/`.
        batch_size: Fields per batch and device.
        num_workers: Loader processes per device.
        seed: Seed of splits, shuffling and augmentation.
        splits: Fractions of files by split: train, val, test.
        bands: Bands to use, in this order; None uses those of the files.
        augment: Flip and turn training fields.
        cache_gb: Memory for the source maps of all splits [GB], in each process that loads
            fields; None gives images.
    """

    def __init__(
        self,
        data_dir: str,
        batch_size: int,
        num_workers: int,
        seed: int,
        splits: Mapping[str, float],
        bands: Sequence[str] | None,
        augment: bool,
        cache_gb: float | None,
    ) -> None:
        super().__init__()
        # Logged beside the hyper-parameters of the model.
        self.save_hyperparameters()
        self.data_dir = Path(data_dir)
        self.options = LoaderOptions(batch_size, num_workers, seed, rank=0, world_size=1)
        self.splits = check_splits(splits)
        self.wanted_bands = None if bands is None else list(bands)
        self.is_augmented = augment
        self._cache = None if cache_gb is None else MapCache(cache_gb * 1e9)
        self._datasets: dict[str, FieldsDataset] = {}

    @functools.cached_property
    def files(self) -> list[FieldFile]:
        """All files in the order of their names; read once."""
        return index_folder(self.data_dir)

    @functools.cached_property
    def files_of(self) -> dict[str, list[FieldFile]]:
        """Files by split."""
        by_name = {file.path.name: file for file in self.files}
        names = split_names(list(by_name), self.options.seed, self.splits)
        return {split: [by_name[name] for name in found] for split, found in names.items()}

    @property
    def bands(self) -> list[str]:
        """Bands in the order of the channels.

        Raises:
            ConfigError: The files do not have a band that was asked for.
        """
        there = list(self.files[0].layout["bands"])
        bands = there if self.wanted_bands is None else self.wanted_bands
        if not bands or not set(bands) <= set(there) or len(set(bands)) < len(bands):
            raise ConfigError(
                f"expected data.bands to be a choice of {there}, the bands in {self.data_dir}, "
                f"but got bands = {bands}",
                bands,
                there,
            )
        return bands

    def card(self) -> dict[str, Any]:
        """Describe the data in plain values: what an encoder trained on them is for.

        Raises:
            ConfigError: No training cell holds a member.
        """
        layout, train = self.files[0].layout, self.files_of["train"]
        n_cells, n_members = (sum(getattr(f, key) for f in train) for key in _COUNTS)
        if not n_members:
            raise ConfigError(
                f"expected training cells with members, but none of the {n_cells:.0f} cells in "
                f"{self.data_dir} that are to train has one; make more fields (data_gen.nfiles), "
                "or others (data_gen.prior.cluster_fraction, data_gen.prior.centre_margin_px)",
                n_members,
            )
        return {
            "task": TASK,
            "bands": self.bands,
            "pixel_scale": float(layout["pixel_scale"]),
            "zero_point": float(layout["zero_point"]),
            "cell_px": int(layout["cell_px"]),
            "data_hash": self.data_hash(self.options.seed, self.splits),
            "prevalence": n_members / n_cells,
            "splits": dict(self.splits),
            "split_seed": self.options.seed,
        }

    def data_hash(self, seed: int, splits: Mapping[str, float]) -> str:
        """Identify the files that train with some seed and fractions of splits."""
        train = {file.path.name: file for file in self.files
                 if assign_split(file.path.name, seed, splits) == "train"}  # fmt: skip
        return content_hash(
            {name: [file.config_hash, file.path.stat().st_size] for name, file in train.items()}
        )

    def dataset(self, split: str) -> FieldsDataset:
        """Return the fields of a split: train, val or test."""
        if split not in self._datasets:
            files = self.files_of[split]
            self._datasets[split] = FieldsDataset(files, self.bands, self._cache)
        return self._datasets[split]

    def images(self, split: str) -> FieldsDataset:
        """Return the fields of a split with their images, to look at; most members first."""
        files = sorted(self.files_of[split], key=lambda file: -file.n_members)
        return FieldsDataset(files, self.bands)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled training fields."""
        return make_loader(self.dataset("train"), self._placed_options(), shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return validation fields in order."""
        return make_loader(self.dataset("val"), self._placed_options(), shuffle=False)

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Return test fields in order, or nothing if their fraction is 0."""
        if not self.files_of["test"]:
            return []
        return make_loader(self.dataset("test"), self._placed_options(), shuffle=False)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Flip and turn training fields with their cells, on the device."""
        trainer = self.trainer
        if trainer is None or not trainer.training or not self.is_augmented:
            return batch
        epoch = trainer.current_epoch
        symmetries = [symmetry_of(self.options.seed, epoch, name) for name in batch["field"]]
        keys = [key for key in TURNED if key in batch]
        turned = augment([batch[key] for key in keys], symmetries)
        return batch | dict(zip(keys, turned, strict=True))

    def _placed_options(self) -> LoaderOptions:
        trainer, own = self.trainer, self.options
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return LoaderOptions(own.batch_size, own.num_workers, own.seed, rank, world_size)


@functools.lru_cache(maxsize=N_OPEN_FILES)
def _open(path: Path) -> list[dict[str, Any]]:
    return read_file_data(path)


def _cells(datum: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return labels and weights of the cells (ny, nx); without weights every cell counts."""
    membership = datum["tile_catalog"]["membership"][..., 0, 0].float()
    weight = datum["tile_catalog"].get("cell_weight")
    return membership, torch.ones_like(membership) if weight is None else weight[..., 0, 0]
