"""The docs keep up: every public name is in the reference, and what the pages show can be pasted and run."""

import importlib
import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import quick

import skssl

ROOT = Path(__file__).parent.parent
CONTINUED = ("get_started.md",)  # pages whose code is one script; elsewhere each block runs alone
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guide").glob("*.md"))]


def code_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"^   ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE))
    public = set(skssl.__all__)
    for room in ("augment", "callbacks", "datasets", "images", "losses", "metrics", "transfer"):
        names = importlib.import_module(f"skssl.{room}").__all__
        public |= {name if name in skssl.__all__ else f"{room}.{name}" for name in names}
    assert public <= listed, f"docs/api.md lacks {sorted(public - listed)}"
    for name in listed:
        room, _, last = name.rpartition(".")
        assert getattr(importlib.import_module(f"skssl.{room}".rstrip(".")), last).__doc__, f"{name} is not documented"


def test_every_public_name_is_in_a_guide():
    """The guides are all pages but the reference and the changelog, and the examples."""
    reference = (ROOT / "docs" / "api.md").read_text().partition("## For those who write methods")[0]
    names = set(re.findall(r"^   ([\w.]+)$", reference, flags=re.MULTILINE)) | set(skssl.__all__)
    names |= set(re.findall(r"^   (backbones\.\w+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE))
    guides = [page for page in PAGES if page.name not in ("api.md", "changelog.md")]
    text = "\n".join(page.read_text() for page in [*guides, *(ROOT / "examples").rglob("*.py")])
    words = set(re.findall(r"\w+", text))
    lacking = sorted(name for name in names if name.rpartition(".")[2] not in words)
    assert not lacking, "name these where a reader looks for them, in docs/guide for example"


def test_all_is_sorted():
    assert skssl.__all__ == sorted(skssl.__all__, key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_code_fits_the_page(page):
    wide = [line for block in code_of(page) for line in block.splitlines() if len(line) > 88]
    assert not wide, "longer lines scroll in their frame"


def test_code_of_the_examples_fits_the_page():
    for example in (ROOT / "examples").rglob("*.py"):
        code = example.read_text().split('"""', 2)[2]  # behind the text at the top
        assert not [line for line in code.splitlines() if len(line) > 88 and not line.startswith("#")], example.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_every_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = code_of(page)
    for block in ["\n".join(blocks)] if page.name in CONTINUED else blocks:
        exec(compile(block, str(page), "exec"), {})


def test_the_readme_shows_what_its_first_page_prints(capsys):
    shown = re.search(
        r"^```python\n(.*?)^```\n\n```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert shown is not None
    assert code_of(ROOT / "README.md") == [shown[1]]
    exec(compile(shown[1], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    number = r"\d+\.\d+"
    assert re.sub(number, "", printed) == re.sub(number, "", shown[2])
    figures = [[float(of) for of in re.findall(number, text)] for text in (printed, shown[2])]
    assert figures[0] == pytest.approx(figures[1], abs=0.03), "other processors round differently"


@pytest.fixture
def docs_modules(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.syspath_prepend(ROOT / "docs")


# Figures


def test_readme_tables_are_those_of_the_recorded_rows(docs_modules):
    text = (ROOT / "README.md").read_text()
    assert importlib.import_module("figures").with_tables(text) == text, "run `python docs/figures.py`"


def test_sentences_have_the_figures_of_the_recorded_rows(docs_modules):
    missing = {page: parts for page, parts in importlib.import_module("figures").missing().items() if parts}
    assert not missing, "rewrite these sentences, or change docs/figures.py where the sentence is another one"


def test_figures_notice_a_new_row(docs_modules, tmp_path, monkeypatch):
    figures = importlib.import_module("figures")
    for file in figures.RECORDED.glob("*.csv"):
        (tmp_path / file.name).write_text(file.read_text())
    gpu = pd.read_csv(tmp_path / "gpu.csv")
    gpu.loc[gpu["loop"].isin(["kornia", "fit, graph"]), "images_per_second"] = 12_345
    gpu.to_csv(tmp_path / "gpu.csv", index=False)
    monkeypatch.setattr(figures, "RECORDED", tmp_path)
    assert "| Kornia's views on the GPU | 12,300 |  |" in figures.with_tables((ROOT / "README.md").read_text())
    assert any("reached 12,300 and 12,300 on another machine" in part for part in figures.missing()["README.md"])


# The methods' pages


@pytest.fixture
def pages(docs_modules):
    return importlib.import_module("method_pages")


def test_every_method_has_advice(pages):
    assert pages.ADVICE.keys() == set(skssl.methods.__all__)
    assert {advice["family"] for advice in pages.ADVICE.values()} == set(pages.FAMILIES)
    assert all(advice.keys() == {"family", "use", "other"} for advice in pages.ADVICE.values())


def test_page_of_a_method_has_its_recipes_and_rows(pages):
    rows = [
        {"method": method, "epochs": 10, "hardware": "a processor", "seed": seed, "linear": 0.5, "knn": 0.4 + seed / 10}
        for method in ("SimCLR", "SimCLR + rotation", "BYOL", "untrained", "pixels")
        for seed in (0, 1)
    ]
    text = pages.page("SimCLR", pd.DataFrame(rows))
    assert "SimCLR + rotation,aux='rotation',10,a processor,0.5 ± 0.0,0.45 ± 0.071,2" in text.replace("``", "")
    assert "90.91,88.69" in text, "EffSSL's table 5"
    assert "BYOL," not in text


@pytest.mark.parametrize("name", ["SimCLR", "SimSiam"])
def test_flow_of_a_method_shows_where_gradients_stop(pages, name):
    traced = pages.flow.trace(quick(getattr(skssl, name), batch_size=64))
    edges = sorted(
        (traced.nodes[one][1], traced.nodes[other][1], stopped) for (one, other), stopped in traced.edges.items()
    )
    assert (
        edges
        == {
            "SimCLR": [
                ("encoder", "projector", False),
                ("projector", "nt xent", False),
                ("view 1", "encoder", False),
                ("view 2", "encoder", False),
            ],
            "SimSiam": sorted(
                [
                    ("view 1", "encoder", False),
                    ("view 2", "encoder", False),
                    *[
                        ("encoder", "projector", False),
                        ("projector", "predictor", False),
                        ("predictor", "negative cosine", False),
                        ("projector", "negative cosine", True),
                    ]
                    * 2,
                ]
            ),
        }[name]
    )
    pages.flow.draw(traced, pages.flow.DARK)
