"""Normalisation by the statistics of samples and channel groups, as one rule of autograd.

``y = (x - mean) * rstd * weight + bias``, with mean and variance over the active sites of a sample
(or of the batch as one) and over a group of channels. Written out for the first derivative, which
is what training runs; the derivative's own derivatives come from the plain composition.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.rule import Rule, traceable
from sparseconv.autograd.samples import (
    composed_statistics,
    sample_moment,
    sample_spread,
    sample_statistics,
    sample_sum,
)
from sparseconv.core.dtypes import tree_sum, wider
from sparseconv.core.private_torch import derived, followed
from sparseconv.engines.protocol import running_affine
from sparseconv.sites.samples import Samples


class Plan(NamedTuple):
    """What is normalised together: the rows of a sample, and so many groups of channels."""

    samples: Samples
    groups: int
    eps: float


class _Normalise(Rule):
    @staticmethod
    def forward(
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        rstd: Tensor,
        plan: Plan,
    ) -> Tensor:
        scale = rstd * weight
        return _affine(((features, scale),), bias - mean * scale, plan.samples)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.plan = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, mean, rstd = ctx.saved_tensors
        samples, groups, _ = ctx.plan
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted
            inputs = [t.view_as(t) for t in (features, weight, bias)]
            rows = composed(inputs[0], inputs[1], inputs[2], ctx.plan)
            needed = [t for t in inputs if t.requires_grad]
            found = iter(torch.autograd.grad(rows, needed, grads[0], create_graph=True))
            return *(next(found) if t.requires_grad else None for t in inputs), None, None, None
        total, along = sample_moment(features, grads[0], mean, samples)  # [S, C], as all below
        along = along * rstd
        count = _values(samples, features.shape[1], groups, mean.dtype)
        level = group_sum(total * weight, groups) / count * rstd
        slope = group_sum(along * weight, groups) / count * rstd * rstd
        terms = (grads[0], rstd * weight), (features, -slope)
        d_features = _affine(terms, mean * slope - level, samples)
        return d_features, tree_sum(along), tree_sum(total), None, None, None


@traceable
def normalise(
    features: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: Samples,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised rows ``[N, C]``, and mean and (biased) variance ``[S, C]``.

    Args:
        features: ``[N, C]``; the statistics of half precisions are kept in float32.
        weight, bias: ``[C]`` or None for 1 and 0.
        samples: whose rows are normalised together.
        groups: of channels that are normalised together; C for each by itself.
        eps: added to the variance. A sample of one site (and one channel per group) gets the bias.
    """
    channels, seen = features.shape[1], followed()
    with torch.no_grad():
        statistics = composed_statistics if seen else sample_statistics
        sums, squares = statistics(features, samples)
        count = _values(samples, channels, groups, sums.dtype)
        mean = group_sum(sums, groups) / count
        if groups < channels:  # what is off the mean of the channel, to what is off the group's
            own = _values(samples, channels, channels, sums.dtype)
            squares = squares + own * (sums / own - mean).square()
        variance = group_sum(squares, groups) / count
        rstd = (variance + eps).rsqrt()
    weight = mean.new_ones(channels) if weight is None else weight.to(mean.dtype)
    bias = mean.new_zeros(channels) if bias is None else bias.to(mean.dtype)
    plan = Plan(samples, groups, eps)
    if seen:
        return composed(features, weight, bias, plan), mean, variance
    return _Normalise.call(features, weight, bias, mean, rstd, plan), mean, variance


@traceable
def by_statistics(
    features: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    samples: Samples,
) -> Tensor:
    """Return the rows ``[N, C]``, normalised by statistics ``[C]`` that are known.

    Args:
        features: ``[N, C]``.
        mean, variance: of each channel.
        weight, bias: ``[C]`` or None for 1 and 0.
        eps: added to the variance.
        samples: the whole batch as one.
    """
    given = mean, variance, weight, bias
    if not derived(features, *given):
        return engines.for_tensor(features).normalised_rows(features, *given, eps)
    return composed_by_statistics(features, *given, eps, samples)


def composed_by_statistics(
    features: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    samples: Samples,
) -> Tensor:
    """Return the same rows by operations that autograd follows."""
    given = mean, variance, weight, bias
    scale, shift = running_affine(*given, eps, wider(features.dtype))
    return affine(features, scale[None], shift[None], samples)


@traceable
def affine(features: Tensor, scale: Tensor, shift: Tensor, samples: Samples) -> Tensor:
    """Return ``features * scale + shift``, as half precision as they are.

    ``scale`` and ``shift`` are ``[S, C]`` per sample, float32 for half precisions.
    """
    if derived(features, scale, shift):
        return composed_affine(features, scale, shift, samples)
    return _affine(((features, scale),), shift, samples)


def composed_affine(features: Tensor, scale: Tensor, shift: Tensor, samples: Samples) -> Tensor:
    """Return the same rows by operations that autograd follows."""
    wide = features.to(scale.dtype)
    shifts, scales = sample_spread(shift, samples), sample_spread(scale, samples)
    return torch.addcmul(shifts, wide, scales).to(features.dtype)


def _affine(terms: tuple[tuple[Tensor, Tensor], ...], shift: Tensor, samples: Samples) -> Tensor:
    """Return the sum of rows times their sample's scales, and its shift; no derivative."""
    engine = engines.for_tensor(terms[0][0])
    return engine.affine_rows(terms, shift, samples.sample_of_row)


def composed(features: Tensor, weight: Tensor, bias: Tensor, plan: Plan) -> Tensor:
    """Return the same rows by operations that autograd follows."""
    samples, groups, eps = plan
    wide = features.to(weight.dtype)
    count = _values(samples, features.shape[1], groups, wide.dtype)
    mean = group_sum(sample_sum(wide, samples), groups) / count
    centred = wide - sample_spread(mean, samples)
    variance = group_sum(sample_sum(centred * centred, samples), groups) / count
    scale = (variance + eps).rsqrt() * weight
    return affine(centred, scale, bias.expand_as(scale), samples).to(features.dtype)


def _values(samples: Samples, channels: int, groups: int, dtype: torch.dtype) -> Tensor:
    """Return how many values are normalised together, ``[S, 1]``; 1 where a sample is empty."""
    some, size = samples.some.to(dtype), channels // groups
    return some if size == 1 else some * size


def group_sum(sums: Tensor, groups: int) -> Tensor:
    """Return, in every channel, the sum over its group's channels: ``[S, C]`` to ``[S, C]``."""
    size = sums.shape[1] // groups
    if size == 1:
        return sums
    parts = sums.unflatten(1, (groups, size)).movedim(2, 0)
    return tree_sum(parts)[:, :, None].expand(-1, -1, size).flatten(1)
