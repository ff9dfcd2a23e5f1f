"""The documentation of settings is what the classes say."""

from pathlib import Path

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from workers import api_settings, settings, worker_settings
from workers.codec import settings as codec_settings
from workers.doctor.reading import STAND_INS, known_variables, variables_of
from workers.reference import page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_settings_is_up_to_date() -> None:
    assert (DOCS / "settings.md").read_text() == page(), "python -m workers.reference > docs/settings.md"


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert all(row.split("|")[4].strip() for row in rows)


def settings_classes() -> list[type[BaseSettings]]:
    modules = (settings, api_settings, worker_settings, codec_settings)
    named = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    return [each for each in named if issubclass(each, BaseSettings)]


def test_the_page_has_every_setting_of_every_class() -> None:
    for each in settings_classes():
        for variable in variables_of(each):
            assert f"`{variable}`" in page(), f"{variable} of {each.__name__}"


def test_the_doctor_knows_every_setting_and_has_a_stand_in_for_each_that_is_required() -> None:
    for each in settings_classes():
        assert set(variables_of(each)) <= known_variables()
        required = {name for name, info in each.model_fields.items() if info.default is PydanticUndefined}
        assert required <= set(STAND_INS)
