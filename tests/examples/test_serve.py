"""The service gives each scan the labels that it gets alone, refuses the rest, and survives."""

from __future__ import annotations

import gzip
import importlib
import logging
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn

import sparseconv as sc
from sparseconv.models.point_labeller import PointLabeller, Settings

CLIENTS, REQUESTS = 8, 200
FORMATS = (".bin", ".npy", ".npz", ".ply", ".pcd", ".las", ".laz", ".csv", ".xyz", ".asc")


@pytest.fixture(scope="module")
def serve() -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
    try:
        return importlib.import_module("serve")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def network() -> PointLabeller:
    torch.manual_seed(0)
    made = PointLabeller(
        Settings(0.5, ("intensity",), (0.5,), (0.3,), (0, 4, 7), ("a", "b", "c"), widths=(4, 8))
    )
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return made.eval()


class Service:
    """A server in a thread, on a port of its own."""

    def __init__(self, app: Any) -> None:
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> Service:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.address = self.server.servers[0].sockets[0].getsockname()[:2]
        self.url = "http://{}:{}".format(*self.address)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def service(serve: Any, network: PointLabeller) -> Iterator[Service]:
    limits = serve.Limits(bytes=200_000, points=5_000, body_seconds=0.5)
    with Service(serve.app_of(network, limits)) as running:
        yield running


def good(folder: Path, seed: int) -> tuple[bytes, str]:
    """Return a scan in one of the formats, some of them packed, some with NaN."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 600))
    xyz = rng.normal(rng.integers(-50, 50, 3), (8, 8, 1), (count, 3)).astype(np.float32)
    suffix = FORMATS[seed % len(FORMATS)]
    if count > 3 and seed % 3 == 0 and suffix in (".npy", ".npz", ".ply", ".pcd"):
        xyz[1] = np.nan
    intensity = np.round(rng.random((count, 1)) * (1 if suffix != ".las" else 9)).astype(np.float32)
    path = folder / f"{seed}{suffix}"
    sc.io.write_points(path, sc.io.Points(xyz, intensity, ("intensity",)))
    packed = seed % 4 == 1
    data = path.read_bytes()
    return (gzip.compress(data), path.name + ".gz") if packed else (data, path.name)


def bad(folder: Path, seed: int) -> tuple[bytes, str, int]:
    """Return a body that is no scan, its name, and the status that it deserves."""
    data, name = good(folder, seed)
    rng = np.random.default_rng(seed)
    return (
        (b"", "empty.ply", 422),
        (data[: len(data) // 3] if not name.endswith(".gz") else data[:20], "cut.laz", 422),
        (rng.bytes(999), name.replace(".gz", "") if ".csv" not in name else "x.pcd", 422),
        (bytes(200_001), "large.bin", 413),
        (b"1 2 3 4\n" * 5_001, "many.txt", 413),
        (b"1 2 3\n4 5 6\n", "without_intensity.xyz", 422),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\n"
         b"property float z\nend_header\n", "none.ply", 422),
        (b"1 2 3 4\n5 6 7 8\n", "../../other_format.ply", 422),
        (b"x,y,z,intensity\n0,0,0,1\n1e300,0,0,1\n", "wide.csv", 422),
    )[seed % 9]  # fmt: skip


def test_200_requests_of_8_clients_with_bad_ones_among_them(
    serve: Any,
    service: Service,
    network: PointLabeller,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = serve.label_together

    def slowly(*given: Any) -> Any:
        time.sleep(0.02)  # this network is so small that scans would not meet
        return together(*given)

    monkeypatch.setattr(serve, "label_together", slowly)
    caplog.set_level(logging.WARNING)
    cases: list[tuple[bytes, str, int]] = []
    for seed in range(REQUESTS):
        cases.append(bad(tmp_path, seed) if seed % 5 == 0 else (*good(tmp_path, seed), 200))
    random.Random(0).shuffle(cases)
    before = httpx.get(service.url + "/health").json()

    def client(number: int) -> list[tuple[tuple[bytes, str, int], httpx.Response]]:
        with httpx.Client(base_url=service.url, timeout=60) as session:
            return [
                (case, session.post("/label", params={"name": case[1]}, content=case[0]))
                for case in cases[number::CLIENTS]
            ]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for part in pool.map(client, range(CLIENTS)) for answer in part]
    after = httpx.get(service.url + "/health").json()

    for (body, name, status), answer in answers:
        found = answer.json()
        assert answer.status_code == status, (name, found)
        if status != 200:
            assert list(found) == ["error"] and "\n" not in found["error"], found
            assert 0 < len(found["error"]) < 300 and "Traceback" not in found["error"]
            continue
        file = tmp_path / name
        file.write_bytes(body)
        alone = network.label(sc.io.read_points(file))
        assert found["labels"] == alone.tolist(), name
        assert found["classes"] == {"0": "a", "4": "b", "7": "c"}
    statuses = Counter(answer.status_code for _, answer in answers)
    assert statuses[200] == 160 and statuses[422] > 20 and statuses[413] > 5
    assert {label for _, answer in answers for label in answer.json().get("labels", ())} >= {0, 4}
    assert after["labelled"] - before["labelled"] == 160
    assert after["batches"] - before["batches"] < 160, "nothing ran together"
    assert after["status"] == "ok" and after["waiting"] == 0
    told = [record for record in caplog.records if record.name != "sparseconv"]  # that it compiles
    assert not told, "a request made the server complain"


def test_a_body_that_does_not_come_is_given_up(service: Service) -> None:
    with socket.create_connection(service.address) as line:
        line.sendall(b"POST /label?name=a.bin HTTP/1.1\r\nHost: a\r\nContent-Length: 64\r\n\r\n12")
        answer = ""
        while not answer.endswith("}"):
            answer += line.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 408") and "2 bytes came within 0.5 s" in answer
    assert httpx.get(service.url + "/health").status_code == 200


def test_a_body_without_a_length_is_measured(service: Service) -> None:
    answer = httpx.post(service.url + "/label?name=a.bin", content=iter([bytes(150_000)] * 2))
    assert answer.status_code == 413 and "200000 bytes at most" in answer.json()["error"]


def test_who_waits_for_too_long_or_behind_too_many_is_told(
    serve: Any, network: PointLabeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    together = serve.label_together
    monkeypatch.setattr(serve, "label_together", lambda *given: go.wait(20) and together(*given))
    limits = serve.Limits(wait_seconds=0.3, waiting=1, scans=1)
    scan = b"1 2 3 4\n"
    with Service(serve.app_of(network, limits)) as running, ThreadPoolExecutor(3) as pool:
        url = running.url + "/label?name=a.xyz"
        answers = [pool.submit(httpx.post, url, content=scan) for _ in range(3)]
        found = [answer.result() for answer in answers]
        assert [answer.status_code for answer in found] == [503] * 3
        assert {"scans are waiting" in answer.json()["error"] for answer in found} == {True, False}
        assert all(answer.headers["retry-after"] == "1" for answer in found)
        go.set()
        tries = (httpx.post(url, content=scan).status_code for _ in range(100))
        assert 200 in tries, "it goes on where it was held up"


def test_a_failure_is_told_in_one_line_and_only_to_whom_it_concerns(
    serve: Any, network: PointLabeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = serve.label_together

    def fails(network: PointLabeller, scans: list[sc.io.Points]) -> list[np.ndarray]:
        time.sleep(0.05)  # so that others wait meanwhile
        if any(len(points) == 2 for points in scans):
            raise MemoryError("no\nmemory")
        if any(len(points) == 3 for points in scans):
            raise ZeroDivisionError("a\nbug")
        return together(network, scans)

    monkeypatch.setattr(serve, "label_together", fails)
    with Service(serve.app_of(network)) as running, ThreadPoolExecutor(8) as pool:
        url = running.url + "/label?name=a.xyz"
        bodies = [b"1 2 3 4\n" * (1 + number % 3) for number in range(24)]
        answers = list(pool.map(lambda body: httpx.post(url, content=body), bodies))
    assert [answer.status_code for answer in answers] == [200, 413, 500] * 8
    assert answers[1].json()["error"] == "the scan needs more memory than there is"
    assert answers[2].json()["error"] == "the server failed (ZeroDivisionError)"


def test_scans_of_different_precision_run_together(serve: Any, network: PointLabeller) -> None:
    rng = np.random.default_rng(0)
    scans = []
    for dtype, count in ((np.float32, 90), (np.float64, 40), (np.float32, 1)):
        xyz = rng.normal(count, (8, 8, 1), (count, 3)).astype(dtype)
        xyz[1:2] = np.nan
        scans.append(sc.io.Points(xyz, rng.random((count, 1)).astype(np.float32), ("intensity",)))
    scans.append(sc.io.Points(np.full((2, 3), np.nan), np.zeros((2, 1), "f4"), ("intensity",)))
    for labels, points in zip(serve.label_together(network, scans), scans, strict=True):
        assert np.array_equal(labels, network.label(points))
