"""The check of the built docs finds planted faults."""

import sys
from pathlib import Path

import pytest
from browser import CHROMIUM

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import check_site

sys.path.pop(0)

ICON = '<link rel="icon" href="data:,">'  # otherwise Chromium asks the server for one
WIDE = '<table><tr><td><div style="width: 900px">wide</div></td></tr></table>'
GOOD = f"""<!doctype html><title>good</title>{ICON}<h1 id="top">Good</h1>
<a href="bad.html?q=1#bad">bad</a> <a href="#top">top</a> <a href="https://example.org/">elsewhere</a>
<img src="a%20b.svg" srcset="a%20b.svg, a%20b.svg 2x">
<div style="overflow-x: auto">{WIDE}</div>
<p style="width: 1px; overflow: hidden; white-space: nowrap">for screen readers</p>"""
BAD = f"""<!doctype html><title>bad</title>{ICON}<h1 id="bad">Bad</h1>
<a href="missing.html">a</a> <a href="good.html#nowhere">b</a> <a href="#twice">c</a> <i id="twice"></i>
<i id="twice"></i><img src="good.html" srcset="missing.svg 2x"><img src="http://example.org/picture.png">
<script>console.error("planted"); setTimeout(() => lost())</script>
<table style="width: 99px; table-layout: fixed"><tr><td>{"long" * 20}</td></tr></table>"""
CUT = f'{ICON}<div style="overflow-x: hidden">{WIDE}</div>'  # on wide screens there is room
SIDEWAYS = f'{ICON}<div style="overflow-x: auto"><h1>Title</h1>{WIDE}</div>'


@pytest.fixture
def site(tmp_path):
    """A site with a good page and three bad ones."""
    (tmp_path / "a b.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    for name, page in {"good": GOOD, "bad": BAD, "cut": CUT, "sideways": SIDEWAYS}.items():
        (tmp_path / f"{name}.html").write_text(page)
    return tmp_path


def test_check_finds_broken_links_and_anchors(site):
    assert list(check_site.check_links(site)) == [
        "bad.html: #twice: 2 elements have this id",
        "bad.html: good.html#nowhere: 0 elements have this id",
        "bad.html: missing.html: there is no such file",
        "bad.html: missing.svg: there is no such file",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_check_finds_faults_in_the_browser(site):
    found = list(check_site.check_layout(site, jobs=2))
    assert not [fault for fault in found if fault.startswith("good.html")]
    for width in check_site.WIDTHS:
        assert any(fault.startswith(f"bad.html, {width} px: runs out of its cell by") for fault in found)
    assert any("bad.html: exception: ReferenceError: lost is not defined" in fault for fault in found)
    assert any(fault.startswith("bad.html: console: planted") for fault in found)
    assert "bad.html: requests http://example.org/picture.png" in found
    for page in ("cut", "sideways"):
        (fault,) = [fault for fault in found if fault.startswith(f"{page}.html")]
        assert fault.startswith(f"{page}.html, 390 px: is cut off by 5")
        assert fault.endswith('px: table "wide"')


def test_check_without_chromium_says_what_was_left_out(site, monkeypatch, capsys):
    monkeypatch.setattr(check_site, "CHROMIUM", None)
    assert check_site.main(site) == 1
    assert "install Chromium" in capsys.readouterr().out
