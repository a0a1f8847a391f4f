"""`data_gen=halos_pickles`: public simulation pickles become maps and truth, bad ones are named."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datagen import pipeline
from datagen.errors import DataFormatError
from datagen.files import read_json, sha256_file
from datagen.halos import format as files
from datagen.halos.pickle_labels import STRIDE
from datagen.halos.pickles import convert, physical_maps, read_simulation, truth_columns
from datagen.halos.pickles_config import HalosPicklesConfig
from datagen.halos.validate import validate_halos
from tests.datagen.halos.test_unpickling import Calls

N, SIDE = 6, 8


def content(seed: int = 0, n_channels: int = 3, **changes: Any) -> tuple[dict[str, Any], Any]:  # noqa: ANN401
    """Return labels and maps as public pickles hold them: three projections of two clusters."""
    rng = np.random.default_rng(seed)
    maps = rng.lognormal(3.0, 1.0, (N, n_channels, SIDE, SIDE))
    norms = maps.max(axis=(2, 3))
    galaxies = np.empty(N, object)
    galaxies[:] = [rng.normal(size=(k + 1, 3)) for k in range(N)]
    labels = {
        "label": np.full(N, 0.1),
        "norms": norms,
        "name": "BAHAMAS-0.1",
        "mass": np.repeat([5e14, 8e14], 3),
        "redshift": np.full(N, 0.25),
        "projection": np.tile([0, 1, 2], 2),
        "BCG_e1": rng.normal(size=N),
        "BCG_e2": rng.normal(size=N),
        "galaxy_catalogues": galaxies,
        "clusterID": np.repeat([7.0, 3.0], 3),
    }
    labels |= changes
    kept = {name: label for name, label in labels.items() if label is not None}
    return kept, maps / norms[:, :, None, None]


def save(path: Path, pair: object) -> Path:
    path.write_bytes(pickle.dumps(pair))
    return path


def test_maps_and_truth_are_those_of_the_pickle(config: HalosPicklesConfig, tmp_path: Path) -> None:
    labels, images = content()
    save(tmp_path / "pickles" / "bahamas_0.1.pkl", (labels, images))
    assert pipeline.run(config) == {"made": 1, "skipped": 0}
    (path,) = files.map_files(tmp_path / "bahamas")
    maps, truth = files.read_maps(path), files.read_truth(files.truth_of(path))
    expected = np.random.default_rng(0).lognormal(3.0, 1.0, (N, 3, SIDE, SIDE))
    np.testing.assert_allclose(maps, expected, rtol=2e-7)
    assert truth["INDEX"].tolist() == list(range(N))
    assert truth["CLUSTER"].tolist() == [7, 7, 7, 3, 3, 3]
    assert truth["PROJECTION"].tolist() == [0, 1, 2] * 2
    np.testing.assert_array_equal(truth["CROSS_SECTION"], 0.1)
    np.testing.assert_array_equal(truth["M200"], labels["mass"])
    np.testing.assert_array_equal(truth["BCG_E2"], labels["BCG_e2"])
    assert (truth["M200"].unit, truth["CROSS_SECTION"].unit) == ("Msun", "cm2 g-1")
    header = {"SUITE": "bahamas", "CHANNELS": "mass,xray,stars", "UNIT_0": "Msun kpc-2"}
    header |= {"SIDE": SIDE, "PIXSCALE": 20.0, "DEPTH": 1e4, "ENGINE": "pickle"}
    header |= {"SOURCE": "bahamas_0.1.pkl", "NAME": "BAHAMAS-0.1"}
    assert {key: truth.meta[key] for key in header} == header


def test_jobs_are_idempotent_and_follow_the_pickles(
    config: HalosPicklesConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "pickles"
    for number, name in enumerate(("a", "b", "c")):
        save(folder / f"{name}.pkl", content(number, label=0.1 * number))
    assert pipeline.run(config) == {"made": 3, "skipped": 0}
    truth = [files.read_truth(files.truth_path(tmp_path / "bahamas", k)) for k in range(3)]
    assert truth[2]["INDEX"].tolist() == list(range(2 * STRIDE, 2 * STRIDE + N))
    # Given names of clusters hold through a suite.
    assert truth[2]["CLUSTER"].tolist() == truth[0]["CLUSTER"].tolist()
    assert validate_halos(tmp_path / "bahamas").startswith("3 files of maps (6 of sigma/m 0, 6 of")
    made = {p: sha256_file(p) for p in sorted((tmp_path / "bahamas").rglob("halos_*"))}
    assert pipeline.run(config) == {"made": 0, "skipped": 3}
    # A pickle that changes is converted again, the others are not.
    save(folder / "b.pkl", content(9))
    assert pipeline.run(config) == {"made": 1, "skipped": 2}
    changed = [p for p in made if sha256_file(p) != made[p]]
    assert {p.stem for p in changed} == {"halos_000001"}
    # A pickle that goes leaves nothing behind.
    (folder / "c.pkl").unlink()
    assert pipeline.run(config) == {"made": 0, "skipped": 2}
    assert len(files.map_files(tmp_path / "bahamas")) == 2
    for part in range(2):
        shard = dataclasses.replace(config, data_dir=str(tmp_path / "shards"), shard=[part, 2])
        pipeline.run(shard)
    for path in files.map_files(tmp_path / "bahamas"):
        twin = tmp_path / "shards" / "maps" / path.name
        assert sha256_file(path) == sha256_file(twin)
        assert sha256_file(files.truth_of(path)) == sha256_file(files.truth_of(twin))


def test_a_bad_pickle_stops_no_other(
    config: HalosPicklesConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import os

    folder = tmp_path / "pickles"
    save(folder / "a.pkl", ({"label": Calls(os.system, f"touch {tmp_path}/ran")}, np.ones(3)))
    save(folder / "b.pkl", content())
    assert pipeline.run(config) == {"made": 1, "skipped": 0, "failed": 1}
    assert "a.pkl is refused: it asks for posix.system" in caplog.text
    failed = read_json(tmp_path / "bahamas" / "failed-0of1.json")
    assert list(failed) == ["pickle a.pkl"]
    assert not (tmp_path / "ran").exists()
    assert [path.stem for path in files.map_files(tmp_path / "bahamas")] == ["halos_000001"]


def test_channels_last_and_the_other_order_are_read(tmp_path: Path) -> None:
    labels, images = content()
    first = read_simulation(save(tmp_path / "a.pkl", (labels, images)))
    last = read_simulation(save(tmp_path / "b.pkl", [np.moveaxis(images, 1, -1), labels]))
    np.testing.assert_array_equal(first.images, images)
    np.testing.assert_array_equal(last.images, images)


def test_planes_norms_and_factors(config: HalosPicklesConfig, tmp_path: Path) -> None:
    labels, images = content(n_channels=4)
    simulation = read_simulation(save(tmp_path / "a.pkl", (labels, images)))
    physical = images * labels["norms"][:, :, None, None]
    np.testing.assert_allclose(physical_maps(simulation, config), physical[:, [0, 2, 3]], rtol=2e-7)
    some = dataclasses.replace(
        config,
        channels=["stars", "mass"],
        planes={4: [3, 0]},
        norms="ignore",
        factors={"stars": 2.0, "mass": 0.5},
        units={"stars": "Msun kpc-2", "mass": "Msun kpc-2"},
    )
    maps = physical_maps(simulation, some)
    np.testing.assert_allclose(maps[:, 0], 2.0 * images[:, 3], rtol=2e-7)
    np.testing.assert_allclose(maps[:, 1], 0.5 * images[:, 0], rtol=2e-7)


def test_one_value_holds_for_all_maps(config: HalosPicklesConfig, tmp_path: Path) -> None:
    for label in (0.3, [0.3], np.float64(0.3), np.array([0.3]), [0.3] * N):
        simulation = read_simulation(save(tmp_path / "a.pkl", content(label=label)))
        np.testing.assert_array_equal(truth_columns(simulation, config, 0)["CROSS_SECTION"], 0.3)
    simulation = read_simulation(save(tmp_path / "a.pkl", content(label=np.nan)))
    assert np.isnan(truth_columns(simulation, config, 0)["CROSS_SECTION"]).all()


def test_clusters_without_names_are_told_apart_by_mass_and_redshift(
    config: HalosPicklesConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mass = np.array([8e14, 5e14, 8e14, 5e14, 8e14, 5e14])
    redshift = np.array([0.25, 0.25, 0.25, 0.25, 0.375, 0.25])
    changes = {"clusterID": None, "projection": None, "mass": mass, "redshift": redshift}
    simulation = read_simulation(save(tmp_path / "a.pkl", content(**changes)))
    columns = truth_columns(simulation, config, 2)
    cluster = columns["CLUSTER"] - 2 * STRIDE
    assert cluster.tolist() == [0, 1, 0, 1, 2, 1]
    assert columns["PROJECTION"].tolist() == [0, 0, 1, 1, 0, 2]
    assert "a.pkl has no label clusterID: its 6 maps show 3 clusters, told apart" in caplog.text
    assert "data_gen.match=order can match them" in caplog.text
    named = read_simulation(save(tmp_path / "a.pkl", content(projection=list("zyxzyx"))))
    assert truth_columns(named, config, 0)["PROJECTION"].tolist() == [2, 1, 0] * 2


def converted(config: HalosPicklesConfig, **pickles: Any) -> list[Any]:  # noqa: ANN401
    """Return the truth of pickles by name, with other labels than usual."""
    for name, changes in sorted(pickles.items()):
        save(Path(config.pickles_dir) / f"{name}.pkl", content(**changes))
    pipeline.run(config)
    paths = [files.truth_path(Path(config.data_dir), k) for k in range(len(pickles))]
    return [files.read_truth(path) for path in paths]


def test_unmatched_halos_are_told_in_the_header(config: HalosPicklesConfig) -> None:
    """The same two halos, under another cross-section, have other masses."""
    heavier = np.repeat([5.1e14, 7.9e14], 3)
    truths = converted(
        config, a={"clusterID": None}, b={"clusterID": None, "mass": heavier}, c={"label": 0.3}
    )
    assert [truth.meta["MATCHED"] for truth in truths] == [False, False, True]
    assert not set(truths[0]["CLUSTER"]) & set(truths[1]["CLUSTER"])


def test_halos_are_matched_by_their_order(
    config: HalosPicklesConfig, caplog: pytest.LogCaptureFixture
) -> None:
    by_order = dataclasses.replace(config, match="order")
    heavier = {"mass": np.repeat([5.1e14, 7.9e14], 3), "label": 1.0}
    truths = converted(by_order, a={"clusterID": None}, b=heavier | {"clusterID": None})
    assert [truth["CLUSTER"].tolist() for truth in truths] == [[0, 0, 0, 1, 1, 1]] * 2
    assert all(truth.meta["MATCHED"] is True for truth in truths)
    assert not caplog.records
    snapshots = {"redshift": np.tile([0.25, 0.375], 3), "clusterID": None}
    simulation = read_simulation(save(Path(config.pickles_dir) / "c.pkl", content(**snapshots)))
    truth_columns(simulation, by_order, 0)
    assert "c.pkl has 2 redshifts: data_gen.match=order takes a halo in another" in caplog.text


def test_halos_are_matched_by_several_labels(config: HalosPicklesConfig) -> None:
    by_labels = dataclasses.replace(config, cluster_labels=["region", "halo"])
    halos = {"region": ["n", "n", "s", "s", "s", "n"], "halo": np.array([1, 1, 1, 1, 2, 2])}
    turned = {name: list(values)[::-1] for name, values in halos.items()}
    one, other = converted(by_labels, a=halos, b=turned | {"label": 1.0, "mass": 1e14})
    assert len(set(one["CLUSTER"])) == 4
    assert one["CLUSTER"][0] == one["CLUSTER"][1] != one["CLUSTER"][2]
    assert one["CLUSTER"].tolist() == other["CLUSTER"].tolist()[::-1]
    assert one["CLUSTER"].min() >= 0
    assert one.meta["MATCHED"] is True
    by_name = dataclasses.replace(config, cluster_labels=["region"])
    simulation = read_simulation(Path(config.pickles_dir) / "a.pkl")
    assert len(set(truth_columns(simulation, by_name, 0)["CLUSTER"])) == 2
    unknown = read_simulation(
        save(simulation.path, content(**(halos | {"halo": [1.0, np.nan] * 3})))
    )
    with pytest.raises(DataFormatError, match="halo: expected finite numbers, but got nan for map"):
        truth_columns(unknown, by_labels, 0)


def test_a_long_text_among_short_ones_takes_no_memory(
    config: HalosPicklesConfig, tmp_path: Path
) -> None:
    """An array of a list of texts holds each in the length of the longest one."""
    n = 20_000
    texts = ["a" * n, *["b"] * n]
    for name in ("label", "norms", "BCG_e1"):
        labels, images = content(**{name: texts})
        simulation = read_simulation(save(tmp_path / "a.pkl", (labels, images)))
        with pytest.raises(DataFormatError, match=rf"a\.pkl, {name}: expected .*object"):
            physical_maps(simulation, config) if truth_columns(simulation, config, 0) else None
    long = content(projection=["x" * 201, *"xyzxy"])
    with pytest.raises(DataFormatError, match=r"expected texts of at most 200 char.* 201"):
        truth_columns(read_simulation(save(tmp_path / "a.pkl", long)), config, 0)


def no_memory(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass": [1e14, 10**400] * 3}, "mass: expected one number, .* got object"),
        ({"projection": np.frombuffer(b"\xff" * 24, "<U1")}, "characters that do not exist"),
        ({7: 1.0}, "labels whose names are text"),
        ({10**6000: 1.0}, "is refused: it asks for a dict whose key"),
    ],
)
def test_strange_values_stop_no_other_pickle(
    config: HalosPicklesConfig, changes: dict[Any, Any], message: str
) -> None:
    labels, images = content()
    folder = Path(config.pickles_dir)
    save(folder / "a.pkl", (labels | changes, images))
    save(folder / "b.pkl", content())
    assert pipeline.run(config) == {"made": 1, "skipped": 0, "failed": 1}
    with pytest.raises(DataFormatError, match=rf"a\.pkl.*{message}"):
        convert(config, folder / "a.pkl", 0)


def test_a_lack_of_memory_stops_no_other_pickle(
    config: HalosPicklesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Path(config.pickles_dir) / "a.pkl", content())
    monkeypatch.setattr("datagen.halos.pickles.physical_maps", no_memory)
    with pytest.raises(DataFormatError, match=r"a\.pkl: .* can be converted, but got MemoryError"):
        convert(config, Path(config.pickles_dir) / "a.pkl", 0)


def test_suites_share_initial_conditions_only_where_they_say_so(
    config: HalosPicklesConfig,
) -> None:
    other = dataclasses.replace(config, suite="bahamas_zoom")
    assert config.identity != other.identity
    both = (dataclasses.replace(c, initial_conditions="wmap9") for c in (config, other))
    assert len({c.identity for c in both}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, "label: expected a label, but got only norms, name, mass"),
        ({"label": [0.1, 0.3]}, r"label: expected one number, .* 6 maps, but got float64 .*\(2,\)"),
        ({"label": -0.1}, r"label: expected sigma/m >= 0, but got -0\.1 for map 0"),
        ({"label": [[[0.1] * 9] * 9] * 6}, "label: expected one number, or one for each of 6 maps"),
        ({"label": "0.1"}, "label: expected one number, or one for each of 6 maps, but got object"),
        ({"mass": np.array([1, 1, 1, 0, 1, 1])}, "mass: expected masses > 0, but got 0.0 for map"),
        ({"mass": [1e14, None] * 3}, "mass: expected one number, .* but got object"),
        ({"redshift": np.nan}, "redshift: expected redshifts >= 0, but got nan for map 0"),
        ({"clusterID": np.arange(6) + 0.5}, r"clusterID: expected whole numbers >= 0, but got 0"),
        ({"projection": np.ones((6, 3))}, "projection: expected one number, or one for each"),
        ({"BCG_e1": [1.0]* 5}, r"BCG_e1: expected one number, .* of shape \(5,\)"),
        ({"norms": None}, "norms: expected a label, by which maps were divided.*norms=ignore"),
        ({"norms": np.ones((6, 2))}, r"norms: expected numbers of shape \(6, 3\), but .*\(6, 2\)"),
        ({"norms": np.zeros((6, 3))}, "norms: expected numbers > 0, but got .* for map 0"),
    ],
)  # fmt: skip
def test_bad_labels_are_named(
    config: HalosPicklesConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    simulation = read_simulation(save(tmp_path / "a.pkl", content(**changes)))
    with pytest.raises(DataFormatError, match=rf"a\.pkl, {message}"):
        physical_maps(simulation, config) if truth_columns(simulation, config, 0) else None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.__setitem__((4, 1, 2, 3), np.nan), "map 4, xray: expected finite .* got nan"),
        (lambda x: x.__setitem__((5, 0, 0, 0), -1e-9), "map 5, mass: expected finite pixels >= 0"),
        (lambda x: x.__setitem__((2, 2), np.inf), "map 2, stars: expected finite pixels >= 0"),
        (lambda x: x.__imul__(1e40), "map 0, mass: .*cannot hold; set data_gen.factors.mass"),
        (lambda x: x.__imul__(1e-60), "map 0, mass: .*cannot hold; set data_gen.factors.mass"),
    ],
)
def test_bad_maps_are_named(
    config: HalosPicklesConfig, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    labels, images = content()
    change(images)
    simulation = read_simulation(save(tmp_path / "a.pkl", (labels, images)))
    with pytest.raises(DataFormatError, match=rf"a\.pkl, {message}"):
        physical_maps(simulation, config)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (content()[0], "expected a pair of labels .* and maps .*, but got dict"),
        ((*content()[::-1], 1), "but got dict, ndarray, int"),
        ((content()[0], content()[0]), "but got dict, dict"),
        ((content()[0], [content()[1]]), "but got dict, list"),
        ((content()[0], np.ones((6, 3, 8, 9))), r"but got float64 of shape \(6, 3, 8, 9\)"),
        ((content()[0], np.ones((6, 8, 8))), r"shape \(n, channels, side, side\).*\(6, 8, 8\)"),
        ((content()[0], np.full((6, 3, 8, 8), "x")), "but got <U1 of shape"),
        ((content()[0], np.ones((0, 3, 8, 8))), r"of shape \(0, 3, 8, 8\)"),
    ],
)
def test_other_pickles_are_named(tmp_path: Path, pair: object, message: str) -> None:
    with pytest.raises(DataFormatError, match=rf"a\.pkl.*{message}"):
        read_simulation(save(tmp_path / "a.pkl", pair))


def test_a_number_of_channels_without_planes_is_named(
    config: HalosPicklesConfig, tmp_path: Path
) -> None:
    simulation = read_simulation(save(tmp_path / "a.pkl", content(n_channels=2)))
    with pytest.raises(
        DataFormatError, match=r"maps: expected 3, 4 channels .*planes\), but got 2"
    ):
        physical_maps(simulation, config)
