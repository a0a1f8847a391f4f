"""Pictures of stamps and embeddings, and the files of TensorBoard's projector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import AxesImage
from PIL import Image
from sklearn.decomposition import PCA
from tensorboard.plugins.projector import projector_plugin

from encoders.galaxies import pictures
from encoders.galaxies.projector import tiled, write_projector
from encoders.pictures import png

SIZE = (5, 4)


def one_band(n_bands: int, band: int, level: float) -> Any:  # noqa: ANN401
    """A stamp that is bright in one of its bands."""
    stamps = np.full((1, n_bands, *SIZE), pictures.BLACK, np.float32)
    stamps[:, band] = level
    return stamps


def test_colours_go_by_wavelength() -> None:
    for bands, red in (("gri", 2), ("irg", 0), (("hsc.g", "hsc.r", "hsc.y"), 2), ("abc", 2)):
        found = pictures.rgb(one_band(3, red, pictures.WHITE), list(bands))
        assert found.shape == (1, *SIZE, 3)
        np.testing.assert_allclose(found, np.broadcast_to([1.0, 0.0, 0.0], found.shape), atol=1e-6)


def test_other_numbers_of_bands_are_spread_over_the_colours() -> None:
    def colours(bands: str) -> Any:  # noqa: ANN401
        return [pictures.rgb(one_band(len(bands), k, pictures.WHITE), list(bands))[0, 0, 0]
                for k in range(len(bands))]  # fmt: skip

    np.testing.assert_allclose(colours("r"), [[1, 1, 1]])
    np.testing.assert_allclose(colours("gi"), [[0, 0.5, 1], [1, 0.5, 0]], atol=1e-6)
    five = np.array(colours("grizy"))
    # White stays white, colours are in order, and no band is left out.
    np.testing.assert_allclose(five.sum(axis=0), 1.0, rtol=1e-6)
    assert five[:, 0].argmax() == 4
    assert five[:, 1].argmax() == 2
    assert five[:, 2].argmax() == 0
    assert (five.sum(axis=1) > 0.2).all()


def test_limits_are_the_same_for_all_stamps() -> None:
    middle = 0.5 * (pictures.BLACK + pictures.WHITE)
    levels = np.array([-9.0, pictures.BLACK, middle, 99.0, np.nan, np.inf, -np.inf], np.float32)
    stamps = np.broadcast_to(levels[:, None, None, None], (len(levels), 3, *SIZE))
    found = pictures.rgb(stamps, ["g", "r", "i"])[:, 0, 0, 0]
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 0, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(pictures.rgb(stamps[2:3], ["g", "r", "i"])[:, 0, 0, 0], found[2])


def test_principal_components_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + 4.0
    places, shares = pictures.principal_components(rows, 3)
    other = PCA(3).fit(rows)
    np.testing.assert_allclose(np.abs(places), np.abs(other.transform(rows)), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(shares, other.explained_variance_ratio_, rtol=1e-8)
    # Of each axis the largest coefficient is positive, whatever the rows' order.
    away = rows - rows.mean(axis=0)
    axes = np.linalg.lstsq(away, places, rcond=None)[0]
    assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()
    np.testing.assert_allclose(pictures.principal_components(rows[::-1], 3)[0], places[::-1])


def test_fewer_dimensions_than_components() -> None:
    places, shares = pictures.principal_components(np.arange(6.0)[:, None], 2)
    np.testing.assert_allclose(places, np.stack((np.arange(6.0) - 2.5, np.zeros(6)), axis=1))
    np.testing.assert_allclose(shares, [1.0, 0.0])
    places, shares = pictures.principal_components(np.ones((4, 3)), 2)
    assert not places.any()
    assert not shares.any()


def test_strips_show_neighbours_that_are_there() -> None:
    rng = np.random.default_rng(0)
    queries = rng.random((2, *SIZE, 3), np.float32)
    neighbours = rng.random((2, 3, *SIZE, 3), np.float32)
    distances = np.array([[0.5, 1.0, np.inf], [np.inf, np.inf, np.inf]])
    figure = pictures.draw_strips(queries, neighbours, distances, ["a/84/1/0", "a/84/2/0"])
    (axes,) = figure.axes
    shown = [np.asarray(image.get_array()) for image in axes.get_images()]
    expected = [queries[0], neighbours[0, 0], neighbours[0, 1], queries[1]]
    for image, stamp in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(image[::-1], stamp)
    texts = {text.get_text() for text in axes.texts}
    assert {"a/84/1/0", "0.50", "1.00", "a/84/2/0"} <= texts
    assert len(axes.patches) == 2
    assert png(figure) == png(figure)


def test_views_stand_beside_their_stamps() -> None:
    rng = np.random.default_rng(0)
    plain = rng.random((2, *SIZE, 3), np.float32)
    views = rng.random((3, 2, *SIZE, 3), np.float32)
    figure = pictures.draw_views(plain, views, ["one", "two"])
    images: list[AxesImage] = figure.axes[0].get_images()
    assert len(images) == 8
    np.testing.assert_array_equal(np.asarray(images[6].get_array())[::-1], views[1, 1])
    left, right, *_ = images[6].get_extent()
    assert right - left == pytest.approx(1.0)


def test_a_map_for_each_label() -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(40, 5)), rng.normal(size=(40, 3))
    labels[:10, 0], labels[:, 1] = np.nan, np.nan
    figure = pictures.draw_pca(embeddings, labels, ["sfr", "age", "bt"], {"sfr": "Msun / yr"})
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["sfr [Msun / yr]", "bt"]
    coloured = [sum(len(points.get_offsets()) for points in axes.collections) for axes in panels]  # type: ignore[arg-type]
    assert coloured == [30, 40]
    assert len(pictures.draw_pca(embeddings, labels[:, :0], [], {}).axes) == 1
    constant = np.full_like(labels[:, :1], 8.0)
    assert len(pictures.draw_pca(embeddings, constant, ["window"], {}).axes) == 1


def test_tensorboard_reads_the_projector(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(5, 4)).astype(np.float32)
    sprites = rng.random((5, 3, 2, 3), np.float32)
    columns = {"name": ["a/84/1/0", "b\tc", "d", "e", "f"], "z": [0.1, np.nan, 0.3, 0.4, 0.5]}
    # What was there before is replaced.
    for n in (2, 5):
        known = {name: values[:n] for name, values in columns.items()}
        write_projector(tmp_path, embeddings[:n], sprites[:n], known)  # type: ignore[arg-type]

    class Context:
        logdir, data_provider = str(tmp_path), None

    plugin = projector_plugin.ProjectorPlugin(Context())
    found = plugin._read_latest_config_files([("run", str(tmp_path))])
    plugin._configs, plugin.config_fpaths = found
    (entry,) = plugin._configs["run"].embeddings
    assert list(entry.sprite.single_image_dim) == [2, 3]
    plugin._augment_configs_with_checkpoint_info()
    assert list(entry.tensor_shape) == [5, 4]
    read = projector_plugin._read_tensor_tsv_file(str(tmp_path / entry.tensor_path))
    np.testing.assert_allclose(read, embeddings, rtol=1e-6)
    lines = (tmp_path / entry.metadata_path).read_text().splitlines()
    assert lines == ["name\tz", "a/84/1/0\t0.1", "b c\t", "d\t0.3", "e\t0.4", "f\t0.5"]
    with Image.open(tmp_path / entry.sprite.image_path) as image:
        assert image.size == (3 * 2, 3 * 3)
        pixels = np.asarray(image) / 255.0
    # The fifth one is the second of the second row.
    np.testing.assert_allclose(pixels[3:6, 2:4][::-1], sprites[4], atol=0.5 / 255.0 + 1e-6)
    assert not pixels[6:].any()
    assert tiled(sprites[:1]).shape == (3, 2, 3)
