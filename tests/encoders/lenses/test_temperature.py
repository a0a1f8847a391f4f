"""Temperature and the threshold of unsure images."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy as reference

from datagen.errors import ConfigError
from encoders.calibration import cross_entropy, fit_temperature
from encoders.lenses.calibration import check_coverage, unsure_threshold


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose true probabilities are softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3.0 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    p = torch.softmax(logits / temperature, dim=1)
    return logits, torch.multinomial(p, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.4, 3.0, 20.0])
def test_it_finds_the_temperature(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)
    best = minimize_scalar(
        lambda t: float(reference(logits / t, labels)), bounds=(0.01, 100), method="bounded"
    )
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(best.x, rel=0.02)
    assert cross_entropy(logits / found, labels) == pytest.approx(best.fun, rel=1e-4)


def test_chance_changes_nothing() -> None:
    changed = [fit_temperature(*drawn(60, 1.0, seed)) != 1.0 for seed in range(200)]
    assert sum(changed) < 25
    assert fit_temperature(torch.zeros(0, 3).double(), torch.zeros(0).long()) == 1.0


def test_the_temperature_stays_finite() -> None:
    logits, _ = drawn(500, 1.0)
    # All right: the colder the better, but few images say less than many.
    right = logits.argmax(dim=1)
    few, many = fit_temperature(logits[:50], right[:50]), fit_temperature(logits, right)
    assert 0.01 < many < few < 1.0
    # Worse than chance: the hotter the better.
    assert fit_temperature(logits, logits.argmin(dim=1)) == pytest.approx(100.0, rel=0.1)
    logits[0, 0] = torch.nan
    assert fit_temperature(logits, right) == 1.0


def test_the_most_confident_images_stay() -> None:
    confidence = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    for coverage in (0.01, 0.5, 0.9, 1.0):
        kept = confidence >= unsure_threshold(confidence, coverage)
        assert float(kept.double().mean()) == pytest.approx(coverage)
    assert unsure_threshold(confidence[:0], 0.9) == 0.0
    for coverage in (0.0, 1.1):
        with pytest.raises(ConfigError, match=f"coverage <= 1, but got coverage = {coverage}"):
            check_coverage(coverage)
