"""The documentation of settings is what the classes say."""

from pathlib import Path

from workers.reference import page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_settings_is_up_to_date() -> None:
    assert (DOCS / "settings.md").read_text() == page(), "python -m workers.reference > docs/settings.md"


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert all(row.split("|")[4].strip() for row in rows)
