"""The module outside of a training: hyper-parameters, forward, prediction, optimiser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datagen.errors import ConfigError
from encoders.fields.module import MembershipModule
from encoders.schedules import WarmupCosine

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
    # Untrained, it answers about the base rate of its training cells.
    assert out["scores"].mean() == pytest.approx(card["prevalence"], rel=0.2)


def test_masked_pixels_look_like_empty_sky(card: Options, options: Options) -> None:
    module = MembershipModule(card, **options).eval()
    one, other = batch(), batch()
    mask = torch.zeros(2, 128, 128, dtype=torch.bool)
    mask[:, :20] = True
    one["images"][:, :, :20], other["images"][:, :, :20] = 5.0, torch.nan
    other["images"][:, :, 10:20] = 1e9
    with torch.inference_mode():
        clean = module.predict_step(one)["scores"]
        assert torch.equal(module.predict_step({**other, "mask": mask})["scores"], clean)
        both = mask[:, None].expand(-1, 2, -1, -1)
        assert torch.equal(module.predict_step({**other, "mask": both})["scores"], clean)


def test_scale_of_the_counts_does_not_matter(card: Options, options: Options) -> None:
    module = MembershipModule(card, **options).eval()
    one = batch()
    with torch.inference_mode():
        first = module(one["images"], one["background"], one["sigma"])
        second = module(7 * one["images"], 7 * one["background"], 7 * one["sigma"])
    assert torch.allclose(first, second, atol=1e-5)


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


def test_wrong_schedule_is_refused() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ConfigError, match=r"but got warmup = 1\.5, final = 0"):
        WarmupCosine(optimizer, 10, 1.5, 0.0)
