"""Check the built site: links and anchors, then each page in headless Chromium at three widths."""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import CHROMIUM, Browser

WIDTHS = (1440, 1024, 390)
ID = re.compile(r'\sid="([^"]+)"')  # in text, quotes are escaped
LINK = re.compile(r'\s(href|src|srcset)="([^"]+)"')

# Returns what is wrong with the layout of a page. `limit` is the right edge of the nearest ancestor that cuts. Inside a
# frame that scrolls, or ends in an ellipsis, there is none. A frame around the title is the page, and must not scroll.
LAYOUT = """
(() => {
  const root = document.documentElement, found = [];
  const name = (element) => {
    const kind = element.className.baseVal ?? element.className;
    return [element.localName, ...kind.split(" ").filter(Boolean)].join(".");
  };
  const tell = (what, by, element, text = element.textContent) =>
    found.push(`${what} by ${Math.ceil(by)} px: ${name(element)} "${text.trim().replace(/\\s+/g, " ").slice(0, 60)}"`);
  const visit = (element, limit) => {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const cuts = style.overflowX !== "visible" && style.display !== "inline";
    const frame = /auto|scroll/.test(style.overflowX) || style.textOverflow === "ellipsis";
    const scrolls = cuts && frame && !element.querySelector("h1");
    if (style.display === "none" || style.visibility === "hidden" || (cuts && box.width <= 1)) return;
    const whole = /^(img|svg|math|table|pre|input|button|select|video|iframe)$/.test(element.localName);
    if ((whole || scrolls) && box.right > limit + 1) return tell("is cut off", box.right - limit, element);
    if (/^t[dh]$/.test(element.localName) && element.scrollWidth > element.clientWidth + 1)
      tell("runs out of its cell", element.scrollWidth - element.clientWidth, element);
    if (/^(svg|math)$/.test(element.localName)) return;
    const inner = scrolls ? Infinity : cuts ? Math.min(limit, box.right) : limit;
    for (const child of element.childNodes)
      if (child.nodeType === Node.ELEMENT_NODE) visit(child, inner);
      else if (child.nodeType === Node.TEXT_NODE && child.data.trim()) {
        const range = document.createRange();
        range.selectNodeContents(child);
        const by = range.getBoundingClientRect().right - inner;
        if (by > 1) tell("is cut off", by, element, child.data);
      }
  };
  const by = root.scrollWidth - root.clientWidth;
  if (by > 0) tell("scrolls sideways", by, root, "");
  visit(document.body, root.clientWidth);
  return found.slice(0, 3); // the first often causes the others
})()
"""


def pages(site: Path) -> list[str]:
    """Return the paths of the pages in the site."""
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if "_static" not in path.parts)


def check_links(site: Path) -> Iterator[str]:
    """Yield the links, anchors and files that do not exist, and the ids that links use and that are not unique."""
    files = {str(path): path.suffix == ".html" for path in site.rglob("*")}
    ids = functools.cache(lambda path: Counter(map(unescape, ID.findall(Path(path).read_text(encoding="utf-8")))))
    for page in pages(site):
        path, found = site / page, set()
        for name, value in LINK.findall(path.read_text(encoding="utf-8")):
            found |= {part.split()[0] for part in value.split(",")} if name == "srcset" else {unescape(value)}
        for address in sorted(found):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = os.path.normpath(path.parent / unquote(parts.path)) if parts.path else str(path)
            anchor = unquote(parts.fragment)
            if target not in files:
                yield f"{page}: {address}: there is no such file"
            elif anchor and files[target] and (n := ids(target)[anchor]) != 1:
                yield f"{page}: {address}: {n} elements have this id"


class Handler(SimpleHTTPRequestHandler):
    """Serves the site without a log."""

    def log_message(self, *args: object) -> None:
        pass


def look(browser: Browser, origin: str, page: str) -> Iterator[str]:
    """Yield what is wrong with a page in the browser."""
    browser.events.clear()
    for i, width in enumerate(WIDTHS[:1] if page.startswith("_modules/") else WIDTHS):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        if i == 0:
            browser.open(f"{origin}/{page}")
        yield from (f"{page}, {width} px: {found}" for found in browser.run(LAYOUT))
    for message in browser.messages:
        if details := message.get("exceptionDetails"):
            yield f"{page}: exception: {details['exception'].get('description', details['text']).splitlines()[0]}"
        elif "entry" in message and message["entry"]["level"] == "error":
            yield f"{page}: console: {message['entry']['text']} {message['entry'].get('url', '')}"
        elif message.get("type") in ("error", "assert"):
            yield f"{page}: console: {' '.join(str(said.get('value')) for said in message['args'])}"
    yield from (f"{page}: requests {url}" for url in browser.requests if not url.startswith(f"{origin}/"))


def check_layout(site: Path, jobs: int) -> Iterator[str]:
    """Yield what is wrong with the pages in Chromium, and show the progress."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}"

    def visit(share: list[str]) -> list[str]:
        found = []
        with tempfile.TemporaryDirectory() as profile, Browser(profile) as browser:
            for page in share:
                found += look(browser, origin, page)
                progress.update()
        return found

    names = pages(site)
    with tqdm(total=len(names), unit="page") as progress, ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(visit, (names[i::jobs] for i in range(jobs))))
    server.shutdown()
    server.server_close()
    yield from (fault for share in found for fault in share)


def main(site: Path) -> int:
    """Print what is wrong, and return the exit code."""
    site = site.resolve()
    faults = list(check_links(site))
    if CHROMIUM is None:
        print("Only links were checked. To check the layout, install Chromium, as by `apt-get install chromium`.")
    else:
        faults += check_layout(site, jobs=min(4, os.cpu_count() or 1))
    print(*faults, f"{len(faults)} faults", sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
