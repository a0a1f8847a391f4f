"""The classifier outside of a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datagen.errors import CheckpointError, ConfigError, DataNotFoundError
from encoders.calibration import cross_entropy
from encoders.checkpoint import load_checkpoint
from encoders.lenses.metrics import Answers
from encoders.lenses.module import LensModule
from encoders.metrics import accuracy, calibration_error

Options = dict[str, Any]


def batch(n: int = 24, side: int = 17) -> dict[str, torch.Tensor]:
    index = torch.arange(n)
    return {
        "images": torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(0)),
        "labels": index % 3,
        "weight": torch.ones(n),
        "index": index,
        "delta_chi2": torch.full((n,), torch.nan),
    }


def validate(module: LensModule, whole: dict[str, torch.Tensor]) -> dict[str, float]:
    """Run the validation of a trainer on one batch; return what it logs."""
    logged: dict[str, Any] = {}
    module._trainer = SimpleNamespace(sanity_checking=False)  # type: ignore[assignment]
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[assignment, method-assign]
    module.eval()
    with torch.inference_mode():
        module.on_validation_epoch_start()
        module.validation_step(whole, 0)
        module.on_validation_epoch_end()
    return {name: float(value) for name, value in logged.items()}


def test_hyper_parameters_are_plain_and_load_alone(
    card: Options, options: Options, tmp_path: Path
) -> None:
    module = LensModule(card, **options).eval()
    module.temperature.fill_(2.0)
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    loaded: Any = load_checkpoint(path, "lenses")
    images = batch()["images"]
    with torch.inference_mode():
        expected = torch.softmax(module.network(module.stretched(images)) / 2.0, dim=1)
        assert torch.equal(loaded.probabilities(images), expected)


def saved(folder: Path, module: LensModule, **change: object) -> Path:
    path = folder / "best.ckpt"
    hparams = dict(module.hparams) | change
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": hparams}, path)
    return path


def test_weights_of_another_architecture(card: Options, options: Options, tmp_path: Path) -> None:
    module = LensModule(card, **options)
    other = {"_target_": "encoders.lenses.resnet.ResNet18"}
    with pytest.raises(CheckpointError, match=r"lenses encoder.*model=plain_cnn") as caught:
        load_checkpoint(saved(tmp_path, module, network=other), "lenses")
    assert "\n" not in str(caught.value)
    for wrong, said in (({"side": 0}, "side = 0"), ({"stretch": None}, "stretch = None"),
                        ({"classes": "ab"}, "classes = 'ab'")):  # fmt: skip
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(saved(tmp_path, module, card=card | wrong), "lenses")
    with pytest.raises(CheckpointError, match=r"for task = membership, but .* task = lenses"):
        load_checkpoint(saved(tmp_path, module), "membership")
    with pytest.raises(DataNotFoundError, match=r"make it with: python train\.py model=e2cnn"):
        load_checkpoint(tmp_path / "none.ckpt", "lenses")


def test_augmentation_depends_on_epoch_and_image_only(card: Options, options: Options) -> None:
    module = LensModule(card, **options)
    module._trainer = SimpleNamespace(current_epoch=3)  # type: ignore[assignment]
    images = module.stretched(batch()["images"])
    whole = module._augmented(images, batch())
    part = {"index": batch()["index"][5:9]}
    assert torch.equal(module._augmented(images[5:9], part), whole[5:9])
    assert not torch.equal(whole, images)
    module._trainer = SimpleNamespace(current_epoch=4)  # type: ignore[assignment]
    assert not torch.equal(module._augmented(images, batch()), whole)
    # Every result is one of the eight positions of its image.
    for image, turned in zip(images, whole, strict=True):
        positions = [torch.rot90(x, k, (-2, -1)) for x in (image, image.flip(-1)) for k in range(4)]
        assert any(torch.equal(turned, position) for position in positions)


@pytest.mark.parametrize(
    ("turns", "flips", "n"),
    [("none", False, 1), ("quarter", False, 4), ("none", True, 2), ("quarter", True, 8)],
)
def test_only_the_allowed_symmetries_are_drawn(
    card: Options, options: Options, turns: str, flips: bool, n: int
) -> None:
    options["augment"] |= {"turns": turns, "flips": flips}
    module = LensModule(card, **options)
    module._trainer = SimpleNamespace(current_epoch=0)  # type: ignore[assignment]
    one = torch.randn(1, 1, 17, 17).expand(200, 1, 17, 17)
    turned = module._augmented(one, {"index": torch.arange(200)})
    assert len(torch.unique(turned, dim=0)) == n


def test_images_turn_by_any_angle_whatever_the_batch(card: Options, options: Options) -> None:
    options["augment"] |= {"turns": "any"}
    module = LensModule(card, **options)
    module._trainer = SimpleNamespace(current_epoch=3)  # type: ignore[assignment]
    one = module.stretched(torch.randn(1, 1, 17, 17)).expand(200, -1, 17, 17)
    turned = module._augmented(one, {"index": torch.arange(200)})
    assert len(torch.unique(turned, dim=0)) == 200
    again = module._augmented(one[:9], {"index": torch.arange(100, 109)})
    torch.testing.assert_close(again, turned[100:109])


def test_unknown_turns_are_refused(card: Options, options: Options) -> None:
    options["augment"] |= {"turns": "half"}
    with pytest.raises(ConfigError, match=r"turns to be one of none, quarter, any, but got half"):
        LensModule(card, **options)


def test_validation_fits_temperature_and_threshold(card: Options, options: Options) -> None:
    module = LensModule(card, **options)
    torch.manual_seed(0)
    module.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(17 * 17, 3))
    module.network[1].weight.data *= 5.0
    logged = validate(module, batch(300))
    answers = module.validated
    assert isinstance(answers, Answers)
    # It knows nothing: any confidence is too high.
    assert float(module.temperature) > 1.0
    assert logged["val/temperature"] == pytest.approx(float(module.temperature))
    p = answers.probabilities(float(module.temperature))
    assert logged["val/accuracy"] == pytest.approx(accuracy(p, answers.labels))
    assert logged["val/ece"] == pytest.approx(calibration_error(p, answers.labels), abs=1e-6)
    assert logged["val/loss"] <= logged["val/loss_raw"]
    assert logged["val/loss_raw"] == pytest.approx(cross_entropy(answers.logits, answers.labels))
    assert logged["val/unsure"] == pytest.approx(0.1, abs=0.01)
    assert logged["val/turn_error"] > 0.01


class Blind(torch.nn.Module):
    """Sees the sum of an image only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = images.double().sum(dim=(1, 2, 3))
        return torch.stack((total, -total, 0 * total), dim=1).float()


def test_invariance_errors(card: Options, options: Options) -> None:
    module = LensModule(card, **options)
    module.network = Blind()
    logged = validate(module, batch())
    assert logged["val/turn_error"] < 1e-5
    assert logged["val/flip_error"] < 1e-5


@pytest.mark.parametrize("group", [None, "D4", "O2"])
def test_frozen_normalisation(card: Options, options: Options, group: str | None) -> None:
    if group is not None:
        target = "encoders.lenses.e2cnn_network.EquivariantNetwork"
        small = {"_target_": target, "group": group, "channels": [14, 14], "n_blocks": [0]}
        options |= {"network": small}
    for freeze_norm in (False, True):
        module = LensModule(card, **(options | {"freeze_norm": freeze_norm}))
        kept = ("running_mean", "mean_square")
        before = {k: v.clone() for k, v in module.state_dict().items() if k.endswith(kept)}
        assert len({k.rsplit(".", 1)[1] for k in before}) == (2 if group == "O2" else 1)
        module.network(module.stretched(batch()["images"]))
        after = module.state_dict()
        is_same = {torch.equal(v, after[k]) for k, v in before.items()}
        assert is_same == {freeze_norm}


def test_label_smoothing_is_that_of_torch(card: Options, options: Options) -> None:
    options |= {
        "loss": {"label_smoothing": 0.2},
        "augment": {"turns": "none", "flips": False, "seed": 0},
    }
    module = LensModule(card, **options).eval()
    module.log = lambda *_, **__: None  # type: ignore[assignment, method-assign]
    whole = batch()
    logits = module(whole["images"])
    log_p = torch.log_softmax(logits, dim=1)
    own = log_p.gather(1, whole["labels"][:, None])[:, 0]
    expected = -(0.8 * own + 0.2 * log_p.mean(dim=1)).mean()
    assert module.training_step(whole, 0).item() == pytest.approx(expected.item(), rel=1e-5)
