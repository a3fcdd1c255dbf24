"""The site is built without a warning; pages open in a browser, and the search knows its words."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site; a warning ends the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Yield the address of a server of the site on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Links(HTMLParser):
    """Collects what a page shows and loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"img": "src", "script": "src", "link": "href", "a": "href"}.get(tag)
        self.found += [(tag, value) for name, value in attrs if name == wanted and value]


def pages(site: Path) -> list[Path]:
    return sorted(page for page in site.rglob("*.html") if page.name != "404.html")


def test_pictures_scripts_and_links_lead_to_files(site: Path) -> None:
    assert len(pages(site)) > 15
    for page in pages(site):
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        for tag, link in links.found:
            if re.match(r"https?:|mailto:|javascript:|#", link):
                assert tag == "a", f"{page.name} loads {link} from another server"
                continue
            target = page.parent / link.split("#")[0].split("?")[0]
            assert target.exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("word", ["BatchNorm3d", "SubmConv3d", "voxelize", "MinkUNet"])
def test_the_search_knows_a_word_and_where_it_is(site: Path, word: str) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = [
        entry["location"] for entry in index["docs"] if word in entry["text"] + entry["title"]
    ]
    assert any(place.startswith(("functions.html", "api/")) for place in places), places


def test_no_role_of_a_docstring_is_left_on_a_page(site: Path) -> None:
    for page in (site / "api").glob("*.html"):
        assert not re.search(r":(class|func|meth|mod):", page.read_text(encoding="utf-8")), (
            page.name
        )


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("name", ["index", "api/nn", "tutorials/own_scans", "moving_over"])
def test_a_browser_opens_a_page_at_the_width_of_a_phone(
    address: str, name: str, tmp_path: Path
) -> None:
    """No error in the console, and nothing but tables and code is wider than the screen."""
    probe = (
        "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --window-size=500,900"
    )
    done = subprocess.run(
        [
            str(CHROMIUM),
            *probe.split(),
            "--enable-logging=stderr",
            "--virtual-time-budget=4000",
            f"--user-data-dir={tmp_path}/profile",
            "--dump-dom",
            f"{address}/{name}.html",
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "</article>" in done.stdout
    assert 'name="viewport"' in done.stdout  # laid out for the width of the device
    with contextlib.suppress(AttributeError):
        assert "js" in re.search(r"<html[^>]*class=\"([^\"]*)\"", done.stdout)[1].split()
