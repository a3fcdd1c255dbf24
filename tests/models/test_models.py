"""The U-Net: dense and sparse agree, sites stay, and kernel_size=1 sees no neighbour."""

import pytest
import torch

import sparseconv as sc
from sparseconv.models import UNet
from sparseconv.models import unet as unet_module


def network(dimensions=3, kernel_size=3, widths=(4, 6, 8), convolutions=1):
    """A U-Net in float64 whose normalisation does something in eval mode."""
    torch.manual_seed(0)
    net = UNet(3, 5, widths, kernel_size, dimensions, convolutions).double()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.normal_(module.bias, std=0.2)
    return net.eval()


def scattered(sites=60, extent=16, dimensions=3, seed=0):
    """A sparse tensor in float64 on random sites of a grid, two samples, rows in random order."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(2 * extent**dimensions, generator=generator)[:sites]
    coords = [cells // extent**axis % extent for axis in range(dimensions)]
    coords = torch.stack([cells // extent**dimensions, *coords], dim=1)
    features = torch.randn(sites, 3, generator=generator, dtype=torch.float64)
    return sc.SparseTensor(features, coords, (extent,) * dimensions, 2)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_dense_and_sparse_agree_where_every_site_is_active(dimensions, kernel_size):
    net = network(dimensions, kernel_size, convolutions=2)
    t = torch.randn(2, 3, *(8, 4, 12)[:dimensions], dtype=torch.float64)
    x = sc.SparseTensor.from_dense(t, mask=torch.ones(2, *t.shape[2:], dtype=torch.bool))
    torch.testing.assert_close(net(x).dense(), net(t), rtol=1e-12, atol=1e-12)


def test_dense_and_sparse_agree_in_training_and_learn_the_same_statistics():
    dense_net, sparse_net = network().train(), network().train()
    t = torch.randn(2, 3, 4, 4, 8, dtype=torch.float64)
    x = sc.SparseTensor.from_dense(t)
    torch.testing.assert_close(sparse_net(x).dense(), dense_net(t), rtol=1e-10, atol=1e-10)
    # torch's variance is unbiased in both, over the same number of sites
    torch.testing.assert_close(sparse_net.state_dict(), dense_net.state_dict())


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_output_lives_on_the_input_sites(kernel_size):
    x = scattered()
    y = network(kernel_size=kernel_size)(x)
    assert y.sites is x.sites
    assert y.shape == (2, 5, 16, 16, 16)


def test_a_single_level_is_a_plain_submanifold_network():
    x = scattered()
    assert network(widths=(4,))(x).sites is x.sites


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_only_kernel_size_one_sees_no_neighbour(kernel_size):
    net, x = network(kernel_size=kernel_size), scattered(sites=2000)
    changed = x.features.clone()
    changed[7] += 1
    moved = (net(x.replace(changed)).features != net(x).features).any(dim=1)
    assert bool(moved[7])
    if kernel_size == 1:
        assert int(moved.sum()) == 1
    else:
        assert int(moved.sum()) > 27, "more than one window: other levels pass it on"


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_gradient_reaches_every_weight_and_the_input(kernel_size):
    net, x = network(kernel_size=kernel_size).train(), scattered(sites=500).requires_grad_()
    (net(x).features ** 2).sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    gradients["input"] = x.features.grad
    idle = [name for name, grad in gradients.items() if grad is None or not bool(grad.any())]
    assert idle == []


def test_layers_of_one_level_share_a_rulebook():
    x = scattered()
    network(convolutions=2)(x)
    cells = sorted(geometry.num_cells for geometry in x.sites.rulebooks)
    assert cells == [1, 8, 27]  # the head, the way down (and up), all submanifold layers


def test_the_module_is_reachable_by_name():
    assert unet_module.UNet is UNet


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"dimensions": 4}, {"convolutions": 0}, {"kernel_size": 2}]
)
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(sc.SparseConvError, match=next(iter(wrong))):
        UNet(3, 5, **wrong)
