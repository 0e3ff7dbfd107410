"""The HTML report: its content, and its behaviour in Chromium."""

import base64
import io
import json
import re
import time

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from conftest import quick
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skssl import SimCLR, label_fraction, report
from skssl.backbones import ConvNet
from skssl.datasets import make_shapes
from skssl.display._drawing import GREY

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
NASTY = "</script><script>window.bad = 1</script><img src=x onerror='bad=1'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of 60 images in three classes, one of which has HTML as its name."""
    X, y = make_shapes(60, image_size=16, n_classes=3, random_state=0)
    y = np.where(y == "disc", NASTY, y)
    encoder = quick(SimCLR, aux="rotation", epochs=2).fit(X)
    path = tmp_path_factory.mktemp("report") / "report.html"
    figures = plt.get_fignums()
    assert report(encoder, X, y, path, n_neighbors=3, title="A & <b>") == path
    assert plt.get_fignums() == figures
    return path


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """A browser with the page open."""
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page)
        yield opened


def test_page_has_no_external_urls(page):
    text = page.read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    urls = [
        url
        for pair in re.findall(r"""<(?:img|link|source)[^>]*(?:src|href|srcset)="([^"]*)"|url\("([^"]*)"\)""", text)
        for url in pair
    ]
    assert len([url for url in urls if url]) == 6, "three figures, the curves for phones, the sheet and an empty icon"
    assert all(url.startswith("data:") for url in urls if url)


@in_chromium
def test_page_logs_nothing_and_requests_nothing(browser):
    assert browser.run("document.title") == "A & <b>"
    assert browser.messages == []
    assert browser.requests == []
    assert browser.run("typeof window.bad") == "undefined"


@in_chromium
def test_browser_notices_messages_and_requests(tmp_path):
    """The test above relies on this."""
    path = tmp_path / "bad.html"
    path.write_text("<script>console.error('x')</script><img src='http://localhost:9/x.png'>")
    with Browser(tmp_path / "profile") as opened:
        opened.open(path)
        assert opened.messages
        assert opened.requests == ["http://localhost:9/x.png"]


@in_chromium
def test_hovering_shows_an_image_and_its_neighbours(browser, page):
    browser.run("document.querySelector('canvas').scrollIntoView(); 0")
    left, top = browser.run("(() => { const box = canvas.getBoundingClientRect(); return [box.left, box.top]; })()")
    seen = set()
    for i in (0, 31, 59):
        x, y = browser.run(f"places[{i}]")
        browser.point(left + x + 1, top + y + 1)
        deadline = time.monotonic() + 10
        while browser.run("current") is None or browser.run("places[current]") != [x, y]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        i = browser.run("current")
        name, *neighbours = browser.run(
            "[document.getElementById('name').textContent, "
            "...[...document.querySelectorAll('#near .label')].map(e => e.textContent)]"
        )
        assert name == browser.run(f"data.classes[data.codes[{i}]]")
        assert neighbours == browser.run(f"data.near[{i}].map(j => data.classes[data.codes[j]])")
        assert len(neighbours) == 3
        seen.add(browser.run("document.querySelector('#detail .tile').style.backgroundPosition"))
    assert len(seen) == 3, "each image has its own position on the sheet"
    assert browser.run("typeof window.bad") == "undefined"
    assert browser.messages == []


@in_chromium
def test_thumbnail_shows_the_pixels_of_the_image(browser, tmp_path):
    """A screenshot of the selected thumbnail is compared with the image."""
    X, _ = make_shapes(60, image_size=16, n_classes=3, random_state=0)
    browser.run("canvas.scrollIntoView(); show(17); 0")
    box = browser.run(
        "(() => { const b = document.querySelector('#detail .tile').getBoundingClientRect(); "
        "return {x: b.left + scrollX, y: b.top + scrollY, width: b.width, height: b.height, scale: 1}; })()"
    )
    browser.screenshot(tmp_path / "tile.png", clip=box, captureBeyondViewport=True)
    shown = np.asarray(Image.open(tmp_path / "tile.png").convert("RGB").resize((16, 16), Image.Resampling.BOX), float)
    wanted = X[browser.run("data.index[17]")]
    inner = (slice(1, -1), slice(1, -1))  # the frame covers the border
    distance = [np.abs(shown[inner] - image[inner]).mean() for image in X.astype(float)]
    assert np.argmin(distance) == browser.run("data.index[17]")
    assert np.abs(shown[inner] - wanted[inner]).mean() < 12


@in_chromium
def test_arrow_keys_and_class_buttons(browser):
    browser.run("canvas.focus(); show(59); 0")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert browser.run("current") == 0
    browser.run("key.children[1].click(); 0")
    assert browser.run("only") == 1
    assert browser.run("[...key.children].map(e => e.getAttribute('aria-pressed'))") == ["false", "true", "false"]
    browser.run("key.children[1].click(); 0")
    assert browser.run("only") is None


@in_chromium
def test_dark_colour_scheme(browser):
    colors = []
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        style = "getComputedStyle(document.body)"
        colors.append([int(n) for n in re.findall(r"\d+", browser.run(f"{style}.backgroundColor + {style}.color"))])
    assert min(colors[0][:3]) > 200 > 60 > max(colors[0][3:])
    assert max(colors[1][:3]) < 60 < 200 < min(colors[1][3:])


def test_content_of_the_page(page):
    text = page.read_text()
    for heading in ("Parameters", "Training", "Views", "Nearest images", "Map of the features"):
        assert f"<h2>{heading}</h2>" in text
    assert "<th>aux</th><td>&#39;rotation&#39;</td>" in text
    assert re.search(r"<th>lr</th><td>None</td><td class=\"in-use\">in use: 0\.\d+</td>", text)
    assert "60 of 16 × 16 × 3" in text


def test_curves_for_phones_are_in_one_column(page):
    """A phone shows them as wide as the screen, so that their text can be read."""
    text = page.read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    wide, narrow = (
        Image.open(io.BytesIO(base64.b64decode(re.search(pattern, text)[1])))
        for pattern in (
            r'<img src="data:image/png;base64,([^"]*)" alt="Training">',
            r'<source media="\(max-width: 40rem\)" srcset="data:image/png;base64,([^"]*)">',
        )
    )
    assert wide.width > 3 * wide.height / 2
    assert narrow.width == 540
    assert narrow.height > narrow.width


def test_report_of_modules_and_untrained_frozen_estimators(X, tmp_path):
    fitted = quick(SimCLR, epochs=0).fit(X)
    frozen = report(FrozenEstimator(fitted), X, path=tmp_path / "frozen.html", method="pca").read_text()
    assert "<title>SimCLR</title>" in frozen
    assert "<h2>Training</h2>" not in frozen
    assert "<h2>Views</h2>" in frozen
    module = report(ConvNet(), X, path=tmp_path / "module.html", method="pca").read_text()
    assert "<h2>Views</h2>" not in module
    assert "<h2>Network</h2>" in module
    assert '"codes"' not in module


def data_of(page):
    """Return the data of the page's script."""
    return json.loads(re.search(r"^const data = (.*);$", page.read_text(), flags=re.MULTILINE)[1])


def test_unlabelled_images_are_grey_and_not_a_class(X, y, tmp_path):
    encoder = quick(SimCLR, epochs=0).fit(X)
    few = label_fraction(y, 0.5, random_state=0)
    names = sorted(set(y))
    codes = [names.index(label) if label != -1 else len(names) for label in few]
    for labels in (few, few.tolist()):
        path = report(encoder, X, labels, tmp_path / "few.html", method="pca", n_neighbors=3)
        data = data_of(path)
        assert data["classes"] == [*names, "unlabelled"]
        assert data["codes"] == codes
        assert data["colors"][-1] == GREY
        assert len(data["colors"]) == len(names) + 1
    both = [(codes[i], codes[near[0]]) for i, near in enumerate(data["near"])]
    both = [pair for pair in both if len(names) not in pair]
    share = 100 * np.mean([a == b for a, b in both])
    assert 0 < len(both) < 40
    assert f"<dd>{share:.1f} % ({len(names)} classes; {len(both)} labelled pairs)</dd>" in path.read_text()

    whole = report(encoder, X, y, tmp_path / "all.html", method="pca", n_neighbors=3)
    assert data_of(whole)["classes"] == names
    assert len(data_of(whole)["colors"]) == len(names)
    none = report(encoder, X, np.full(40, -1), tmp_path / "none.html", method="pca", n_neighbors=3)
    assert data_of(none)["classes"] == ["unlabelled"]
    assert set(data_of(none)["codes"]) == {0}
    assert "nearest image of the same class" not in none.read_text()


def test_report_of_a_thousand_images_is_below_five_megabytes(tmp_path):
    X, y = make_shapes(1200, image_size=48, random_state=0)
    page = report(quick(SimCLR, epochs=0).fit(X), X, y, tmp_path / "large.html", method="pca")
    assert page.stat().st_size < 5e6
    assert len(re.search(r'"index": \[([^]]*)\]', page.read_text())[1].split(",")) == 1000


def test_same_seed_gives_the_same_page(X, y, tmp_path):
    encoder = quick(SimCLR).fit(X)
    pages = [report(encoder, X, y, tmp_path / f"{i}.html", random_state=i // 2, n_samples=30) for i in range(3)]
    assert pages[0].read_bytes() == pages[1].read_bytes() != pages[2].read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [1, 2]}, "y must have one class for each image of X: expected 40 classes, got 2"),
        ({"n_samples": 2}, "'n_samples' parameter"),
        ({"n_neighbors": 40}, "n_neighbors=40 needs at least 41 images. Got 40"),
        ({"method": "lda"}, "Unknown method 'lda'"),
        ({"path": 3}, "'path' parameter"),
        ({"estimator": SimCLR()}, "not fitted"),
    ],
)
def test_invalid_input_raises(X, tmp_path, changes, message):
    given = {"estimator": quick(SimCLR, epochs=0).fit(X), "X": X, "path": tmp_path / "page.html", **changes}
    with pytest.raises((ValueError, NotFittedError), match=message):
        report(**given)
    assert not (tmp_path / "page.html").exists()
