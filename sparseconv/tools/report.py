"""What a model does to a tensor, layer by layer, as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparseconv.core.arguments import check_kind
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvError
from sparseconv.functional.checks import Input
from sparseconv.tensor import SparseTensor
from sparseconv.tools.fields.receptive_field import receptive_field
from sparseconv.tools.watching import Observed, watching

_COLUMNS = ("layer", "kind", "output", "sites", "pairs", "FLOPs", "of dense", "params", "memory",
            "peak", "field")  # fmt: skip


@dataclass(frozen=True)
class SummaryRow:
    """One layer's line of the table.

    Attributes:
        name, kind: the module's qualified name and its class, or the function.
        shape: the output's dense shape.
        sites: active output sites; all positions of a dense output.
        pairs: pairs (input site, output site) that it goes through.
        flops, dense_flops: multiplications and additions of its products, and those of the dense
            run.
        parameters: number of its own parameters.
        memory: bytes of its output's features, and of the pairs that it was the first to need.
        peak: bytes of its input, its output and of all pairs and coordinates until then.
        field: receptive field per axis; empty where the layer has no window.
        warnings: sites that vanish here.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    sites: int
    pairs: int
    flops: int
    dense_flops: int
    parameters: int
    memory: int
    peak: int
    field: tuple[int, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """The lines of a model's table; ``str`` of it is the table.

    Attributes:
        rows: one per layer that ran, in order.
        parameters: number of the model's parameters, shared ones once.
        note: why there is no receptive field, where there is none.
    """

    rows: tuple[SummaryRow, ...]
    parameters: int
    note: str = ""

    @property
    def flops(self) -> int:
        """FLOPs of all products."""
        return sum(row.flops for row in self.rows)

    @property
    def dense_flops(self) -> int:
        """FLOPs of the same products on the whole grid."""
        return sum(row.dense_flops for row in self.rows)

    @property
    def peak(self) -> int:
        """Bytes at the layer that needs the most, without gradients."""
        return max((row.peak for row in self.rows), default=0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All layers' warnings."""
        return tuple(f"{row.name}: {text}" for row in self.rows for text in row.warnings)

    def __str__(self) -> str:
        """Return the table, the totals and the warnings."""
        lines = [_COLUMNS, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        table.insert(1, "-" * max(map(len, table)))
        share = f", {_share(self.flops, self.dense_flops)} of the dense run" * bool(self.flops)
        table.append("")
        table.append(
            f"{self.parameters:,} parameters, {_short(self.flops)} FLOPs{share}, peak "
            f"{_bytes(self.peak)} without gradients"
        )
        if self.note:
            table.append(f"no receptive field: {self.note}")
        table += [f"! {warning}" for warning in self.warnings]
        return "\n".join(table)


def summary(model: torch.nn.Module, x: Input, show: bool = True) -> Summary:
    """Run ``model`` on ``x`` and print, layer by layer, what it did.

    Per layer: output channels and extent, active sites, pairs of the rulebook, FLOPs and their
    share of the dense run's, parameters, memory and receptive field; and a warning where sites
    vanish: where no window reads them, or a sample is left without any. The model is run once, in
    eval mode without gradients, and left as it was.

    Args:
        model: any PyTorch module with one input.
        x: a SparseTensor, or a dense tensor ``[B, C, *spatial]``.
        show: whether to print the table.

    Returns:
        The :class:`Summary`, whose rows hold the numbers.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(3, 1), torch.tensor([[0, 0], [0, 1], [0, 8]]), (9,))
        >>> table = sc.summary(torch.nn.Conv1d(1, 4, 2, stride=2, bias=False), x)
        layer   kind    output  sites  pairs  FLOPs  of dense  params  memory  peak  field
        ----------------------------------------------------------------------------------
        Conv1d  Conv1d  4 x 4       1      2     16       25%       8    32 B  76 B  2
        <BLANKLINE>
        8 parameters, 16 FLOPs, 25% of the dense run, peak 76 B without gradients
        ! Conv1d: 1 of 3 input sites are read by no window
    """
    check_kind("model", model, torch.nn.Module, "a torch.nn.Module")
    check_kind("x", x, torch.Tensor | SparseTensor, "a SparseTensor or a torch.Tensor")
    with watching(model) as layers:
        model(x)
    fields, note = _fields(model, x)
    rows = _rows([layer for layer in layers if _is_tensor(layer.output)], fields)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result = Summary(rows, parameters, note)
    if show:
        sys.stdout.write(f"{result}\n")
    return result


def _fields(model: torch.nn.Module, x: Input) -> tuple[dict[str, list[tuple[int, ...]]], str]:
    """Return the receptive fields of each name's calls, or why there are none."""
    fields: dict[str, list[tuple[int, ...]]] = {}
    try:
        rows = receptive_field(model, tuple(x.shape))
    except (SparseConvError, RuntimeError, AttributeError, TypeError) as error:
        return {}, str(error).partition("\n")[0]
    for row in rows:
        fields.setdefault(row.name, []).append(row.r)
    return fields, ""


def _rows(
    layers: Sequence[Observed], fields: dict[str, list[tuple[int, ...]]]
) -> tuple[SummaryRow, ...]:
    rows = []
    sizes: dict[int, int] = {}  # bytes of pairs and coordinates, by the identity of their memory
    waiting = {name: iter(calls) for name, calls in fields.items()}
    for layer in layers:
        before = sum(sizes.values())
        for tensor in (layer.input, layer.output):
            if isinstance(tensor, SparseTensor):
                sizes[tensor.sites.index.keys.data_ptr()] = _size(tensor.sites.index.keys)
        with_sites = sum(sizes.values())
        for rulebook in layer.rulebooks:
            pairs = rulebook.in_rows.data_ptr() ^ rulebook.out_rows.data_ptr()
            sizes[pairs] = _pair_bytes(rulebook)
        everything = sum(sizes.values())
        output = _features(layer.output)
        field = next(waiting.get(layer.name, iter(())), ())
        rows.append(
            SummaryRow(
                layer.name,
                layer.kind,
                tuple(layer.output.shape),
                _sites(layer.output),
                sum(rulebook.num_pairs for rulebook in layer.rulebooks),
                layer.flops,
                layer.dense_flops,
                layer.parameters,
                output + everything - with_sites,
                output + _features(layer.input) + max(everything, before),
                field,
                _vanishing(layer),
            )
        )
    return tuple(rows)


def _vanishing(layer: Observed) -> tuple[str, ...]:
    """Return a warning for sites that no window reads and samples that lose their last site."""
    x, y = layer.input, layer.output
    if not isinstance(x, SparseTensor) or not isinstance(y, SparseTensor):
        return ()
    warnings = []
    for rulebook in layer.rulebooks:
        unread = rulebook.n_in - torch.unique(rulebook.in_rows).numel()
        if unread:
            warnings.append(f"{unread} of {rulebook.n_in} input sites are read by no window")
    alive = set(torch.unique(x.coords[:, 0]).tolist())
    emptied = sorted(alive - set(torch.unique(y.coords[:, 0]).tolist()))
    if emptied and x.batch_size == y.batch_size:
        warnings.append(f"samples {emptied} have no site left")
    return tuple(warnings)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor | SparseTensor)


def _size(t: torch.Tensor) -> int:
    return t.numel() * t.element_size()


def _features(x: Input) -> int:
    return _size(x.features if isinstance(x, SparseTensor) else x)


def _pair_bytes(rulebook: Rulebook) -> int:
    return _size(rulebook.in_rows) + _size(rulebook.out_rows)


def _sites(x: Input) -> int:
    if isinstance(x, SparseTensor):
        return x.num_sites
    return x.numel() // x.shape[1] if x.ndim > 1 and x.shape[1] else x.numel()


def _cells(row: SummaryRow) -> tuple[str, ...]:
    """Return a line of the table as text."""
    extent = " x ".join(map(str, row.shape[1:]))
    return (
        row.name,
        row.kind,
        extent,
        f"{row.sites:,}",
        f"{row.pairs:,}" if row.pairs else "",
        _short(row.flops) if row.dense_flops else "",
        _share(row.flops, row.dense_flops) if row.dense_flops else "",
        f"{row.parameters:,}" if row.parameters else "",
        _bytes(row.memory),
        _bytes(row.peak),
        " x ".join(map(str, row.field)),
    )


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return text to the left and numbers to the right."""
    return [
        cell.ljust(width) if column in (0, 1, 2, len(cells) - 1) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]


def _share(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f}%" if share >= 10 or share == 0 else f"{share:.2g}%"


def _short(count: int) -> str:
    value = float(count)
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1000
    return f"{value:.0f}{unit}" if unit == "" else f"{value:.3g}{unit}"


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 999.5 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
