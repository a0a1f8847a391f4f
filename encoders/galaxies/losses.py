"""Losses of two views of a batch of stamps.

All are functions of what a network says of two views, in two tensors whose rows belong together,
and of the objects that the stamps show. In distributed training a process returns the mean over its
own rows, compared with the rows of all: the mean over processes, of losses and of gradients, is
that of one process with all rows. All have single precision at least, also where training is mixed.

With `objects`, stamps of one object never repel each other: they are left out, or attract each
other `as_positives`. Without, all other stamps repel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, mse_loss, normalize

from encoders.distributed import gathered
from encoders.galaxies.negatives import Pairs, across_views, among_views, stamps_of
from encoders.galaxies.queue import Neighbours
from encoders.precision import precise

# Added to variances before their root, whose slope is infinite at 0 (VICReg).
LEAST_VARIANCE = 1e-4


def nt_xent(
    a: Tensor,
    b: Tensor,
    temperature: float,
    objects: Tensor | None = None,
    as_positives: bool = False,
) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy of SimCLR.

    Chen et al. (2020, arXiv:2002.05709, eq. 1): with cosines s and positives P, negatives N of an
    anchor i, which is each row of either view,
    `L_i = log sum_{k in P + N} exp(s_ik / tau) - mean_{p in P} s_ip / tau`.
    Several positives enter as in Khosla et al. (2020, arXiv:2004.11362, eq. 2).

    Args:
        a: Projected first view (B, D).
        b: Projected second view of the same stamps (B, D).
        temperature: tau > 0.
        objects: Which object each stamp shows, >= 0 (B,), int64.
        as_positives: Whether stamps of one object attract each other, or are left out.
    """
    logits, pairs = _both_views(a, b, temperature, objects, as_positives)
    return _attraction(logits, pairs, pairs.is_positive | pairs.is_negative)


def dcl(
    a: Tensor,
    b: Tensor,
    temperature: float,
    objects: Tensor | None = None,
    as_positives: bool = False,
) -> Tensor:
    """Return the decoupled contrastive loss: `nt_xent` without positives in the sum.

    Yeh et al. (2022, arXiv:2110.06848, eq. 5):
    `L_i = log sum_{k in N} exp(s_ik / tau) - mean_{p in P} s_ip / tau`. An anchor without negatives
    is only attracted.

    Args:
        a: Projected first view (B, D).
        b: Projected second view of the same stamps (B, D).
        temperature: tau > 0.
        objects: Which object each stamp shows, >= 0 (B,), int64.
        as_positives: Whether stamps of one object attract each other, or are left out.
    """
    logits, pairs = _both_views(a, b, temperature, objects, as_positives)
    return _attraction(logits, pairs, pairs.is_negative)


def nnclr(
    near_a: Neighbours,
    near_b: Neighbours,
    predicted_a: Tensor,
    predicted_b: Tensor,
    temperature: float,
    objects: Tensor | None = None,
    as_positives: bool = False,
) -> Tensor:
    """Return the loss of nearest neighbours as positives.

    Dwibedi et al. (2021, arXiv:2104.14548, eq. 2 and appendix A): the neighbour of a stamp's view
    in a queue shall be near the prediction from its other view, and far from those from others:
    `L_i = log sum_k exp(n_i p_k / tau) - n_i p_i / tau`, mean over both directions. An anchor shows
    the object of its stamp and that of its neighbour.

    Args:
        near_a: Neighbours of the projected first view (B, D), without gradient.
        near_b: Neighbours of the projected second view (B, D).
        predicted_a: What the predictor says of the first view (B, D).
        predicted_b: What it says of the second view (B, D).
        temperature: tau > 0.
        objects: Which object each stamp shows, >= 0 (B,), int64.
        as_positives: Whether stamps of one object attract each other, or are left out.
    """
    stamps, total = stamps_of(predicted_a, objects), torch.zeros((), device=predicted_a.device)
    for near, predicted in ((near_a, predicted_b), (near_b, predicted_a)):
        pairs = across_views(stamps, as_positives, None if objects is None else near.objects)
        logits = _cosines(_unit(near.rows.detach()), gathered(_unit(predicted))) / temperature
        total = total + _attraction(logits, pairs, pairs.is_positive | pairs.is_negative)
    return total / 2


def siglip(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    bias: Tensor,
    objects: Tensor | None = None,
    as_positives: bool = False,
) -> Tensor:
    """Return the sigmoid loss of pairs.

    Zhai et al. (2023, arXiv:2303.15343, eq. 1 and algorithm 1): whether two views show one stamp is
    a yes or no for each pair, `L = -1/B sum_ij log sigmoid(z_ij (t s_ij + bias))` with z = 1 for
    positives and -1 for negatives.

    Args:
        a: Projected first view (B, D).
        b: Projected second view of the same stamps (B, D).
        scale: t > 0, the inverse of a temperature, a scalar that is learned.
        bias: A scalar that is learned.
        objects: Which object each stamp shows, >= 0 (B,), int64.
        as_positives: Whether stamps of one object attract each other, or are left out.
    """
    pairs = across_views(stamps_of(a, objects), as_positives)
    logits = precise(scale) * _cosines(_unit(a), gathered(_unit(b))) + precise(bias)
    positive = torch.where(pairs.is_positive, logsigmoid(logits), 0.0)
    negative = torch.where(pairs.is_negative, logsigmoid(-logits), 0.0)
    return -(positive + negative).sum(dim=1).mean()


def vicreg(a: Tensor, b: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """Return the loss of variance, invariance and covariance.

    Bardes et al. (2022, arXiv:2105.04906, eq. 6), with the means of the authors' code: squared
    distances are a mean over rows and dimensions, and the variance term a mean over views,
    `v(z) = mean_d max(0, 1 - sqrt(var z_d + 1e-4))`; `c(z) = sum_{d != e} cov(z)_de^2 / D` is
    summed over views.

    Args:
        a: Expanded first view (B, D).
        b: Expanded second view of the same stamps (B, D).
        invariance: Weight of the squared distance, published 25.
        variance: Weight of v, published 25.
        covariance: Weight of c, published 1.
    """
    a, b = precise(a), precise(b)
    spread_a, shared_a = _spread(gathered(a))
    spread_b, shared_b = _spread(gathered(b))
    loss = invariance * mse_loss(a, b) + variance * (spread_a + spread_b) / 2
    return loss + covariance * (shared_a + shared_b)


def byol(predicted_a: Tensor, predicted_b: Tensor, target_a: Tensor, target_b: Tensor) -> Tensor:
    """Return the distance of predictions from what a slow copy of the network projects.

    Grill et al. (2020, arXiv:2006.07733, eq. 2): `2 - 2 cos(predicted_a, target_b)`, mean over
    stamps, and the same with the views exchanged. Targets get no gradient.

    Args:
        predicted_a: What the predictor says of the first view (B, D).
        predicted_b: What it says of the second view (B, D).
        target_a: First view as the copy projects it (B, D).
        target_b: Second view as the copy projects it (B, D).
    """
    cosines = (_unit(predicted_a) * _unit(target_b.detach())).sum(dim=1)
    cosines = cosines + (_unit(predicted_b) * _unit(target_a.detach())).sum(dim=1)
    return 4.0 - 2.0 * cosines.mean()


def _both_views(
    a: Tensor, b: Tensor, temperature: float, objects: Tensor | None, as_positives: bool
) -> tuple[Tensor, Pairs]:
    """Return logits (2 B, 2 n_processes B) of both views against both views of all processes."""
    a, b = _unit(a), _unit(b)
    keys = torch.cat(gathered(torch.cat((a, b), dim=1)).chunk(2, dim=1))
    pairs = among_views(stamps_of(a, objects), as_positives)
    return _cosines(torch.cat((a, b)), keys) / temperature, pairs


def _attraction(logits: Tensor, pairs: Pairs, is_counted: Tensor) -> Tensor:
    """Return the mean of `log sum_counted exp(logit) - mean_positive logit` over anchors."""
    total = logits.masked_fill(~is_counted, -torch.inf).logsumexp(dim=1)
    total = torch.where(is_counted.any(dim=1), total, 0.0)
    attracted = torch.where(pairs.is_positive, logits, 0.0).sum(dim=1)
    return (total - attracted / pairs.is_positive.sum(dim=1)).mean()


def _spread(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far dimensions fall short of variance 1, and what they share (v and c)."""
    centred = rows - rows.mean(dim=0)
    with torch.autocast(rows.device.type, enabled=False):
        matrix = centred.T @ centred / (len(rows) - 1)
    short = (1.0 - (matrix.diagonal() + LEAST_VARIANCE).sqrt()).relu().mean()
    shared = matrix - torch.diag_embed(matrix.diagonal())
    return short, shared.square().sum() / rows.shape[1]


def _unit(rows: Tensor) -> Tensor:
    return normalize(precise(rows), dim=1)


def _cosines(anchors: Tensor, keys: Tensor) -> Tensor:
    """Return the products (n, m) of unit rows, which mixed training would round."""
    with torch.autocast(anchors.device.type, enabled=False):
        return anchors @ keys.T
