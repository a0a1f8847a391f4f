"""The module outside of a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datagen.errors import CheckpointError, ConfigError
from encoders.calibration import cross_entropy
from encoders.checkpoint import load_checkpoint
from encoders.halos.metrics import Answers, Collected, Means, rmse
from encoders.halos.module import HaloModule
from encoders.halos.network import Outputs
from encoders.schedules import build_optimizers

Options = dict[str, Any]
CARD: Options = {
    "task": "halos",
    "model": "compact_reduced",
    "classes": ["0", "1", "c"],
    "cross_sections": [0.0, 1.0, None],
    "target": {"low": -2.0, "high": 0.0, "zero": 0.01},
    "channels": ["mass"],
    "side": 16,
    "pixel_scale": 20.0,
    "inputs": {"kind": ["max"], "scale": [1.0], "mean": [0.0], "std": [1.0]},
    "data_hash": "0123456789ab",
}
LOSS: Options = {
    "classification": 1.0,
    "cclp": 0.018,
    "n_steps": 3,
    "per_row": True,
    "distance": 1.0,
    "regression": 0.0,
    "reconstruction": 0.0,
    "bound": 0.0,
    "divergence": 0.0,
}


def options(**change: Any) -> Options:  # noqa: ANN401
    encoder = {"_target_": "encoders.halos.convolutional.ReducedEncoder", "channels": [4, 8],
               "padding": 0}  # fmt: skip
    sizes = {"n_hidden": 16, "n_latent": 7, "n_head": 8, "dropout": 0.1}
    target = "encoders.halos.network.CompactNetwork"
    return {
        "card": CARD,
        "network": {"_target_": target, "encoder": encoder, **sizes},
        "loss": LOSS,
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-2},
        "scheduler": None,
        "augment": {"turns": True, "flips": True, "exact": False, "seed": 1},
        "bottleneck": "sample",
        "judge": {"n_reference": 64, "n_neighbours": 2, "false_alarms": 0.05, "level": 0.68},
        **change,
    }


def batch(n: int = 24) -> dict[str, Tensor]:
    index = torch.arange(n)
    classes = index % 4 - 1
    return {
        "maps": torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
        "class": classes,
        "target": torch.tensor([torch.nan, 0.0, 1.0, torch.nan])[classes + 1],
        "weight": torch.ones(n),
        "index": index,
        "cluster": index // 4,
        "set": torch.zeros(n, dtype=torch.long),
    }


def placed(module: HaloModule, epoch: int, step: int = 0) -> HaloModule:
    """Tell a module where a training is."""
    where = {"current_epoch": epoch, "global_step": step}
    trainer = SimpleNamespace(**where, sanity_checking=False, lr_scheduler_configs=[])
    module._trainer = trainer  # type: ignore[assignment]
    module.log = lambda *_, **__: None  # type: ignore[assignment, method-assign]
    return module


def test_hyper_parameters_are_plain_and_load_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = HaloModule(**options()).eval()
    module.temperature.fill_(2.0)
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    loaded: Any = load_checkpoint(path, "halos")
    maps = batch()["maps"]
    with torch.inference_mode():
        outputs = module(maps)
        expected = torch.softmax(outputs.logits / 2.0, dim=1)
        assert torch.equal(loaded.probabilities(loaded(maps)), expected)
    assert loaded.class_targets.tolist() == pytest.approx([0.0, 1.0, np.nan], nan_ok=True)
    for key, wrong in (("side", 0), ("inputs", None), ("channels", [])):
        hparams = dict(module.hparams) | {"card": CARD | {key: wrong}}
        torch.save({"state_dict": module.state_dict(), "hyper_parameters": hparams}, path)
        with pytest.raises(CheckpointError, match=rf"its card has {key} = "):
            load_checkpoint(path, "halos")
    hparams = dict(module.hparams) | {"card": CARD | {"channels": ["mass", "stars"]}}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": hparams}, path)
    with pytest.raises(CheckpointError, match=r"halos encoder for \['mass', 'stars'\].*compact_"):
        load_checkpoint(path, "halos")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bottleneck": "map"}, r"one of sample, batch, none, but got bottleneck = map"),
        ({"loss": LOSS | {"cclp": -1.0}}, r"weights of model\.loss >= 0.*cclp=-1\.0"),
        ({"loss": LOSS | {"n_steps": 0}}, r"n_steps >= 1"),
        ({"loss": dict.fromkeys(LOSS, 0.0) | {"n_steps": 3}}, r"one of them above"),
        (
            {"card": CARD | {"classes": ["1"], "cross_sections": [1.0]}},
            r"two classes or more .* model\.loss\.classification > 0, .* classes = 1; .*autoenc",
        ),
        (
            {"card": CARD | {"classes": [], "cross_sections": []}},
            r"two classes or more .* classes = none",
        ),
        (
            {"card": CARD | {"target": None, "cross_sections": [1.0, None, None]}},
            r"two known cross-sections .* set model\.loss\.distance=0",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(change: Options, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        HaloModule(**options(**change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "what"),
    [("reconstruction", "a decoder"), ("divergence", "distributions of latents")],
)
def test_a_network_must_give_what_losses_need(loss: str, what: str) -> None:
    module = placed(HaloModule(**options(loss=LOSS | {loss: 1.0})), 0)
    message = rf"model\.network to have {what} for model\.loss\.{loss} > 0"
    with pytest.raises(ConfigError, match=message):
        module.training_step(batch(), 0)


def test_two_sets_without_cross_sections_can_be_told_apart() -> None:
    card = CARD | {"classes": ["a", "b"], "cross_sections": [None, None], "target": None}
    module = placed(HaloModule(**options(card=card, loss=LOSS | {"distance": 0.0})), 0)
    whole = batch()
    whole["class"] = whole["class"].clamp_max(1)
    module.training_step(whole, 0).backward()


def kept_in(module: HaloModule, epoch: int, which: Tensor, step: int = 0) -> Tensor:
    kept = placed(module, epoch, step)._kept(which)
    assert kept is not None
    return kept


def test_the_bottleneck_is_drawn_by_map_or_by_batch() -> None:
    index = torch.arange(200)
    by_map = HaloModule(**options())
    whole = kept_in(by_map, 3, index)
    assert set(whole.tolist()) == set(range(1, 8))
    assert torch.equal(kept_in(by_map, 3, index[5:9]), whole[5:9])
    by_batch = HaloModule(**options(bottleneck="batch"))
    drawn = [set(kept_in(by_batch, 0, index, step).tolist()) for step in range(30)]
    assert {len(one) for one in drawn} == {1}
    assert set.union(*drawn) == set(range(1, 8))
    assert placed(HaloModule(**options(bottleneck="none")), 0)._kept(index) is None


def test_dropout_depends_on_the_epoch_only() -> None:
    module = placed(HaloModule(**options()), 2)
    module._trainer.global_rank = 0  # type: ignore[union-attr]
    losses = []
    for epoch in (2, 2, 3):
        module._trainer.current_epoch = epoch  # type: ignore[union-attr, misc]
        module.on_train_epoch_start()
        losses.append(module.training_step(batch(), 0).item())
        torch.rand(7)
    assert losses[0] == losses[1] != losses[2]


def validated(module: HaloModule, whole: dict[str, Tensor]) -> dict[str, float]:
    """Run the validation of a trainer on one batch; return what it logs."""
    logged: dict[str, Any] = {}
    placed(module, 0).eval()
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[assignment, method-assign]
    with torch.inference_mode():
        module.on_validation_epoch_start()
        module.validation_step(whole, 0)
        module.on_validation_epoch_end()
    return {name: float(value) for name, value in logged.items()}


def test_figures_of_a_validation() -> None:
    torch.manual_seed(0)
    module = HaloModule(**options())
    whole = batch()
    whole["weight"][-5:] = 0.0
    logged = validated(module, whole)
    with torch.inference_mode():
        outputs = module(whole["maps"][:-5])
    z, logits, classes = outputs.z[:, 0], outputs.logits, whole["class"][:-5]
    is_known = classes >= 0
    logits = logits[is_known].double() / float(module.temperature)
    assert logged["val/temperature"] == pytest.approx(float(module.temperature))
    found = (logits.argmax(dim=1) == classes[is_known]).double().mean().item()
    assert logged["val/accuracy"] == pytest.approx(found)
    medians = [np.median(z[classes == c].numpy()) for c in (0, 1)]
    distance = (medians[0] ** 2 + (medians[1] - 1.0) ** 2) / 2
    assert logged["val/loss"] == pytest.approx(
        cross_entropy(logits, classes[is_known]) + distance, rel=1e-5
    )
    errors = torch.cat((z[classes == 0], z[classes == 1] - 1.0))
    assert logged["val/rmse"] == pytest.approx(errors.square().mean().sqrt().item(), rel=1e-5)
    assert logged["val/rmse_dex"] == pytest.approx(2.0 * logged["val/rmse"], rel=1e-5)
    assert module.validated is not None
    assert module.validated.z.shape == (19, 7)


def test_an_autoencoder_needs_no_classes() -> None:
    network = options()["network"]
    del network["n_head"]
    network |= {"_target_": "encoders.halos.autoencoder.Autoencoder", "decoder": [4, 4]}
    loss = dict.fromkeys(LOSS, 0.0) | {"n_steps": 3, "reconstruction": 1.0, "divergence": 0.1}
    card = CARD | {"classes": [], "cross_sections": [], "target": None}
    module = HaloModule(**options(card=card, network=network, loss=loss))
    whole = batch()
    whole["class"][:] = -1
    whole["weight"][-5:] = 0.0
    logged = validated(module, whole)
    with torch.inference_mode():
        seen = module.inputs(whole["maps"][:-5])
        expected = (module.network(seen).maps - seen).square().mean().item()
    assert logged["val/reconstruction"] == pytest.approx(expected, rel=1e-5)
    total = logged["val/reconstruction"] + 0.1 * logged["val/divergence"]
    assert logged["val/loss"] == pytest.approx(total, rel=1e-5)
    module.train()
    assert module.training_step(whole, 0).isfinite()


def test_answers_are_sorted_and_counted_once() -> None:
    collected = Collected()
    whole = batch(8)
    whole["set"][4:] = 1
    outputs = Outputs(torch.arange(16.0).view(8, 2), torch.arange(24.0).view(8, 3))
    order = [6, 1, 0, 7, 5, 3, 2, 4, 1]
    shuffled = Outputs(outputs.z[order], outputs.logits[order])  # type: ignore[index]
    collected.update(shuffled, {key: value[order] for key, value in whole.items()})
    answers = collected.answers()
    assert isinstance(answers, Answers)
    assert answers.index.tolist() == list(range(8))
    assert answers.sets.tolist() == [0] * 4 + [1] * 4
    assert torch.equal(answers.z, outputs.z.double())
    assert torch.equal(answers.logits, outputs.logits.double())  # type: ignore[union-attr]
    assert torch.equal(answers.classes, whole["class"])
    assert torch.equal(answers.clusters, whole["cluster"])
    assert answers.is_labelled.sum() == 6
    with pytest.warns(UserWarning, match="before"):
        nothing = Collected().answers()
    assert len(nothing.classes) == 0
    assert np.isnan(rmse(nothing.targets, nothing.targets))


def test_means_weigh_batches_by_their_maps() -> None:
    means = Means(["a", "b"])
    means.update({"a": torch.tensor(1.0), "b": torch.tensor(0.0)}, 3.0)
    means.update({"a": torch.tensor(5.0), "b": torch.tensor(2.0)}, 1.0)
    assert {k: float(v) for k, v in means.compute().items()} == {"a": 2.0, "b": 0.5}
    with pytest.warns(UserWarning, match="before"):
        assert float(Means(["a"]).compute()["a"]) == 0.0


def test_a_plateau_is_watched_after_each_epoch() -> None:
    hparams = {
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-2},
        "scheduler": {
            "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
            "factor": 0.5,
            "patience": 2,
        },
    }
    made: Any = build_optimizers(hparams, [torch.nn.Parameter(torch.zeros(1))], lambda: 10.0)
    assert made["lr_scheduler"]["interval"] == "epoch"
    assert made["lr_scheduler"]["monitor"] == "val/loss"
    for _ in range(4):
        made["lr_scheduler"]["scheduler"].step(1.0)
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(5e-3)
