"""prompts.jsonl, the strata and the worst passages: what each checkpoint loses on each text of the set."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from calibration.artifacts.prompt_losses import NamedSource, PromptLine, encode_lines
from calibration.audit.features import NAMES, score
from calibration.evaluate.engine import Asker
from calibration.evaluate.evaluation_page import evaluation_page
from calibration.evaluate.heldout import HeldoutText
from calibration.evaluate.measures.greedy_answers import Answers
from calibration.evaluate.measures.likelihood import Likelihood
from calibration.evaluate.measures.measure import Measure
from calibration.evaluate.prompt_table import PromptTable
from calibration.evaluate.run_evaluation import evaluate
from calibration.evaluate.store import Store
from calibration.texts.passages import PASSAGE_TOKENS
from tests.calibration.evaluate.chain import LIKELY, OTHER, Chain
from tests.calibration.evaluate.test_engines import candidate
from tests.calibration.evaluate.test_report_of_results import ABOUT, evaluation, pair, store_results
from tests.conftest import ROOT

LONG = "abcd" * PASSAGE_TOKENS
TEXTS = [
    HeldoutText("prose", LONG, "en", "Route A"),
    HeldoutText("prose", "efgh", "de", "Route B"),
    HeldoutText("prose", "abcd", "en", ""),
]
MEASURES: list[Measure[Any]] = [
    Likelihood("prose", [text.text for text in TEXTS], 10_000, 2),
    Answers("prose", [text.text for text in TEXTS[1:]], 4, 2, chat=False),
]
HELDOUT = NamedSource(name="/sets/heldout.jsonl", sha256="5" * 64)
# After e the tier's first choice is the reference's second.
FLIP = (LIKELY - OTHER) * math.log(LIKELY / OTHER)


async def results(engine: Chain, baseline: dict[str, Any] | None = None) -> dict[str, Any]:
    taken = {}
    for measure in MEASURES:
        if isinstance(measure, Answers) and baseline:
            measure = measure.following(baseline[measure.name])
        result = await measure.take(Asker(engine, ""), lambda done, total: None)
        taken[measure.name] = measure.decode(measure.encode(result))
    return taken


@pytest.fixture
async def table(tmp_path: Path) -> PromptTable:
    table = PromptTable({text.id: text for text in TEXTS})
    baseline = await results(Chain({"d": "a"}))
    table.add(candidate(tmp_path, "bf16"), MEASURES, baseline, None)
    table.add(candidate(tmp_path, "d"), MEASURES, await results(Chain({"d": "a", "e": "g"}), baseline), baseline)
    return table


async def test_every_text_has_a_line_with_its_features_and_the_losses_of_each_tier(
    table: PromptTable, tmp_path: Path
) -> None:
    content = encode_lines(table.lines(HELDOUT, "bf16"))
    long, other, short = (msgspec.json.decode(line, type=PromptLine) for line in content.splitlines())

    assert [line.id for line in (long, other, short)] == [text.id for text in TEXTS]
    assert (other.kind, other.language, other.group, other.set) == ("prose", "de", "Route B", HELDOUT)
    assert other.reference == "bf16"
    assert list(other.features) == list(NAMES)
    assert other.features == {name: score("efgh")[name] for name in NAMES}
    tier, reference = other.tiers["d"], other.tiers["bf16"]
    assert tier.checkpoint == NamedSource(name=str(tmp_path / "d"), sha256="d" * 64)
    assert reference.text
    assert reference.text.kl is None
    assert reference.text.nats == pytest.approx(-math.log(LIKELY), rel=1e-5)
    assert tier.text
    assert tier.text.tokens == 3
    assert tier.text.flips == pytest.approx(1 / 3)
    assert tier.text.kl == pytest.approx(FLIP / 3, rel=1e-3)
    assert tier.answer
    assert (tier.answer.form, tier.answer.tokens, tier.answer.flips, tier.answer.prefix) == ("text", 4, 0, 4)
    assert long.tiers["d"].answer is None  # it was not asked
    assert long.tiers["d"].text
    assert long.tiers["d"].text.kl == 0


async def test_the_worst_passage_is_named_with_its_place_and_its_text(tmp_path: Path) -> None:
    text = HeldoutText("prose", "abcd" * 64 + "efgh" + "abcd" * 10)
    measure = Likelihood("prose", [text.text], 10_000, 2)
    baseline = await measure.take(Asker(Chain({"d": "a"}), ""), lambda done, total: None)
    result = await measure.take(Asker(Chain({"d": "a", "e": "g"}), ""), lambda done, total: None)
    table = PromptTable({text.id: text})

    table.add(candidate(tmp_path, "d"), [measure], {measure.name: result}, {measure.name: baseline})

    ((worst_text, worst),) = table.worst("d")
    assert worst_text == text
    assert (worst.start, worst.tokens) == (PASSAGE_TOKENS, 43)
    assert worst.begins.startswith("efghabcd")
    assert worst.kl == pytest.approx(FLIP / 43, rel=1e-3)


async def test_the_page_shows_where_a_tier_is_furthest_from_the_reference(table: PromptTable, tmp_path: Path) -> None:
    its = evaluation(tmp_path)
    folder = tmp_path / "pair"
    folder.mkdir()
    ours = pair(folder, its)
    for one in ours:
        store_results(its, one, 2.0)

    page = evaluation_page(await evaluate(ours[0], ours[1:], its, ABOUT), b"PNG", {"d": table.worst("d")})

    assert "Where d is furthest from the reference" in page
    assert page.index(TEXTS[1].id) < page.index(TEXTS[0].id)
    assert "<td>efgh</td>" in page
    assert f"<td>{FLIP / 3:.2f}" in page


async def test_divergence_is_shown_by_language_and_by_group_where_there_are_several(table: PromptTable) -> None:
    strata = table.strata("d")

    assert list(strata) == [
        "kl_by_language.en",
        "kl_by_language.de",
        "kl_by_group.route-a",
        "kl_by_group.route-b",
        "kl_by_group.none",
    ]
    assert strata["kl_by_language.en"].value == 0
    assert strata["kl_by_language.de"].value == pytest.approx(FLIP / 3, rel=1e-3)
    assert strata["kl_by_group.route-b"].n == 3
    assert table.strata("bf16") == {}


async def test_a_table_of_one_language_and_no_groups_has_no_strata(tmp_path: Path) -> None:
    table = PromptTable({text.id: HeldoutText("prose", text.text) for text in TEXTS})
    baseline = await results(Chain({"d": "a"}))

    table.add(candidate(tmp_path, "d"), MEASURES, baseline, baseline)

    assert table.strata("d") == {}


def test_a_result_is_described_beside_it_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    store = Store(tmp_path)

    store.save("code", {"a": 1}, b"result", {"checkpoint": "/models/int4", "sha256": "4" * 64})

    result, described = sorted(tmp_path.iterdir(), key=lambda path: path.suffix, reverse=True)
    assert result.stem == described.stem
    about = {"measure": "code", "checkpoint": "/models/int4", "sha256": "4" * 64}
    assert json.loads(described.read_bytes()) == about
    assert {stat.S_IMODE(path.stat().st_mode) for path in (result, described)} == {0o600}


def test_the_line_in_the_documentation_is_one() -> None:
    page = (ROOT / "docs" / "calibration" / "evaluate.md").read_text(encoding="utf-8")
    example = next(part for part in page.split("```json\n")[1:] if '"features"' in part).partition("```")[0]

    line = msgspec.json.decode(example, type=PromptLine, strict=True)

    assert line.tiers["int4"].answer
    assert set(line.features) <= set(NAMES)
