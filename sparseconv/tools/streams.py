"""Streams of scans: stages that work at the same time, and consecutive sweeps as one 4D tensor."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv import io
from sparseconv.core.arguments import came, check_int, check_kind
from sparseconv.errors import SparseConvValueError
from sparseconv.points.clouds import as_tensor
from sparseconv.points.point_map import PointMap
from sparseconv.points.voxels import voxelize
from sparseconv.tensor import SparseTensor

Stage = Callable[[Any], Any]


def pipeline(items: Iterable[Any], *stages: Stage, ahead: int = 2) -> Iterator[Any]:
    """Yield what the stages make of the items, in their order; all stages work at the same time.

    Each stage has a thread of its own: while the network runs on one scan, the next one's rulebooks
    are built, the one after it is voxelized and another one is read. Reading files, sorting,
    rulebooks and products let other threads of Python run. Stages run under the caller's engine,
    with or without gradients as the caller, and each on as many threads as the caller's
    ``torch.get_num_threads()``: 1 is best where there are more stages than processors. Autocast
    belongs into the stage.

    Args:
        items: what the first stage takes; drawn in the caller's thread, no faster than needed.
        stages: functions of one argument, each of what the one before returned.
        ahead: ``ahead * len(stages)`` items are under way at most, which bounds the memory.

    Raises:
        SparseConvError: no stage, or one that cannot be called. What a stage raises comes out
            in the place of its result, and ends the pipeline.

    Example:
        >>> import torch, sparseconv as sc
        >>> net = sc.nn.SubmConv3d(1, 4, 3)
        >>> clouds = [torch.rand(9, 3), torch.rand(5, 3)]
        >>> voxels = lambda xyz: sc.voxelize(xyz, 0.5)[0]
        >>> plan = sc.plan(net, voxels(clouds[0]))
        >>> maps = lambda x: x.replace(x.features) if x.sites.prepare(plan) else x
        >>> [y.channels for y in sc.pipeline(clouds, voxels, maps, net)]
        [4, 4]
    """
    check_int("ahead", ahead, least=1)
    if not stages:
        raise SparseConvValueError("stages: must be one function or more, got none")
    for number, stage in enumerate(stages):
        check_kind(f"stages[{number}]", stage, Callable, "a function")
    return _run(iter(items), stages, ahead * len(stages))


def _run(items: Iterator[Any], stages: Sequence[Stage], most: int) -> Iterator[Any]:
    """Keep ``most`` items under way, and yield the results of the oldest."""
    # a new thread would take as many processors as there are, whatever the caller set
    own = torch.set_num_threads, (torch.get_num_threads(),)
    threads = [ThreadPoolExecutor(1, f"stage {number}", *own) for number in range(len(stages))]
    under_way: deque[Future[Any]] = deque()
    try:
        for item in items:
            under_way.append(_started(item, stages, threads))
            del item  # the stages alone hold it
            if len(under_way) == most:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for thread in threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for thread in threads:
            thread.shutdown()


def _started(
    item: Any, stages: Sequence[Stage], threads: Sequence[ThreadPoolExecutor]
) -> Future[Any]:
    """Hand an item to the first stage, and each result to the next one; return the last result."""
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    result: Future[Any] = Future()
    result.set_result(item)
    for stage, thread in zip(stages, threads, strict=True):
        within: Callable[..., Any] = contextvars.copy_context().run
        result = thread.submit(within, _apply, stage, result, *modes)
    return result


def _apply(stage: Stage, before: Future[Any], grad: bool, inference: bool) -> Any:
    """Run a stage on the result of the one before, in the modes of the caller."""
    with torch.inference_mode(inference), torch.set_grad_enabled(grad):
        return stage(before.result())


def sweeps(
    scans: Sequence[Any],
    poses: Sequence[Any],
    voxel_size: float | Sequence[float],
    features: Sequence[Any] | None = None,
    multiple_of: int = 16,
    reduce: str = "mean",
) -> tuple[SparseTensor, PointMap]:
    """Return consecutive scans as voxels of time and space, in the frame of the last one.

    Time is the first of four axes, one step a scan, so that layers of 4D see what moves: what
    stands still has the same place at all times. :func:`sparseconv.collate` makes batches.

    Args:
        scans: T scans, the oldest first, of points ``[N, 3]``, metres, or of
            :class:`sparseconv.io.Points`, whose features count where ``features`` is left out.
        poses: of each scan the matrix ``[4, 4]`` from its frame into the world.
        voxel_size: metres, one number or one per spatial axis.
        features: floating point ``[N, C]`` of each scan; ones where left out.
        multiple_of, reduce: as of :func:`sparseconv.voxelize`, of the spatial axes.

    Returns:
        The SparseTensor ``[1, C, T, X, Y, Z]``, and the map of all points, one scan after the
        other; its ``xyz`` are ``(t, x, y, z)``.

    Raises:
        SparseConvError: no scan, poses or points of other shapes, and what voxelize raises.

    Example:
        >>> import torch, sparseconv as sc
        >>> moves = torch.eye(4)
        >>> moves[0, 3] = 1.0  # the sensor moved a metre ahead: a wall comes nearer
        >>> wall = [torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.0]])]
        >>> x, to_points = sc.sweeps(wall, [torch.eye(4), moves], 0.5)
        >>> x.coords.tolist()
        [[0, 0, 8, 0, 0], [0, 1, 8, 0, 0]]
    """
    if len(scans) == 0 or len(scans) != len(poses):
        raise SparseConvValueError(
            f"poses: must be one for each of the scans, 1 or more, got {len(poses)} for "
            f"{len(scans)} scans"
        )
    matrices = [_matrix(pose) for pose in poses]
    if features is None and all(isinstance(scan, io.Points) for scan in scans):
        names = {scan.feature_names for scan in scans}
        features = [scan.features for scan in scans] if names != {()} else None
    here = np.linalg.inv(matrices[-1])
    moved = [
        _at_time(time, scan, here @ matrix)
        for time, (scan, matrix) in enumerate(zip(scans, matrices, strict=True))
    ]
    sizes = np.broadcast_to(np.asarray(voxel_size, np.float64), 3).tolist()
    values = None if features is None else torch.cat([as_tensor("features", f) for f in features])
    box = (1, *[multiple_of] * 3)
    return voxelize(torch.cat(moved), (1.0, *sizes), values, multiple_of=box, reduce=reduce)


def _matrix(pose: Any) -> np.ndarray[Any, Any]:
    matrix = np.asarray(pose, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise SparseConvValueError(f"poses: must be finite matrices [4, 4], got {came(pose)}")
    return matrix


def _at_time(time: int, scan: Any, matrix: np.ndarray[Any, Any]) -> Tensor:
    """Return points ``[N, 4]`` of time and place, moved by a matrix; in their own dtype."""
    xyz = as_tensor("scans", scan.xyz if isinstance(scan, io.Points) else scan)
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise SparseConvValueError(f"scans: must be points [N, 3], got {tuple(xyz.shape)}")
    turn, shift = torch.from_numpy(matrix[:3, :3]), torch.from_numpy(matrix[:3, 3])
    there = xyz.double() @ turn.to(xyz.device).T + shift.to(xyz.device)
    return torch.cat([torch.full_like(there[:, :1], time), there], dim=1).to(xyz.dtype)
