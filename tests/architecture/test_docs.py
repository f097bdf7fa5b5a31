"""What the docs list is what there is."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel
from starlette.routing import Route

from benchmarks.recipes import comparison_recipes
from bitladder.routing.features import FEATURES
from bitladder.settings.access import KeySettings
from bitladder.settings.models_section import TierSettings
from bitladder.settings.policy_section import NamedPolicySettings
from bitladder.settings.sections import Settings
from calibration.quantization.recipe import Recipe
from calibration.quantization.standard_recipes import RECIPES
from dispatcher.app import create_app
from tests.conftest import ROOT, make_settings

CALIBRATION = [f"calibration/{path.name}" for path in sorted((ROOT / "docs" / "calibration").glob("*.md"))]


def doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def settings_of(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += settings_of(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


KEYS = (
    settings_of(Settings)
    + settings_of(KeySettings, "auth.keys.NAME.")
    + settings_of(TierSettings, "models.NAME.tiers.TIER.")
    + [key for key in settings_of(NamedPolicySettings, "policies.NAME.") if not key.endswith(".form")]
)
# Tables that have a name of their own.
NAMED = ("models", "policies")


@pytest.mark.parametrize("key", [key for key in KEYS if key not in NAMED])
def test_every_setting_is_documented(key: str) -> None:
    assert f"`{key}`" in doc("configuration.md")


def test_no_setting_is_documented_that_does_not_exist() -> None:
    sections = {name for name in Settings.model_fields if name not in NAMED}
    documented = re.findall(r"^\| `([a-z_]+\.[a-z_.]+)`", doc("configuration.md"), re.MULTILINE)

    assert {key for key in documented if key.split(".")[0] in sections} <= set(settings_of(Settings))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_documented(name: str) -> None:
    assert f"| {name} |" in doc("calibration/quantize.md")


@pytest.mark.parametrize("recipe", comparison_recipes(), ids=lambda recipe: recipe.name)
def test_every_recipe_of_the_comparison_has_its_figures(recipe: Recipe) -> None:
    assert f"| {recipe.name} |" in doc("calibration/figures.md")


def test_every_feature_is_documented_with_its_definition_unit_and_source() -> None:
    section = doc("routing.md").partition("\n## Features\n")[2].partition("\n## ")[0]

    assert [line for line in section.splitlines() if line.startswith("| `")] == [
        f"| `{feature.name}` | {feature.meaning} | {feature.unit} | {feature.source} |" for feature in FEATURES.values()
    ]


def test_every_route_is_documented() -> None:
    app = create_app(make_settings("redis://127.0.0.1:1/0"))
    paths = {route.path for route in app.routes if isinstance(route, Route)}

    pages = ["operating.md", "api.md", *(f"api/{page.name}" for page in (ROOT / "docs" / "api").glob("*.md"))]

    assert {path for path in paths if f"`{path}`" not in "".join(map(doc, pages))} == set()


@pytest.mark.parametrize(
    "page",
    [
        "architecture.md",
        "operating.md",
        "api.md",
        "routing.md",
        "calibration.md",
        "security.md",
        "operating/proxies.md",
        *CALIBRATION,
    ],
)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = re.sub(r"\]\([^)]*\)", "]", doc(page))  # links are checked below
    named = re.findall(r"(?<![\w/~.-])((?:dispatcher|workers|calibration|compose|docs|tests)/[\w/.-]+\.[a-z]+)", text)

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_pages_of_calibration_link_to_each_other_and_every_link_leads_somewhere() -> None:
    pages = [ROOT / "docs" / name for name in ("calibration.md", *CALIBRATION)]
    links = {page: re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")) for page in pages}
    targets = {page: {(page.parent / link).resolve() for link in links[page]} for page in pages}

    assert [str(target) for page in pages for target in targets[page] if not target.exists()] == []
    assert set(pages[1:]) <= targets[pages[0]]
    assert all(pages[0] in targets[page] for page in pages[1:])


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = set(re.findall(r"\btest_\w+", doc("guarantees.md") + doc("security.md")))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in [path.stem, *re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))]
    }

    assert len(named) > 50
    assert named - defined == set()


def test_every_fault_of_the_list_is_answered() -> None:
    cells = re.findall(r"^\| (\d[\d, -]*) \|", doc("guarantees.md"), re.MULTILINE)
    numbers = {number for cell in cells for part in cell.split(",") for number in _span(part)}

    assert numbers == set(range(1, 45))


def _span(part: str) -> range:
    first, _, last = part.strip().partition("-")
    return range(int(first), int(last or first) + 1)
