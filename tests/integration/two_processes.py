"""What one of two processes does: every wrapper, against one process on the joined batch."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.checkpoint import checkpoint

import sparseconv as sc


class Net(nn.Module):
    """A small U-Net with a branch that not every step uses."""

    def __init__(self, sparse: bool, norm: bool = False, unused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sparse = sparse
        self.first = sc.nn.SubmConv3d(2, 4, 3)
        self.norm = nn.BatchNorm3d(4) if norm else nn.Identity()
        self.down = nn.Conv3d(4, 6, 2, 2)
        self.up = sc.nn.InverseConv3d(6, 3, 2, 2)
        self.unused = nn.Linear(3, 3) if unused else None

    def forward(self, x: sc.SparseTensor) -> sc.SparseTensor | Tensor:
        y = self.up(torch.relu(self.down(torch.relu(self.norm(self.first(x))))))
        return y if self.sparse else y.features


def batch(rank: int, empty: bool = False) -> sc.SparseTensor:
    """Return what process ``rank`` works on: a fifth more sites on the second one."""
    torch.manual_seed(10 + rank)
    coords = torch.nonzero(torch.rand(2, 6, 6, 6) < (0.2 if rank == 0 else 0.3))
    if empty and rank == 1:
        coords = coords[:0]
    features = torch.randn(len(coords), 2, dtype=torch.float64)
    return sc.SparseTensor(features, coords, (6, 6, 6), 2)


def loss(y: sc.SparseTensor | Tensor) -> Tensor:
    """Return the sum of a function whose gradient differs from row to row."""
    return (y if isinstance(y, Tensor) else y.features).sin().sum()


def gradients(net: nn.Module) -> dict[str, Tensor]:
    """Return every gradient there is, whole."""
    found = {}
    for name, parameter in net.named_parameters():
        grad = parameter.grad
        if grad is not None:
            whole = grad.full_tensor() if isinstance(grad, DTensor) else grad
            found[name.removeprefix("module.")] = whole.clone()
    return found


def truth(norm: bool = False, empty: bool = False) -> nn.Module:
    """Return a network after one backward pass of half the loss of the joined batch."""
    net = Net(True, norm).double()
    (loss(net(sc.collate([batch(0, empty), batch(1, empty)]))) / 2).backward()
    return net


def check(found: dict[str, Tensor], norm: bool = False, empty: bool = False) -> None:
    """Compare with the gradients of one process."""
    expected = gradients(truth(norm, empty))
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-12, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}"
        )


def ddp(rank: int, sparse: bool, **options: bool) -> None:
    unused = options.get("find_unused_parameters", False)
    model = DDP(Net(sparse, unused=unused).double(), **options)
    for _ in range(3):  # a static graph is learnt in the first step
        model.zero_grad()
        loss(model(batch(rank))).backward()
        check(gradients(model))


def ddp_checkpoint(rank: int) -> None:
    model = DDP(Net(True).double())
    loss(checkpoint(model, batch(rank), use_reentrant=False)).backward()
    check(gradients(model))


def ddp_empty(rank: int) -> None:
    model = DDP(Net(True).double(), static_graph=True)
    loss(model(batch(rank, empty=True))).backward()
    check(gradients(model), empty=True)


def join(rank: int) -> None:
    model = DDP(Net(True).double())
    steps = 0
    with model.join():
        for _ in range(1 + rank):
            model.zero_grad()
            loss(model(batch(rank))).backward()
            steps += 1
    assert steps == 1 + rank


def fsdp(rank: int, sparse: bool, blocks: bool, engine: str) -> None:
    net = Net(sparse).double()
    mesh = init_device_mesh("cpu", (2,))
    with sc.engine(engine):
        if blocks:
            for block in (net.first, net.down, net.up):
                fully_shard(block, mesh=mesh)
        model = fully_shard(net, mesh=mesh)
        for _ in range(2):
            model.zero_grad()
            loss(model(batch(rank))).backward()
            check(gradients(model))


def sync_batch_norm(rank: int, empty: bool) -> None:
    net = sc.nn.SyncBatchNorm.convert_sync_batchnorm(Net(True, norm=True).double())
    model = DDP(net)
    loss(model(batch(rank, empty))).backward()
    check(gradients(net), norm=True, empty=empty)
    expected = dict(truth(norm=True, empty=empty).named_buffers())
    for name, value in net.named_buffers():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-12, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}"
        )


def torch_sync_batch_norm(rank: int) -> None:
    """PyTorch's own module, which DDP refuses on the CPU: gradients are averaged by hand."""
    net = nn.SyncBatchNorm.convert_sync_batchnorm(Net(True, norm=True).double())
    loss(net(batch(rank))).backward()
    for parameter in net.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2
    check(gradients(net), norm=True)


CASES = {
    "plain": lambda rank: [ddp(rank, sparse) for sparse in (True, False)],
    "static graph": lambda rank: [ddp(rank, sparse, static_graph=True) for sparse in (True, False)],
    "unused": lambda rank: ddp(rank, True, find_unused_parameters=True),
    "bucket view": lambda rank: ddp(rank, True, gradient_as_bucket_view=True),
    "checkpoint": ddp_checkpoint,
    "a rank without sites": ddp_empty,
    "join": join,
    "fsdp root": lambda rank: [fsdp(rank, s, False, "numba") for s in (True, False)],
    "fsdp blocks": lambda rank: [fsdp(rank, s, True, "numba") for s in (True, False)],
    "fsdp torch": lambda rank: fsdp(rank, True, True, "torch"),
    "sync batch norm": lambda rank: sync_batch_norm(rank, empty=False),
    "torch's sync batch norm": torch_sync_batch_norm,
    "sync batch norm, empty": lambda rank: sync_batch_norm(rank, empty=True),
}


def main(rank: int, store: str) -> int:
    """Run every case; print what failed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=2)
    for name, case in CASES.items():
        try:
            case(rank)
        except Exception:
            traceback.print_exc()
            print(f"FAILED: {name}", flush=True)
            return 1
        print(f"passed: {name}", flush=True)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
