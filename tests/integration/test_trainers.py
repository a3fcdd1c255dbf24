"""Lightning, accelerate and torchinfo, where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sparseconv as sc

pytestmark = pytest.mark.filterwarnings("ignore")  # of these packages' own affairs


def scan(count: int, batch_size: int = 2) -> sc.SparseTensor:
    coords = torch.randint(0, 8, (count, 4))
    coords[:, 0] %= batch_size
    coords = torch.unique(coords, dim=0)
    return sc.SparseTensor(torch.randn(len(coords), 2), coords, (8, 8, 8), batch_size)


def network() -> nn.Module:
    layers = sc.nn.SubmConv3d(2, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), sc.nn.GlobalAvgPool()
    return nn.Sequential(*layers, nn.Linear(4, 3))


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed"])
def test_lightning_fits_and_logs(precision: str, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    seen: list[torch.dtype] = []

    class Model(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            x, labels = batch
            seen.append(x.dtype)
            loss = nn.functional.cross_entropy(self.net(x).float(), labels)
            self.log("loss", loss, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    batches = [(scan(60), torch.tensor([0, 1])) for _ in range(3)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    model = Model()
    before = [p.detach().clone() for p in model.parameters()]
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, loader)
    wanted = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    assert seen == [wanted] * 3
    assert "loss_epoch" in trainer.callback_metrics
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_lightning_finds_the_batch_size() -> None:
    data = pytest.importorskip("lightning.pytorch.utilities.data")
    assert data.extract_batch_size((scan(60, 3), torch.zeros(3))) == 3


def test_accelerate_takes_a_step() -> None:
    accelerate = pytest.importorskip("accelerate")
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader([(scan(60), torch.tensor([0, 1]))], batch_size=None)  # type: ignore[arg-type]
    run = accelerate.Accelerator(cpu=True)
    net, optimizer, loader = run.prepare(net, optimizer, loader)
    for x, labels in loader:
        run.backward(nn.functional.cross_entropy(net(x), labels))
        optimizer.step()
    assert all(p.grad is not None for p in net.parameters())


def test_torchinfo_refuses_in_its_own_words() -> None:
    torchinfo = pytest.importorskip("torchinfo")
    with pytest.raises(RuntimeError, match="torchinfo") as raised:
        torchinfo.summary(network(), input_data=[scan(60)], verbose=0)
    assert "unsupported input or output type: SparseTensor" in str(raised.value.__cause__)
