"""The page that `--html` writes: self-contained, safe to open, readable in a real browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typing_extensions import override

from cli.replay.timeline.render_html import render
from tests.cli.replay.timeline import browser
from tests.cli.replay.timeline.building import timeline_of

HOSTILE = "</summary><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"

PRESS = """
const press = (key) => (document.activeElement || document.body).dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
press("j"); press("j"); press("ArrowDown"); press("k");
const here = document.activeElement;
here.click();
document.body.dataset.focused = String(lines().indexOf(here));
document.body.dataset.open = String(here.parentElement.open);
document.body.dataset.cursor = lanes.style.getPropertyValue("--cursor");
document.getElementById("show-request").click();
const lane = (line) => line.querySelector(".lane").textContent;
document.body.dataset.hidden = String(lines().every((line) => lane(line) !== "request"));
"""

MEASURE = """
addEventListener("load", () => parent.postMessage(
  [innerWidth, document.documentElement.scrollWidth].join(" "), "*"));
"""

DARK = "--blink-settings=preferredColorScheme=0"


class _Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_self_contained() -> None:
    page = render(timeline_of("incident"))
    parsed = _Ids()
    parsed.feed(page)
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize("name", ["incident", "continued", "delegated", "troubled", "refused"])
def test_every_entry_is_on_the_page(name: str) -> None:
    timeline = timeline_of(name)
    assert render(timeline).count("<details><summary data-place=") == len(timeline.entries)


def test_the_chart_has_a_row_group_for_each_component() -> None:
    page = render(timeline_of("incident"))
    for name in ("Requests", "Workspace", "Instance", "Registration", "DNS", "Conditions"):
        assert f'aria-label="{name}"' in page


def test_a_senders_text_cannot_run_on_the_page() -> None:
    timeline = timeline_of("incident")
    requests = tuple(replace(it, requested_by=HOSTILE, detail=HOSTILE) for it in timeline.requests)
    entries = tuple(replace(it, text=HOSTILE, details=((HOSTILE, HOSTILE),)) for it in timeline.entries)
    page = render(
        replace(timeline, workspace_id=HOSTILE, requests=requests, entries=entries, database_note=HOSTILE)
    )
    assert page.count("<script>") == 1
    assert "<img" not in page


def test_a_browser_shows_the_page_and_handles_keys(tmp_path: Path) -> None:
    path = tmp_path / "timeline.html"
    path.write_text(browser.with_driver(render(timeline_of("incident")), PRESS))
    shown = browser.run(path, "--dump-dom")
    found = dict(re.findall(r'data-(focused|open|cursor|hidden)="([^"]*)"', shown))
    assert found["focused"] == "1"
    assert found["open"] == "true"
    assert 0 < float(found["cursor"]) < 1
    assert found["hidden"] == "true"


def test_a_browser_runs_only_the_pages_own_script(tmp_path: Path) -> None:
    path = tmp_path / "timeline.html"
    page = render(timeline_of("incident"))
    path.write_text(page.replace("</main>", f"{HOSTILE}</main>"))  # as if nothing were escaped
    assert "<title>What happened to incident</title>" in browser.run(path, "--dump-dom")


def test_the_page_fits_a_phone(tmp_path: Path) -> None:
    path = tmp_path / "timeline.html"
    path.write_text(browser.with_driver(render(timeline_of("troubled")), MEASURE))
    shown = browser.run(
        browser.framed(path, width=390, height=800), "--virtual-time-budget=5000", "--dump-dom"
    )
    widths = re.search(r"<p id=\"size\">(\d+) (\d+)</p>", shown)
    assert widths is not None, shown[:500]
    assert widths.groups() == ("390", "390")


def test_light_and_dark_look_different_and_neither_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "timeline.html"
    path.write_text(render(timeline_of("incident")))
    pictures = []
    for name, options in (("light", ()), ("dark", (DARK,))):
        picture = tmp_path / f"{name}.png"
        browser.run(path, *options, "--window-size=1200,1600", f"--screenshot={picture}")
        pictures.append(picture.read_bytes())
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 50_000 for picture in pictures)
    assert pictures[0] != pictures[1]
