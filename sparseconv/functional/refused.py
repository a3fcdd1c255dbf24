"""PyTorch's functions without a sparse meaning, each with what to use instead.

Below them, the table's lines for functions whose meaning is registered without one.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sparseconv.core.dispatch import describe, refuse
from sparseconv.functional.values.arithmetic import OPERATIONS

refuse(
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.cross_entropy,
    F.nll_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
    F.kl_div,
    F.poisson_nll_loss,
    F.gaussian_nll_loss,
    F.soft_margin_loss,
    F.multilabel_margin_loss,
    F.multilabel_soft_margin_loss,
    F.multi_margin_loss,
    F.hinge_embedding_loss,
    F.margin_ranking_loss,
    F.cosine_embedding_loss,
    F.triplet_margin_loss,
    F.triplet_margin_with_distance_loss,
    F.ctc_loss,
    instead="compute the loss on x.features, a row per active site",
)
refuse(
    F.cosine_similarity,
    torch.cosine_similarity,
    F.pairwise_distance,
    F.pdist,
    instead="compute it on the features of two tensors on the same sites",
)
refuse(
    F.fractional_max_pool2d,
    F.fractional_max_pool3d,
    F.fractional_max_pool2d_with_indices,
    F.fractional_max_pool3d_with_indices,
    instead="use torch.nn.MaxPool with a stride",
)
refuse(F.fold, F.unfold, instead="use a convolution, which gathers windows by itself")
refuse(F.bilinear, instead="use torch.nn.Linear, or torch.nn.functional.bilinear on x.features")
refuse(F.embedding, F.embedding_bag, instead="look features up before making the SparseTensor")
refuse(
    F.scaled_dot_product_attention,
    F.multi_head_attention_forward,
    instead="attend over x.to_padded() and take x.from_padded back, or over x[b].features",
)
refuse(
    F.grid_sample,
    instead="use sparseconv.interpolate(x, points), which samples at points",
)
refuse(
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.Tensor.__matmul__,
    instead="use torch.nn.Linear for a map of the channels, or x.features",
)
refuse(
    torch.Tensor.backward,
    torch.Tensor.register_hook,
    torch.Tensor.retain_grad,
    instead="autograd follows x.features, call it there",
)
refuse(
    torch.prod,
    torch.median,
    torch.argmax,
    torch.argmin,
    torch.sort,
    torch.topk,
    torch.cumsum,
    torch.logsumexp,
    torch.linalg.vector_norm,
    instead="use x.features, a row per active site; torch.sum, mean, amax, amin, var, std and norm "
    "run over active sites",
)
refuse(
    torch.zeros_like,
    torch.ones_like,
    torch.empty_like,
    torch.full_like,
    torch.rand_like,
    torch.randn_like,
    instead="use x.replace with a tensor like x.features",
)

refuse(
    torch.Tensor.numpy,
    torch.Tensor.__array__,
    torch.Tensor.tolist,
    instead="use x.features.numpy(), a row per active site, and x.coords.numpy()",
)
refuse(
    torch.Tensor.to_sparse,
    instead="use torch.sparse_coo_tensor(x.coords.T, x.features)",
)
refuse(torch.Tensor.to_dense, instead="use x.dense()")

describe(
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    meaning="convolution; output sites are those whose window holds an active site",
    law="an inactive site counts 0",
)
describe(
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
    meaning="transposed convolution, at every site that an input reaches",
    law="an inactive site counts 0",
)
for _names in OPERATIONS.values():
    describe(
        *_names,
        meaning="row by row with a tensor, a number or another SparseTensor",
        law="on different sites the union, where an absent row counts 0",
    )
describe(
    torch.Tensor.__rsub__,
    torch.Tensor.__rtruediv__,
    meaning="row by row, with a dense tensor on the left",
    law="the dense tensor broadcasts to the shape",
)
