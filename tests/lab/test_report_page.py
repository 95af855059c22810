"""The page: every number has its row, nothing comes from elsewhere, and it fits the window."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_documents import ATTACKS, cases

from pclc_fast.lab.report.beside import beside_the_paper
from pclc_fast.lab.report.numbers import STYLES
from pclc_fast.lab.report.output import NAMES, write
from pclc_fast.lab.report.page import render
from pclc_fast.lab.report.rows import rows

DOCUMENTS = cases()
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
VOID = {"meta", "link", "img", "br", "input"}
# Numbers that are names: of literature, figures, equations and norms, and the level of intervals.
SAID = r"""95\ %|Carlini\ et\ al\.\ \(2019\)|Athalye\ et\ al\.\ \(2018\)|Pintor\ et\ al\.\ \(2022\)|
Li\ et\ al\.\ \(2021\)|Tables?\ [1-5]|ResNet-56|Figures?\ [1-3](\ and\ 3)?|Eqs\.\ 9-14|\bL[12]\b|
float(32|64)|below\ 1e-8|class-\d+|\bsha256"""


class Page(HTMLParser):
    """What a page shows: texts with a row, texts without, marks of charts, addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.traced: list[tuple[str, str, str]] = []  # row, style, text
        self.plain: list[str] = []
        self.marks: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        self.addresses += [attributes[a] or "" for a in ("src", "href") if a in attributes]
        if "data-row" in attributes and tag != "data":
            self.marks.append(attributes["data-row"] or "")
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, text: str) -> None:
        if not text.strip() or self.open[-1][0] == "style":
            return
        tag, attributes = self.open[-1]
        if tag == "data":
            self.traced.append((attributes["data-row"] or "", attributes["data-style"] or "", text))
        elif not any(a.get("aria-hidden") for _, a in self.open):  # the ticks of charts
            self.plain.append(text)


@pytest.fixture(scope="module", params=DOCUMENTS)
def rendered(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str, dict[str, str]]:
    document = DOCUMENTS[request.param]
    page, table = render(document)
    return document, page, {r["row"]: r["value"] for r in csv.DictReader(io.StringIO(table))}


def untraced(page: Page, names: list[str]) -> list[str]:
    """The texts in which a digit is left once the names are taken out."""
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    without = (re.sub(SAID, "", re.sub(known, "", t), flags=re.VERBOSE) for t in page.plain)
    return [text for text in without if re.search(r"\d", text)]


def names_of(document: dict[str, Any]) -> list[str]:
    groups, runs = document["groups"], document["runs"]
    titles = {n["data"] for n in document["paper"]} | {n["network"] for n in document["paper"]}
    names = [g["name"] for g in groups] + [r["id"] for r in runs] + [document["title"]]
    return [*names, *ATTACKS.values(), *titles]


def test_every_number_traces_to_its_row(
    rendered: tuple[dict[str, Any], str, dict[str, str]],
) -> None:
    document, text, table = rendered
    page = Page(text)
    assert len(page.traced) > (20 if document["runs"][0]["attacked"] else 3)
    for row, style, shown in page.traced:
        value = table[row]
        assert shown == (value if style == "text" else STYLES[style](float(value))), row
    assert set(page.marks) <= set(table)
    assert untraced(page, names_of(document)) == []


def test_nothing_comes_from_elsewhere(
    rendered: tuple[dict[str, Any], str, dict[str, str]],
) -> None:
    document, text, _ = rendered
    page = Page(text)
    assert page.open == []  # every element is closed
    assert len(set(page.ids)) == len(page.ids)
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert not page.tags & {"script", "iframe", "object", "embed"}
    assert "url(" not in text
    assert "@import" not in text
    assert "None" not in page.plain
    for run in document["runs"]:
        assert run["id"] in " ".join(page.plain)


def test_a_number_without_a_row_is_noticed() -> None:
    page, _ = render(DOCUMENTS["one"])
    spoiled = page.replace("<h2 id", "<p>42.0 % are robust</p><h2 id", 1)
    assert untraced(Page(spoiled), names_of(DOCUMENTS["one"])) == ["42.0 % are robust"]


def test_the_page_is_made_from_the_json_alone(tmp_path: Path) -> None:
    paths = write(tmp_path / "made", DOCUMENTS["six"])
    assert [path.name for path in paths] == list(NAMES)
    page, table, text = (path.read_text(encoding="utf-8") for path in paths)
    assert render(json.loads(text)) == (page, table)
    assert render(json.loads(text)) == (page, table)  # and again


def test_two_numbers_of_one_name_are_an_error() -> None:
    document = json.loads(json.dumps(DOCUMENTS["one"]))
    document["runs"] *= 2
    with pytest.raises(ValueError, match="two rows are called run/mnist-ce/folder"):
        rows(document)


def test_names_are_not_markup() -> None:
    text = json.dumps(DOCUMENTS["one"]).replace("class-3", "<script>alert(3)</script>")
    page, _ = render(json.loads(text.replace("mnist-ce", "<i>&")))
    assert "<script" not in page
    assert "<i>" not in page
    assert "&lt;i&gt;&amp;" in page


def test_what_is_missing_is_said() -> None:
    page, _ = render(DOCUMENTS["uneven"])
    shown = " ".join(" ".join(Page(page).plain).split())
    assert "unfinished" not in shown  # an evaluation that was not finished left no result
    assert "No attack is finished" in shown
    for part in ("attacked", "audit", "ranks", "embedding", "samples"):
        assert f"missing/other/{part}" in page


def test_seeds_are_summed_up() -> None:
    document = DOCUMENTS["six"]
    _, table = render(document)
    found = {r["row"]: r["value"] for r in csv.DictReader(io.StringIO(table))}
    name = document["groups"][0]["name"]
    assert name == "ce, 3 seeds"
    own = [float(found[f"worst/ce/seed-{s}/0.1/accuracy"]) for s in range(3)]
    mean = sum(own) / 3
    spread = (sum((x - mean) ** 2 for x in own) / 2) ** 0.5
    assert float(found[f"group worst/{name}/0.1/mean"]) == pytest.approx(mean)
    assert float(found[f"group worst/{name}/0.1/spread"]) == pytest.approx(spread)


def test_both_steps_of_bim_are_beside_the_paper() -> None:
    cells = [{"epsilon": 0.2, "alone": {"accuracy": 0.5}}]
    attack = {"paper": "bim", "threat": "white-box", "cells": cells}
    keys = ("released: bim-eps/10", "paper: bim", "paper: bim-eps/10")
    attacked = {"attacks": [{**attack, "key": key} for key in keys]}
    numbers = [{**n, "epsilon": 0.2} for n in DOCUMENTS["one"]["paper"] if n["attack"] == "bim"]
    runs = [{"id": "x", "data": {"set": "mnist"}, "attacked": attacked}]
    table = beside_the_paper({"paper": numbers[:1], "runs": runs})[0]
    assert table.lines[0].keys == {"x": ["paper: bim", "released: bim-eps/10"]}
    assert table.is_matched
    assert not beside_the_paper({"paper": numbers[:1], "runs": []})[0].is_matched


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_it_fits_narrow_and_wide_windows(tmp_path: Path) -> None:
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>'
        for page in (html.escape(render(document)[0]) for document in DOCUMENTS.values())
        for width in (390, 1280)
    )
    look = """addEventListener("load", () => {
      document.title = [...document.querySelectorAll("iframe")].map(frame => {
        const page = frame.contentDocument;
        page.querySelectorAll("details").forEach(part => part.open = true);
        const tables = [...page.querySelectorAll(".scroll")];
        return Math.max(page.documentElement.scrollWidth - frame.width,
          ...tables.map(t => t.scrollWidth - t.clientWidth));
      }).join(" ");
    })"""
    path = tmp_path / "frames.html"
    path.write_text(f"<title></title>{frames}<script>{look}</script>", encoding="utf-8")
    assert BROWSER is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [BROWSER, *flags, profile, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search("<title>(.*?)</title>", done.stdout)
    assert found is not None
    excess = list(map(int, found[1].split()))
    assert len(excess) == 2 * len(DOCUMENTS)
    assert max(excess) <= 0
