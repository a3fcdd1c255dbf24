"""Label scans over HTTP: a scan in any format that `sparseconv` reads goes in, labels come out.

    pip install -e '.[serve]'
    sparseconv train scans/ -o weights.pt                      # or any network of that command
    OMP_WAIT_POLICY=PASSIVE python examples/serve.py --weights weights.pt
    curl --data-binary @scan.bin 'http://127.0.0.1:8000/label?name=scan.bin'
    curl http://127.0.0.1:8000/health

What waits together runs as one batch, and each scan gets the labels that it gets alone. A request
that is too large is answered 413, one whose body comes too slowly 408, a file that cannot be
labelled 422, and one that waits for too long 503: each with one line that says why. On several
processors start one process each, with one thread (`--threads 1`), behind a proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import sparseconv as sc
from sparseconv.io.labels import NO_LABEL
from sparseconv.models.point_labeller import PointLabeller, load_labeller

log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Limits:
    """What one request, and one batch, may cost.

    Attributes:
        bytes: of a body.
        points: of a scan, and of a batch of several scans.
        body_seconds: from the first to the last byte of a body.
        wait_seconds: from the last byte to the labels.
        scans: in a batch.
        waiting: scans that wait for a batch; more are refused at once.
    """

    bytes: int = 64 << 20
    points: int = 2_000_000
    body_seconds: float = 10.0
    wait_seconds: float = 30.0
    scans: int = 8
    waiting: int = 64


class Refused(Exception):
    """What a client is told: a status and one line."""

    def __init__(self, status: int, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.status, self.reason = status, reason.partition("\n")[0]


class Named(io.BytesIO):
    """Bytes of a file with a name, whose suffix names the format."""

    def __init__(self, data: bytes, name: str) -> None:
        """Open the bytes."""
        super().__init__(data)
        self.name = name


def label_together(network: PointLabeller, scans: list[sc.io.Points]) -> list[np.ndarray]:
    """Return the labels of each scan, those that ``network.label`` gives it alone.

    Args:
        network: in evaluation.
        scans: at least one; points without a finite position get the label -1.
    """
    finite = [np.isfinite(points.xyz).all(axis=1) for points in scans]
    labels = [np.full(len(points), NO_LABEL, np.int64) for points in scans]
    numbers = [number for number, mask in enumerate(finite) if mask.any()]
    if not numbers:
        return labels
    pairs = [network.voxels(scans[number][finite[number]]) for number in numbers]
    with torch.inference_mode():
        scores = network.network(sc.collate([x for x, _ in pairs])).split()
    names = np.array(network.settings.labels)
    for number, (_, to_points), own in zip(numbers, pairs, scores, strict=True):
        labels[number][finite[number]] = names[to_points(own).argmax(dim=1).numpy()]
    return labels


@dataclass(eq=False)
class Job:
    """A scan that waits, and who waits for its labels."""

    points: sc.io.Points
    labels: asyncio.Future[np.ndarray]


class Batcher:
    """Labels scans on a thread of its own: at each turn all that wait, as far as the limits go."""

    def __init__(self, network: PointLabeller, limits: Limits) -> None:
        """Keep both; nothing runs yet."""
        self.network, self.limits = network, limits
        self.jobs: list[Job] = []
        self.arrived = asyncio.Event()
        self.labelled = self.batches = 0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    async def label(self, points: sc.io.Points) -> np.ndarray:
        """Return the labels of a scan.

        Raises:
            Refused: too many scans wait, this one did so for too long, or it cannot be labelled.
        """
        if len(self.jobs) >= self.limits.waiting:
            raise Refused(503, f"{len(self.jobs)} scans are waiting already, try again later")
        job = Job(points, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        self.arrived.set()
        try:
            return await asyncio.wait_for(job.labels, self.limits.wait_seconds)
        except asyncio.TimeoutError:
            seconds = self.limits.wait_seconds
            raise Refused(503, f"the scan waited for {seconds:g} s, try again later") from None

    async def run(self) -> None:
        """Label what comes, for ever."""
        while True:
            await self.arrived.wait()
            batch = self._next()
            if not self.jobs:
                self.arrived.clear()
            if batch:
                await self._label(batch)

    def _next(self) -> list[Job]:
        """Take the next scans; nobody waits any more for those that are left out."""
        batch: list[Job] = []
        self.jobs = [job for job in self.jobs if not job.labels.done()]
        while self.jobs and len(batch) < self.limits.scans:
            together = sum(len(job.points) for job in (*batch, self.jobs[0]))
            if batch and together > self.limits.points:
                break
            batch.append(self.jobs.pop(0))
        return batch

    async def _label(self, batch: list[Job]) -> None:
        """Answer a batch; where it fails, each scan alone, so that none answers for another."""
        loop = asyncio.get_running_loop()
        scans = [job.points for job in batch]
        try:
            found = await loop.run_in_executor(self.thread, label_together, self.network, scans)
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    await self._label([job])
                return
            if not batch[0].labels.done():
                batch[0].labels.set_exception(told(error))
            return
        self.batches += 1
        self.labelled += len(batch)
        for job, labels in zip(batch, found, strict=True):
            if not job.labels.done():
                job.labels.set_result(labels)


def told(error: Exception) -> Refused:
    """Return what a client is told of an error; one that is not its own goes to the log."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, sc.SparseConvError | OSError):
        return Refused(422, str(error))
    if isinstance(error, MemoryError):
        return Refused(413, "the scan needs more memory than there is")
    log.error("%s: %s", type(error).__name__, str(error).partition("\n")[0])
    return Refused(500, f"the server failed ({type(error).__name__})")


async def body_of(request: Request, limits: Limits) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: it is too large, or comes too slowly.
    """
    large = Refused(413, f"body: must have {limits.bytes} bytes at most")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limits.bytes:
        raise large
    body = bytearray()

    async def receive() -> None:
        async for piece in request.stream():
            body.extend(piece)
            if len(body) > limits.bytes:
                raise large

    try:
        await asyncio.wait_for(receive(), limits.body_seconds)
    except asyncio.TimeoutError:
        seconds = limits.body_seconds
        raise Refused(408, f"body: {len(body)} bytes came within {seconds:g} s, not all") from None
    return bytes(body)


def scan_of(body: bytes, name: str, limits: Limits) -> sc.io.Points:
    """Return the points of a file.

    Raises:
        Refused: it has no point, or too many.
        SparseConvError: it cannot be read.
    """
    file = Named(body, Path(name).name)
    points = sc.io.read_points(file, label=False, limit=limits.points + 1)
    if len(points) == 0:
        raise Refused(422, "body: holds no point")
    if len(points) > limits.points:
        raise Refused(413, f"body: must hold {limits.points} points at most")
    return points


def app_of(network: PointLabeller, limits: Limits | None = None) -> FastAPI:
    """Return the service of a network, in evaluation."""
    limits = limits or Limits()
    batcher = Batcher(network, limits)
    names = network.settings.names or tuple(map(str, network.settings.labels))

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        batcher.thread.shutdown()

    app = FastAPI(title="sparseconv", version=sc.__version__, lifespan=running)

    @app.post("/label")
    async def label(request: Request, name: str = "") -> Response:
        """Label the scan in the body; the suffix of `name` tells its format, or its content."""
        try:
            body = await body_of(request, limits)
            points = await asyncio.to_thread(scan_of, body, name, limits)
            labels = await batcher.label(points)
        except Exception as error:
            refusal = told(error)
            headers = {"Retry-After": "1"} if refusal.status == 503 else None
            return JSONResponse({"error": refusal.reason}, refusal.status, headers)
        classes = dict(zip(network.settings.labels, names, strict=True))
        return JSONResponse({"labels": labels.tolist(), "classes": classes})

    @app.get("/health")
    async def health() -> dict[str, object]:
        """Say that the service runs, and what it has done."""
        return {
            "status": "ok",
            "waiting": len(batcher.jobs),
            "labelled": batcher.labelled,
            "batches": batcher.batches,
            "engine": sc.engines.chosen(torch.zeros(1)),
            "threads": torch.get_num_threads(),
            "version": sc.__version__,
        }

    return app


def main() -> None:
    """Serve a network until somebody interrupts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="from sparseconv train")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=1, help="of the network (1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network, _ = load_labeller(options.weights)
    shape = np.random.default_rng(0).random((1000, 3), np.float32) * 10
    columns = np.zeros((1000, len(network.settings.features)), np.float32)
    network.label(sc.io.Points(shape, columns, network.settings.features))  # loads the kernels
    uvicorn.run(app_of(network), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
