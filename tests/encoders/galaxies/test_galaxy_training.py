"""Whole trainings of a small encoder: results, resume, processes, probes, bad inputs."""

from __future__ import annotations

import hashlib
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from sklearn.metrics import r2_score

from datagen.errors import CheckpointError, ConfigError
from datagen.prepared.format import read_prepared
from encoders.checkpoint import load_checkpoint
from encoders.galaxies.module import GalaxyModule
from encoders.training import train
from tests.encoders.galaxies.conftest import read_content
from tests.galaxy_stamps import Compose, prepare, write_suite

Trained = tuple[DictConfig, dict[str, float]]
FIELDS = ("redshift", "width", "colour", "is_red")


def last_of(cfg: DictConfig) -> Path:
    return Path(cfg.paths.log_dir) / str(cfg.task_name) / "runs/manual/checkpoints/last.ckpt"


def best_of(cfg: DictConfig) -> Path:
    return Path(cfg.paths.output_dir) / str(cfg.task_name) / "best.ckpt"


def same_weights(one: DictConfig, two: DictConfig) -> None:
    first, second = (torch.load(last_of(c), weights_only=True) for c in (one, two))
    assert first["global_step"] == second["global_step"]
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name


def test_train_test_and_publish(trained: Trained) -> None:
    cfg, metrics = trained
    figures = {"loss", "alignment", "uniformity", "retrieval", "rank_me", "is_collapsed", "knn_r2"}
    figures |= {f"{probe}_r2_{name}" for probe in ("knn", "ridge") for name in FIELDS}
    wanted = {f"{split}/{name}" for split in ("val", "test") for name in figures}
    assert wanted | {"train/epoch_loss", "val/knn_accuracy_is_red"} <= metrics.keys()
    module: Any = load_checkpoint(best_of(cfg), "galaxies")
    assert module.card["model"] == "simclr"
    stamps = torch.randn(3, 3, 20, 20)
    embeddings = module(stamps)
    assert embeddings.shape == (3, 8)
    # Stamps are cut, stretched and encoded one by one: neighbours in a batch do not matter.
    torch.testing.assert_close(module(stamps[:1]), embeddings[:1])


def test_one_and_one_epochs_are_two(compose_galaxies: Compose) -> None:
    """With a slow copy and a queue's worth of state beside the weights."""
    more = ["model=byol", "model.heads.predictor=[16,8]", "model.scheduler.total_steps=6",
            "test=false"]  # fmt: skip
    whole, first = (compose_galaxies(*more, f"trainer.max_epochs={n}") for n in (2, 1))
    train(whole)
    train(first)
    second = compose_galaxies(*more, f"ckpt_path={last_of(first)}")
    train(second)
    same_weights(whole, second)
    state = torch.load(last_of(second), weights_only=True)["state_dict"]
    slow, fast = (state[f"{name}layers.0.weight"] for name in ("average.network.0.", "network."))
    assert not torch.equal(slow, fast)


@pytest.mark.parametrize("model", ["dcl", "nnclr", "siglip", "vicreg", "byol"])
def test_every_objective_trains(compose_galaxies: Compose, model: str) -> None:
    more = {"nnclr": ["model.heads.predictor=[16,8]", "model.objective.n_rows=64"],
            "byol": ["model.heads.predictor=[16,8]"]}  # fmt: skip
    metrics = train(
        compose_galaxies(f"model={model}", "trainer.max_epochs=1", *more.get(model, []))
    )
    assert math.isfinite(metrics["test/loss"])
    assert math.isfinite(metrics["test/knn_r2_colour"])


def test_two_processes_have_the_gradients_of_one(compose_galaxies: Compose, tmp_path: Path) -> None:
    """Losses compare the stamps of both processes; normalisations are frozen."""
    script = tmp_path / "step.py"
    script.write_text(STEP)
    found = {}
    for n in (1, 2):
        args = [str(galaxies_of(compose_galaxies)), str(n), str(tmp_path / f"{n}.pt")]
        subprocess.run([sys.executable, str(script), *args], check=True, timeout=300)
        found[n] = torch.load(tmp_path / f"{n}.pt", weights_only=True)
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[2][name], gradient, rtol=1e-6, atol=1e-12)


def test_a_collapse_is_told(
    compose_galaxies: Compose, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(self: GalaxyModule, stamps: torch.Tensor) -> torch.Tensor:
        return 1.0 + 1e-4 * stamps.mean(dim=(1, 2, 3))[:, None] * torch.arange(8.0)

    monkeypatch.setattr(GalaxyModule, "forward", same)
    with caplog.at_level(logging.WARNING):
        metrics = train(compose_galaxies("trainer.max_epochs=1", "test=false"))
    assert metrics["val/is_collapsed"] == 1.0
    assert "embeddings have collapsed" in caplog.text


def test_another_training_is_not_resumed(compose_galaxies: Compose, trained: Trained) -> None:
    last = last_of(trained[0])
    for change, message in (
        ("model=dcl", r"model\.objective\.is_decoupled = False, .* got .* = True"),
        ("model.objective.temperature=0.5", r"model\.objective\.temperature = 0\.2"),
        ("model.views.blur=null", r"model\.views\.blur = "),
        ("data.n_train=20", r"data\.n_train = "),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(compose_galaxies(f"ckpt_path={last}", "trainer.max_epochs=3", change))


def test_an_average_answers_where_it_is_no_target(compose_galaxies: Compose) -> None:
    for overrides, is_averaged in (
        (["model.average=0.5"], True),
        (["model=byol", "model.heads.predictor=[16,8]"], False),
    ):
        cfg = compose_galaxies(*overrides, "test=false", "trainer.max_epochs=1")
        train(cfg)
        module: Any = load_checkpoint(best_of(cfg), "galaxies")
        assert module.is_averaged is is_averaged
        slow = module.average.network[0]
        assert module.encoder is (slow if is_averaged else module.network)
        pairs = zip(slow.parameters(), module.network.parameters(), strict=True)
        assert not any(torch.equal(a, b) for a, b in pairs)
        # The loss of a validation is that of the network that answers.
        stamps = torch.randn(4, 3, 20, 20)
        drawn = torch.stack([module.views.plain(stamps)] * 2)
        projector = module.average.network[1] if is_averaged else module.projector
        a, _ = module._both(drawn)
        torch.testing.assert_close(a.projected, projector(module.encoder(drawn[0])))


def test_unknown_widths_of_the_psf_are_told(
    galaxies_dir: Path, composed: Compose, compose_galaxies: Compose, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    write_suite(tmp_path / "stamps" / "a", 24)
    write_suite(tmp_path / "stamps" / "b", 24, first=100, drop="FWHM")
    prepare(tmp_path, composed)
    with caplog.at_level(logging.WARNING):
        train(compose_galaxies(f"paths.data_dir={tmp_path}", "trainer.max_epochs=1", "test=false"))
    assert (
        "model.views.blur leaves 100 % of the training stamps of suite b as they are" in caplog.text
    )
    assert "suite a as they are" not in caplog.text


def test_a_probe_learns_on_top(compose_galaxies: Compose, trained: Trained) -> None:
    best = best_of(trained[0])
    more = [f"model.checkpoint={best}", "data.labels=[colour,is_red]", "+model.classes={is_red:2}"]
    cfg = compose_galaxies("model=probe", *more, "trainer.max_epochs=30",
                           "model.optimizer.lr=0.05")  # fmt: skip
    metrics = train(cfg)
    assert metrics["test/r2_colour"] > 0.3
    assert metrics["test/accuracy_is_red"] >= 0.7
    probe: Any = load_checkpoint(best_of(cfg), "galaxy_fields")
    encoder: Any = load_checkpoint(best, "galaxies")
    for name, value in encoder.network.state_dict().items():
        assert torch.equal(value, probe.network.state_dict()[name]), name
    about = probe.card["encoder"]
    assert (about["model"], about["suites"]) == ("simclr", ["a", "b"])
    results = last_of(cfg).parents[1] / "results"
    assert read_content(results / "test.json")["encoder"] == about
    with np.load(results / "predictions.npz", allow_pickle=False) as arrays:
        found, true = arrays["found"], arrays["true"]
    assert metrics["test/r2_colour"] == pytest.approx(r2_score(true[:, 0], found[:, 0]), abs=1e-5)
    assert metrics["test/accuracy_is_red"] == pytest.approx((found[:, 1] == true[:, 1]).mean())
    assert about["sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()


def test_fine_tuning_and_training_from_scratch(
    compose_galaxies: Compose, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    best = best_of(trained[0])
    more = ["model=probe", "model.is_frozen=false", "model.augment=true", "trainer.max_epochs=1",
            "data.labels=[width]", "test=false"]  # fmt: skip
    for checkpoint in (str(best), "null"):
        cfg = compose_galaxies(*more, f"model.checkpoint={checkpoint}")
        assert math.isfinite(train(cfg)["val/r2_width"])
        probe: Any = load_checkpoint(best_of(cfg), "galaxy_fields")
        encoder: Any = load_checkpoint(best, "galaxies")
        pairs = zip(probe.network.parameters(), encoder.network.parameters(), strict=True)
        assert not any(torch.equal(a, b) for a, b in pairs)


def test_a_probe_of_other_stamps_is_refused(
    compose_galaxies: Compose, trained: Trained, composed: Compose, tmp_path: Path
) -> None:
    more = ["model=probe", f"model.checkpoint={best_of(trained[0])}"]
    with pytest.raises(CheckpointError, match=r"stamps with train_px = 12, .* got train_px = 10"):
        train(compose_galaxies(*more, "data.train_px=10"))
    with pytest.raises(CheckpointError, match=r"expected stamps with bands = \['g', 'r', 'i'\]"):
        train(compose_galaxies(*more, "data.bands=[r]"))
    write_suite(tmp_path / "stamps" / "a", 12, UNIT="ct")
    prepare(tmp_path, composed)
    with pytest.raises(CheckpointError, match="expected stamps with unit = nanomaggy"):
        train(compose_galaxies(*more, f"paths.data_dir={tmp_path}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["model=nnclr", "model.heads.predictor=null"], "predictor to be widths for the .* NNCLR"),
        (["model.heads.predictor=[8]"], "predictor to be null for the objective SimCLR"),
        (["model=nnclr", "model.heads.predictor=[16,4]"], "last of .*predictor to be 8, .* got 4"),
        (
            ["model=nnclr", "model.heads.predictor=[16,8]", "model.objective.n_dimensions=16"],
            r"expected model\.objective\.n_dimensions to be 8, .* got 16",
        ),
        (
            ["model=byol", "model.heads.predictor=[8]", "model.average=null"],
            "average to be a momentum for the objective BYOL",
        ),
        (["model.average=1.5"], r"model\.average to be null or in \[0, 1\)"),
        (["model.probes.n_neighbours=0"], "expected n_neighbours >= 1"),
        (["+model.views.sharpen=1"], r"cannot build model\.views: .*sharpen"),
        (["data.batch_size=200"], "expected at least 200 training stamps"),
    ],
)
def test_wrong_settings(compose_galaxies: Compose, change: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(compose_galaxies(*change))


@pytest.mark.slow
@pytest.mark.parametrize("n_devices", [1, 2])
def test_the_command_trains(galaxies_dir: Path, tmp_path: Path, root: Path, n_devices: int) -> None:
    command = [sys.executable, str(root / "train.py"), "model=nnclr", "model.objective.n_rows=64"]
    command += ["model.heads={projector: [16, 8], predictor: [16, 8]}", "data.train_px=12"]
    command += ["model.network.channels=[4,8]", "model.network.n_blocks=[0]", "data.batch_size=8"]
    command += [f"paths.data_dir={galaxies_dir}", f"trainer.devices={n_devices}", "trainer=cpu"]
    command += ["trainer.max_epochs=1", "trainer.sync_batchnorm=false"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/nnclr/best.ckpt").is_file()
    (run,) = (tmp_path / "logs/nnclr/runs").iterdir()
    names = {path.name for path in (run / "results").iterdir()}
    assert names >= {"history.ecsv", "test.json", "embeddings.npz", "pca.png", "views.png"}
    assert (run / "tensorboard/projector_config.pbtxt").is_file()
    # Each stamp counts once.
    splits = read_prepared(galaxies_dir / "prepared")["SPLIT"]
    assert read_content(run / "results/test.json")["n_stamps"] == (splits == "test").sum()


def galaxies_of(compose_galaxies: Compose) -> Path:
    """Return the folder of the stamps of small trainings."""
    return Path(compose_galaxies().paths.data_dir)


# One step of a module on a batch of both processes, or of one with all stamps.
STEP = """
import sys
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn

from encoders.galaxies.data import GalaxiesDataModule
from encoders.galaxies.module import GalaxyModule


def work(rank, n, folder, path):
    torch.set_num_threads(1)
    if n > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{path}.sync", rank=rank, world_size=n
        )
    data = GalaxiesDataModule(
        data_dir=f"{folder}/prepared", stamps_dir=f"{folder}/stamps", suites=None, bands=None,
        train_px=12, labels=None, n_train=None, n_val=None, n_test=None, batch_size=8,
        num_workers=0, seed=1,
        in_memory=False,
    )
    torch.manual_seed(0)
    op = {"turns": True, "flips": True, "jitter": 1.0, "size": [0.9, 1.1], "order": 3, "hides": []}
    module = GalaxyModule(
        card=data.card(),
        network={"_target_": "encoders.galaxies.backbones.ResNet", "stem_stride": 1,
                 "channels": [4, 8], "n_blocks": [0]},
        heads={"projector": [16, 8], "predictor": None},
        objective={"_target_": "encoders.galaxies.objectives.SimCLR", "temperature": 0.2,
                   "is_decoupled": False, "same_object": "masked"},
        average=None, optimizer={}, scheduler=None,
        views={"seed": 1, "geometry": op, "exposure": None, "redshifting": None, "blur": None,
               "reddening": None, "noise": None},
        probes={"classes": [], "n_neighbours": 2, "penalty": 1.0, "n_folds": 2},
    ).double()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    module.views.float()
    dataset = data.dataset("train")
    batch = dataset.__getitems__(list(range(rank, 8, n)))
    drawn = module._drawn(batch, 0).double()
    a, b = module._both(drawn)
    module.objective(a, b, batch["object"]).backward()
    found = {}
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        if n > 1:
            distributed.all_reduce(gradient)
        found[name] = gradient / n
    if rank == 0:
        torch.save(found, path)


if __name__ == "__main__":
    folder, n, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if n == 1:
        work(0, 1, folder, path)
    else:
        multiprocessing.spawn(work, args=(n, folder, path), nprocs=n)
"""
