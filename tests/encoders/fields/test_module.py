"""The module outside of a training: hyper-parameters, forward, prediction, optimiser."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from datagen.errors import ConfigError
from encoders.data import LoaderOptions, make_loader
from encoders.fields.clusters import ClusterEstimate
from encoders.fields.data import FieldsDataset, index_folder
from encoders.fields.metrics import ClusterMembershipAccuracy
from encoders.fields.module import MembershipModule
from encoders.schedules import WarmupCosine, build_scheduler

Options = dict[str, Any]


def batch(size: int = 128) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": 3.0 * torch.randn(2, 2, size, size, generator=generator) + 5.0,
        "background": torch.full((2, 2), 5.0),
        "sigma": torch.full((2, 2), 3.0),
        "membership": torch.zeros(2, size // 32, size // 32),
        "weight": torch.ones(2, size // 32, size // 32),
    }


REFERENCE = {
    "_target_": "encoders.fields.reference_network.ReferenceNetwork",
    "width": 8,
    "n_curves": 2,
    "cell_layers": 0,
}
PROPERTIES = {"redshift", "redshift_error", "richness", "richness_error"}


def many_cells() -> dict[str, Tensor]:
    """Return labels of many cells, a fifth with a member."""
    member = (torch.rand(400, 4, 4) < 0.2).float()
    labels = {"cluster_redshift": 0.4 * member, "cluster_richness": 30.0 * member}
    return {"membership": member, "weight": torch.ones_like(member), **labels}


def validate(
    module: MembershipModule, whole: dict[str, Any], is_sanity_check: bool = False
) -> dict[str, float]:
    """Run the validation of a trainer on one batch; return what it logs."""
    logged: dict[str, float] = {}
    module._trainer = SimpleNamespace(sanity_checking=is_sanity_check)  # type: ignore[assignment]
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[assignment, method-assign]
    with torch.inference_mode():
        module.on_validation_epoch_start()
        module.validation_step(whole, 0)
        module.on_validation_epoch_end()
    return {name: float(value) for name, value in logged.items()}


def test_hyper_parameters_are_plain(card: Options, options: Options) -> None:
    module = MembershipModule(card, **options)

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(type(key) is str and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return value is None or type(value) in (str, int, float, bool)

    assert plain(dict(module.hparams))
    assert module.card == card


def test_prediction_passes_on_where_images_come_from(card: Options, options: Options) -> None:
    module = MembershipModule(card, **options).eval()
    with torch.inference_mode():
        out = module.predict_step({**batch(), "row": torch.tensor([3, 4]), "tile": ["a", "b"]})
    assert out["scores"].shape == (2, 4, 4)
    assert out["scores"].dtype == torch.float32
    assert 0 < float(out["scores"].min()) < float(out["scores"].max()) < 1
    assert out["tile"] == ["a", "b"]
    assert "images" not in out
    for name in PROPERTIES:
        assert out[name].shape == (2, 4, 4)
        assert out[name].dtype == torch.float32
        assert bool(out[name].isfinite().all())
        assert bool((out[name] > 0).all())
    # Untrained, it answers about the base rate of its training cells.
    assert out["scores"].mean() == pytest.approx(card["prevalence"], rel=0.2)


@pytest.mark.parametrize("kind", ["reference", "untrained heads"])
def test_what_was_not_learned_is_not_predicted(card: Options, options: Options, kind: str) -> None:
    options["loss"]["cluster_weight"] = 0.0
    if kind == "reference":
        options["network"] = REFERENCE
    module = MembershipModule(card, **options).eval()
    with torch.inference_mode():
        out = module.predict_step(batch())
    assert out["scores"].shape == (2, 4, 4)
    assert not PROPERTIES & out.keys()


@pytest.mark.parametrize("name", ["redshift", "cluster"])
def test_losses_need_their_heads(card: Options, options: Options, name: str) -> None:
    options["network"] = REFERENCE
    options["loss"] |= {"cluster_weight": 0.0, f"{name}_weight": 0.2}
    message = rf"loss\.{name}_weight = 0 for encoders.*ReferenceNetwork, which has no {name} head"
    with pytest.raises(ConfigError, match=message):
        MembershipModule(card, **options)


@pytest.mark.parametrize("loss", [{}, {"pos_weight": 4.0}, {"focal_gamma": 2.0}])
def test_validation_calibrates_scores_and_moves_the_threshold_along(
    card: Options, options: Options, loss: dict[str, float]
) -> None:
    """Labels are drawn from known probabilities that the logits exaggerate and shift."""
    options["loss"] |= loss | {"cluster_weight": 0.0}
    torch.manual_seed(0)
    module, whole = MembershipModule(card, **options), many_cells()
    logits = 4.0 * torch.randn(whole["weight"].shape)
    whole["membership"] = (torch.rand(logits.shape) < torch.sigmoid(0.5 * logits - 0.8)).float()
    shift = torch.tensor(module.loss["pos_weight"]).log()
    module._scored = lambda batch: (logits + shift, None)  # type: ignore[method-assign, assignment]
    values = validate(module, whole)
    assert module.calibration.tolist() == pytest.approx([0.5, -0.8], abs=0.1)
    found = module.predict_step(whole)["scores"]
    raw, after = (ClusterMembershipAccuracy(p) for p in (None, float(module.threshold)))
    for metric, scored in ((raw, logits), (after, torch.logit(found))):
        metric.update(scored, whole["membership"], whole["weight"])
    before, now = raw.compute(), after.compute()
    assert now["calibration_error"] < 0.03 < 0.1 < before["calibration_error"]
    # The threshold moves with the scores: the same cells are above it.
    assert now["f1"] == pytest.approx(float(before["f1"]), abs=0.01)
    assert abs(float(before["threshold"] - module.threshold)) > 0.01
    assert values["val/threshold"] == pytest.approx(float(module.threshold))


def test_before_a_validation_scores_lack_only_the_weight_of_positives(
    card: Options, options: Options
) -> None:
    options["loss"]["pos_weight"] = 5.0
    module = MembershipModule(card, **options).eval()
    one = batch()
    with torch.inference_mode():
        scores = module.predict_step(one)["scores"]
        logits = module(one["images"], one["background"], one["sigma"])
        assert torch.allclose(torch.sigmoid(logits), scores)
    assert scores.mean() == pytest.approx(card["prevalence"], rel=0.2)


def test_validation_scales_errors(card: Options, options: Options) -> None:
    torch.manual_seed(0)
    module, whole = MembershipModule(card, **options), many_cells()
    noise = torch.tensor([0.02, 0.1])[:, None, None] * torch.randn(400, 2, 4, 4)
    mean = torch.tensor([1.4, 30.0]).log()[:, None, None] + noise
    estimate = ClusterEstimate(mean, torch.full_like(mean, 0.05).log())
    scored = (torch.zeros_like(whole["weight"]), estimate)
    module._scored = lambda batch: scored  # type: ignore[method-assign, assignment]
    values = validate(module, whole)
    assert module.error_scale.tolist() == pytest.approx([0.4, 2.0], rel=0.1)
    assert values["val/redshift_nmad"] == pytest.approx(0.02, rel=0.1)
    assert values["val/richness_scatter"] == pytest.approx(0.1, rel=0.1)
    out = module.predict_step(whole)
    assert torch.allclose(out["richness_error"], 0.05 * out["richness"] * module.error_scale[1])
    module.on_test_epoch_start()
    module.test_step(whole, 0)
    for name in ("redshift", "richness"):
        found = module.test_errors.compute()[f"{name}_within_error"]
        assert found == pytest.approx(0.683, abs=0.02)


def test_a_sanity_check_before_the_training_calibrates_nothing(
    card: Options, options: Options
) -> None:
    options["loss"]["cluster_weight"] = 0.0
    module, whole = MembershipModule(card, **options), many_cells()
    module._scored = lambda batch: (9.0 - batch["weight"], None)  # type: ignore[method-assign, assignment]
    validate(module, whole, is_sanity_check=True)
    assert module.calibration.tolist() == [1.0, 0.0]
    assert module.threshold == 0.5


def test_scale_of_the_counts_does_not_matter(card: Options, options: Options) -> None:
    module = MembershipModule(card, **options).eval()
    one = batch()
    with torch.inference_mode():
        first = module(one["images"], one["background"], one["sigma"])
        second = module(7 * one["images"], 7 * one["background"], 7 * one["sigma"])
    assert torch.allclose(first, second, atol=1e-5)


class Uneven(FieldsDataset):
    """Fields of very different weight: the mean of their losses is not that of the cells."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        if index > 0:
            sample["weight"] = torch.zeros_like(sample["weight"])
            sample["weight"][0, :index] = 1.0
        return sample


def losses_of(module: MembershipModule, fields: FieldsDataset, n_processes: int) -> float:
    """The loss over the fields as `n_processes` with batches of two deal them out."""
    module.val_loss.reset()
    for rank in range(n_processes):
        options = LoaderOptions(2, 0, seed=0, rank=rank, world_size=n_processes)
        for part in make_loader(fields, options, shuffle=False):
            module.validation_step(part, 0)
    return float(module.val_loss.compute())


@pytest.mark.parametrize("loss", [{}, {"pos_weight": 3.0}, {"focal_gamma": 2.0}])
def test_the_loss_does_not_depend_on_the_number_of_processes(
    card: Options, options: Options, fields_dir: Path, loss: dict[str, float]
) -> None:
    """It is the mean over counted cells, wherever batches end and turns are filled up."""
    options["loss"] |= loss
    torch.manual_seed(0)
    module = MembershipModule(card, **options).eval()
    fields = Uneven(index_folder(fields_dir)[:5], ["g", "r"])
    whole = default_collate([fields[number] for number in range(5)])
    with torch.inference_mode():
        expected = float(module._loss(module._scored(whole)[0], whole))
        for n_processes in (1, 2, 3):
            found = losses_of(module, fields, n_processes)
            assert found == pytest.approx(expected, rel=1e-5)


def test_rates_rise_and_fall(card: Options, options: Options) -> None:
    options["scheduler"] = {
        "_target_": "encoders.schedules.WarmupCosine",
        "total_steps": None,
        "warmup": 0.1,
        "final": 0.01,
    }
    module = MembershipModule(card, **options)
    module._trainer = SimpleNamespace(estimated_stepping_batches=100)  # type: ignore[assignment]
    built: Any = module.configure_optimizers()
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(120):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == rates[10] == pytest.approx(3e-3)
    assert rates[0] == pytest.approx(3e-3 / 11)
    assert rates[-1] == rates[100] == pytest.approx(3e-5)


@pytest.mark.parametrize(
    ("group", "target", "kind"),
    [
        ("network", "os.system", "Module"),
        ("network", "encoders.checkpoint.Path", "Module"),
        ("network", "torch.hub.load", "Module"),
        ("network", "encoders.fields.network.Missing", "Module"),
        ("network", None, "Module"),
    ],
)
def test_only_networks_are_built(
    card: Options, options: Options, group: str, target: str | None, kind: str
) -> None:
    options[group] = {**options[group], "_target_": target}
    with pytest.raises(ConfigError, match=f"expected _target_ to name a {kind} .*but got"):
        MembershipModule(card, **options)


def test_unknown_options_are_named(card: Options, options: Options) -> None:
    options["network"]["colour"] = 1
    with pytest.raises(ConfigError, match=r"cannot build encoders\.fields\.network.*'colour'"):
        MembershipModule(card, **options)


@pytest.mark.parametrize("total_steps", [None, -1])
def test_a_schedule_needs_an_end(total_steps: int | None) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    spec: dict[str, object] = {"_target_": "encoders.schedules.WarmupCosine"}
    spec |= {"warmup": 0.0, "final": 0.0, "total_steps": total_steps}
    with pytest.raises(ConfigError, match=f"total_steps = {total_steps}; set it .*total_steps=500"):
        build_scheduler(spec, optimizer, lambda: float("inf"))
    # Who gives the horizon is not asked for it.
    build_scheduler(spec | {"total_steps": 4}, optimizer, lambda: pytest.fail("asked"))


def test_wrong_schedule_is_refused() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ConfigError, match=r"but got warmup = 1\.5, final = 0"):
        WarmupCosine(optimizer, 10, 1.5, 0.0)


@pytest.mark.slow
def test_a_compiled_network_predicts_the_same(card: Options, options: Options) -> None:
    module = MembershipModule(card, **options).eval()
    whole = batch()
    with torch.inference_mode():
        wanted = module.predict_step(whole)
        module.compile_network()
        found = module.predict_step(whole)
    assert wanted.keys() == found.keys()
    for name in ("scores", *PROPERTIES):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)
