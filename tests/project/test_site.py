"""The site is built without a warning; pages open in a browser, and the search knows its words."""

from __future__ import annotations

import functools
import http.server
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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


# Opens every page in a frame as wide as a phone, searches, and tells the server what it saw.
PROBE = """<!doctype html><title>probe</title><body><script>
const sleep = ms => new Promise(done => setTimeout(done, ms));
async function open(page, width) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  document.body.replaceChildren(frame);
  await new Promise(done => { frame.onload = done; frame.src = page; });
  await frame.contentDocument.fonts.ready;
  return frame;
}
async function look(page) {
  const frame = await open(page, WIDTH), inside = frame.contentDocument;
  const pictures = [];
  for (const image of inside.images) {
    image.loading = "eager";
    await image.decode().catch(() => null);
    pictures.push([image.getAttribute("src"), image.naturalWidth]);
  }
  const text = [...inside.querySelectorAll("article p, article li, article td")];
  const view = frame.contentWindow;
  return {
    width: inside.documentElement.scrollWidth,
    letters: Math.min(...text.map(node => parseFloat(view.getComputedStyle(node).fontSize))),
    menu: inside.querySelector(".md-header label[for=__drawer]")?.offsetWidth ?? 0,
    pictures,
  };
}
async function search(word) {
  const frame = await open("index.html", 1300), inside = frame.contentDocument;
  const query = inside.querySelector("[data-md-component=search-query]");
  inside.querySelector("#__search").click();
  query.focus();
  query.value = word;
  for (let tries = 0; tries < 200; tries++) {
    query.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
    await sleep(100);
    const found = [...inside.querySelectorAll(".md-search-result__item a")];
    if (found.length) {
      return found.map(link => [link.getAttribute("href"), link.textContent]);
    }
  }
  return [];
}
async function main() {
  const report = {pages: {}, found: []};
  try {
    for (const page of PAGES) report.pages[page] = await look(page);
    report.found = await search("BatchNorm3d");
  } catch (error) {
    report.error = String(error.stack);
  }
  await fetch("/report", {method: "POST", body: JSON.stringify(report)});
}
main();
</script></body>"""
PHONE = 390  # CSS pixels across
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --enable-logging=stderr "
    "--window-size=1400,1000"
)


class Desk:
    """A server of the site and of the probe on this machine, and what the probe sends it."""

    def __init__(self, site: Path, names: list[str]) -> None:
        page = PROBE.replace("PAGES", json.dumps(names)).replace("WIDTH", str(PHONE))
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        desk = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/probe.html":
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(page.encode())

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                desk.reports.put(json.loads(self.rfile.read(length)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        handler = functools.partial(Handler, directory=str(site))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


@pytest.fixture(scope="module")
def seen(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a browser saw of every page, and the messages of its console."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    desk = Desk(site, [page.relative_to(site).as_posix() for page in pages(site)])
    home, log = tmp_path_factory.mktemp("browser"), tmp_path_factory.mktemp("log") / "stderr"
    with desk.server as server, log.open("w") as messages:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = subprocess.Popen(
            [CHROMIUM, *FLAGS.split(), f"--user-data-dir={home}",
             f"http://127.0.0.1:{server.server_port}/probe.html"],
            stdout=messages, stderr=messages, env={**os.environ, "HOME": str(home)},
        )  # fmt: skip
        try:
            report = desk.reports.get(timeout=180)
        finally:
            browser.terminate()
            browser.wait(timeout=30)
            server.shutdown()
    console = [line for line in log.read_text(errors="replace").splitlines() if "CONSOLE" in line]
    assert "error" not in report, report
    return {**report, "console": console}


def test_a_browser_opens_every_page_without_an_error(site: Path, seen: dict[str, Any]) -> None:
    assert seen["console"] == []
    assert len(seen["pages"]) == len(pages(site))


def test_a_browser_shows_every_picture(seen: dict[str, Any]) -> None:
    pictures = {name: page["pictures"] for name, page in seen["pages"].items()}
    assert sum(map(len, pictures.values())) > 20
    for name, shown in pictures.items():
        for source, width in shown:
            assert width > 0, f"{name}: {source}"


def test_a_phone_shows_every_page_without_scrolling_sideways(seen: dict[str, Any]) -> None:
    for name, page in seen["pages"].items():
        assert page["width"] <= PHONE, f"{name} is {page['width']} wide"
        assert page["letters"] >= 12, f"{name} has letters of {page['letters']} pixels"
        assert page["menu"] > 0, f"{name} has no button for the menu"


def test_the_search_in_a_browser_finds_a_word(seen: dict[str, Any]) -> None:
    assert any(
        re.search(r"functions\.html|api/", link) and "BatchNorm3d" in text
        for link, text in seen["found"]
    ), seen["found"]
