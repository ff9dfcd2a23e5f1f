"""The settings reference matches the settings classes."""

from pathlib import Path

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from cli.codec import settings as codec_settings
from cli.doctor.settings import PLACEHOLDERS, known_variables, variables_of
from cli.settings_reference import page
from workers.settings import api, common, worker

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    assert (DOCS / "settings.md").read_text() == page(), "python -m cli.settings_reference > docs/settings.md"


def test_every_setting_has_a_description() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert all(row.split("|")[4].strip() for row in rows)


def settings_classes() -> list[type[BaseSettings]]:
    modules = (common, api, worker, codec_settings)
    named = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    return [each for each in named if issubclass(each, BaseSettings)]


def test_the_page_has_every_setting_of_every_class() -> None:
    for each in settings_classes():
        for variable in variables_of(each):
            assert f"`{variable}`" in page(), f"{variable} of {each.__name__}"


def test_the_doctor_has_a_placeholder_for_each_required_setting() -> None:
    for each in settings_classes():
        assert set(variables_of(each)) <= known_variables()
        required = {name for name, info in each.model_fields.items() if info.default is PydanticUndefined}
        assert required <= set(PLACEHOLDERS)
