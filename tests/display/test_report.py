"""The report: one page that asks for nothing, as Chromium shows it."""

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
from skssl.display._drawing import FAINT

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
NASTY = "</script><script>window.bad = 1</script><img src=x onerror='bad=1'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of 60 images in three classes, one of them with a name that is HTML."""
    X, y = make_shapes(60, image_size=16, n_classes=3, random_state=0)
    y = np.where(y == "disc", NASTY, y)
    encoder = quick(SimCLR, aux="rotation", epochs=2).fit(X)
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert report(encoder, X, y, path, n_neighbors=3, title="A & <b>") == path
    assert plt.get_fignums() == []
    return path


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """The page in a browser."""
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page)
        yield opened


def test_the_page_names_no_address(page):
    text = page.read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    held = [
        address
        for pair in re.findall(r"""<(?:img|link)[^>]*(?:src|href)="([^"]*)"|url\("([^"]*)"\)""", text)
        for address in pair
    ]
    assert len([address for address in held if address]) == 5, "three figures, the sheet and no icon"
    assert all(address.startswith("data:") for address in held if address)


@in_chromium
def test_no_message_and_no_request(browser):
    assert browser.run("document.title") == "A & <b>"
    assert browser.complaints == []
    assert browser.addresses == []
    assert browser.run("typeof window.bad") == "undefined"


@in_chromium
def test_a_message_and_a_request_would_have_been_noticed(tmp_path):
    """What the test above relies on."""
    path = tmp_path / "bad.html"
    path.write_text("<script>console.error('x')</script><img src='http://localhost:9/x.png'>")
    with Browser(tmp_path / "profile") as opened:
        opened.open(path)
        assert opened.complaints
        assert opened.addresses == ["http://localhost:9/x.png"]


@in_chromium
def test_the_pointer_shows_an_image_and_its_neighbours(browser, page):
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
    assert len(seen) == 3, "each has a place of its own on the sheet"
    assert browser.run("typeof window.bad") == "undefined"
    assert browser.complaints == []


@in_chromium
def test_what_is_shown_are_the_image_s_pixels(browser, tmp_path):
    """The tile of the image that was chosen, as it is on the screen, against the image."""
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
def test_keys_go_from_image_to_image_and_classes_can_be_singled_out(browser):
    browser.run("canvas.focus(); show(59); 0")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert browser.run("current") == 0
    browser.run("key.children[1].click(); 0")
    assert browser.run("only") == 1
    assert browser.run("[...key.children].map(e => e.getAttribute('aria-pressed'))") == ["false", "true", "false"]
    browser.run("key.children[1].click(); 0")
    assert browser.run("only") is None


@in_chromium
def test_dark_pages_are_dark(browser):
    colors = []
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        style = "getComputedStyle(document.body)"
        colors.append([int(n) for n in re.findall(r"\d+", browser.run(f"{style}.backgroundColor + {style}.color"))])
    assert min(colors[0][:3]) > 200 > 60 > max(colors[0][3:])
    assert max(colors[1][:3]) < 60 < 200 < min(colors[1][3:])


def test_what_stands_on_the_page(page):
    text = page.read_text()
    for heading in ("Parameters", "Training", "Views", "Nearest images", "Map of the features"):
        assert f"<h2>{heading}</h2>" in text
    assert "<th>aux</th><td>&#39;rotation&#39;</td>" in text
    assert re.search(r"<th>lr</th><td>None</td><td class=\"stands\">here 0\.\d+</td>", text), "what None stands for"
    assert "60, of 16 × 16 × 3" in text


def test_modules_untrained_and_frozen_estimators_and_images_without_classes(X, tmp_path):
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
    """What the page's script is given."""
    return json.loads(re.search(r"^const data = (.*);$", page.read_text(), flags=re.MULTILINE)[1])


def test_what_is_unlabelled_is_grey_and_no_class(X, y, tmp_path):
    encoder = quick(SimCLR, epochs=0).fit(X)
    few = label_fraction(y, 0.5, random_state=0)
    names = sorted(set(y))
    codes = [names.index(label) if label != -1 else len(names) for label in few]
    for labels in (few, few.tolist()):
        path = report(encoder, X, labels, tmp_path / "few.html", method="pca", n_neighbors=3)
        data = data_of(path)
        assert data["classes"] == [*names, "unlabelled"]
        assert data["codes"] == codes
        assert data["colors"][-1] == FAINT
        assert len(data["colors"]) == len(names) + 1
    both = [(codes[i], codes[near[0]]) for i, near in enumerate(data["near"])]
    both = [pair for pair in both if len(names) not in pair]
    share = 100 * np.mean([a == b for a, b in both])
    assert 0 < len(both) < 40
    assert f"<dd>{share:.1f} % (of {len(names)} classes; of {len(both)} labelled pairs)</dd>" in path.read_text()

    whole = report(encoder, X, y, tmp_path / "all.html", method="pca", n_neighbors=3)
    assert data_of(whole)["classes"] == names
    assert len(data_of(whole)["colors"]) == len(names)
    none = report(encoder, X, np.full(40, -1), tmp_path / "none.html", method="pca", n_neighbors=3)
    assert data_of(none)["classes"] == ["unlabelled"]
    assert set(data_of(none)["codes"]) == {0}
    assert "nearest image, same class" not in none.read_text()


def test_a_thousand_images_are_less_than_five_megabytes(tmp_path):
    X, y = make_shapes(1200, image_size=48, random_state=0)
    page = report(quick(SimCLR, epochs=0).fit(X), X, y, tmp_path / "large.html", method="pca")
    assert page.stat().st_size < 5e6
    assert len(re.search(r'"index": \[([^]]*)\]', page.read_text())[1].split(",")) == 1000


def test_a_seed_gives_the_same_page(X, y, tmp_path):
    encoder = quick(SimCLR).fit(X)
    pages = [report(encoder, X, y, tmp_path / f"{i}.html", random_state=i // 2, n_samples=30) for i in range(3)]
    assert pages[0].read_bytes() == pages[1].read_bytes() != pages[2].read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [1, 2]}, "y must have one class for each image: expected 40, got 2"),
        ({"n_samples": 2}, "'n_samples' parameter"),
        ({"n_neighbors": 40}, "n_neighbors=40 neighbours of an image need more images. Got 40"),
        ({"method": "umap"}, "Unknown method 'umap'"),
        ({"path": 3}, "'path' parameter"),
        ({"estimator": SimCLR()}, "not fitted"),
    ],
)
def test_bad_input_is_refused(X, tmp_path, changes, message):
    given = {"estimator": quick(SimCLR, epochs=0).fit(X), "X": X, "path": tmp_path / "page.html", **changes}
    with pytest.raises((ValueError, NotFittedError), match=message):
        report(**given)
    assert not (tmp_path / "page.html").exists()
