"""What cannot be quantized is refused before the work begins, and says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from calibration.errors import DiskFullError, InputError, RecipeError
from calibration.preflight import (
    ResourceNeeds,
    check_hardware,
    check_kernels,
    check_room,
    inspect_model,
    plan,
)
from calibration.quantization.available_memory import available_memory
from calibration.quantization.example import SMOLLM2
from calibration.quantization.recipe import CalibrationMix
from calibration.quantization.standard_recipes import RECIPES
from calibration.quantization.texts.calibration_texts import MIN_TEXTS, check_enough, first_texts, read_texts
from calibration.quantization.texts.token_budget import fill, samples_used
from tests.calibration.inspection.tiny import HIDDEN, INNER, LAYERS, VOCABULARY, Tiny

GPTQ, AWQ, NEAREST = RECIPES["int4-awq-gptq-g32"], RECIPES["int4-awq-g64"], RECIPES["int8-rtn"]


def test_a_model_is_known_by_the_headers_of_its_files(tmp_path: Path) -> None:
    weights = inspect_model(Tiny().write(tmp_path, shards=2))

    assert len(weights.linears) == 7 * LAYERS
    assert weights.shape.input_widths == (HIDDEN, INNER)
    assert weights.others == VOCABULARY * HIDDEN + (2 * LAYERS + 1) * HIDDEN
    assert (weights.hidden, weights.vocabulary, weights.blocks) == (HIDDEN, VOCABULARY, LAYERS)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("pickle", "pytorch_model.bin: pickle runs code"),
        ("shard", "model-00002-of-00003.safetensors is missing"),
        ("cut", "model-00001-of-00003.safetensors is cut off"),
        ("no weights", "there is no .safetensors file"),
        ("no config", "config.json cannot be read"),
        ("deep config", "config.json cannot be read .*nested too deeply"),
        ("quantized", "is quantized already"),
        ("no width", "hidden_size must be 1 or more, got None"),
    ],
)
def test_a_model_that_is_not_whole_is_refused(tmp_path: Path, damage: str, complaint: str) -> None:
    tiny = Tiny("int8") if damage == "quantized" else Tiny()
    if damage == "no width":
        del tiny.config["hidden_size"]
    folder = tiny.write(tmp_path / "model", shards=3)
    match damage:
        case "pickle":
            (folder / "pytorch_model.bin").write_bytes(b"\x80")
        case "shard":
            (folder / "model-00002-of-00003.safetensors").unlink()
        case "cut":
            path = folder / "model-00001-of-00003.safetensors"
            path.write_bytes(path.read_bytes()[:-2])
        case "no weights":
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(tiny.config))
        case "no config":
            (folder / "config.json").unlink()
        case "deep config":
            (folder / "config.json").write_text("[" * 100_000)

    with pytest.raises(RecipeError, match=complaint):
        inspect_model(folder)


@pytest.mark.parametrize("key", ["quantization_config", "compression_config", "hf_quant_config.json", None])
@pytest.mark.parametrize("layout", ["int8", "int4", "awq", "fp8-block"])
def test_what_is_quantized_already_is_known_by_any_key_or_by_its_tensors(
    tmp_path: Path, layout: str, key: str | None
) -> None:
    tiny = Tiny(layout)
    config = tiny.config.pop("quantization_config")
    if key == "hf_quant_config.json":
        (tmp_path / key).write_text(json.dumps(config))
    elif key:
        tiny.config[key] = config

    told = "weight(_packed)? is stored as (I8|I32|F8_E4M3)" if key is None else f"it has {key}"
    with pytest.raises(RecipeError, match=f"is quantized already; recipes start from bf16, fp16 or float32: .*{told}"):
        inspect_model(tiny.write(tmp_path))


@pytest.mark.parametrize("hardware", ["A10G", "a100", "T4", "NVIDIA A10G", "A100-80GB", "V100-SXM2-32GB", "RTX A6000"])
def test_fp8_is_refused_for_a_gpu_without_units_for_it(hardware: str) -> None:
    with pytest.raises(RecipeError, match=rf"{hardware} has no units for 8-bit float .* at least 8.9 .* L4, .*H100"):
        check_hardware(RECIPES["fp8-dynamic"], hardware)


@pytest.mark.parametrize("hardware", ["L4", "NVIDIA L40S", "H100 SXM", "RTX 4090", "cpu", "something new"])
def test_fp8_is_let_through_where_there_are_units_or_nobody_knows(hardware: str) -> None:
    check_hardware(RECIPES["fp8-dynamic"], hardware)


def test_int8_and_int4_run_on_an_a10g() -> None:
    for name in ("int8-rtn", "int4-awq-g64"):
        check_hardware(RECIPES[name], "A10G")


def test_widths_that_no_kernel_takes_are_refused(tmp_path: Path) -> None:
    folder = Tiny().write(tmp_path)
    odd = inspect_model(folder)
    odd = type(odd)(linears=(*odd.linears, (48, 64)), others=0, hidden=HIDDEN, vocabulary=VOCABULARY, blocks=odd.blocks)

    check_kernels(AWQ, inspect_model(folder))
    with pytest.raises(RecipeError, match="multiples of 32, the model has 48"):
        check_kernels(AWQ, odd)
    with pytest.raises(RecipeError, match=r"AutoAWQ clips 64 outputs at once, which do not divide \[32, 48\]"):
        check_kernels(RECIPES["int4-autoawq-g64"], odd)
    with pytest.raises(RecipeError, match="group size must divide 64, got 128"):
        check_kernels(RECIPES["int4-awq-g128"], odd)


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


def test_samples_are_read_from_a_file_and_from_a_sampled_set(tmp_path: Path) -> None:
    write_lines(tmp_path / "calibration.jsonl", ["one", "two"])
    (tmp_path / "texts.jsonl").write_text('{"text": "one", "kind": "prose"}\n\n{"prompt": "two"}\n')

    assert read_texts(tmp_path) == read_texts(tmp_path / "texts.jsonl") == ["one", "two"]


@pytest.mark.parametrize("kinds", [["chat"] * 300 + ["code"] * 100 + ["log"] * 100, ["chat", "code", "log"] * 200])
def test_a_file_that_is_sorted_or_goes_in_turns_is_read_evenly(tmp_path: Path, kinds: list[str]) -> None:
    path = write_lines(tmp_path / "texts.jsonl", [f"{kind} {number}" for number, kind in enumerate(kinds)])

    texts = read_texts(path)

    first = [text.split()[0] for text in texts[:24]]
    for kind in ("chat", "code", "log"):
        assert abs(first.count(kind) - 24 * kinds.count(kind) / len(kinds)) < 3
    assert len(set(texts)) == len(kinds)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "texts.jsonl:2: not JSON"),
        ("[" * 100_000, "texts.jsonl:2: not JSON"),
        ('{"text": " "}', 'texts.jsonl:2: expected an object with a "text"'),
        (r'{"text": "cut \ud83d"}', "texts.jsonl:2: half a surrogate pair at character 4: it is no text"),
        ("[1]", 'texts.jsonl:2: expected an object with a "text"'),
        ('{"prompt": "' + "x" * 8_000_000 + '"}', "texts.jsonl:2: more than 8,000,000 characters in one line"),
    ],
)
def test_a_bad_line_of_samples_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(f'{{"text": "good"}}\n{line}\n')

    with pytest.raises(InputError, match=complaint):
        read_texts(path)


def test_samples_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read samples .*none.jsonl.: No such file"):
        read_texts(tmp_path / "none.jsonl")


def test_a_set_of_three_prompts_is_refused_and_so_is_one_giant_prompt() -> None:
    for texts in (["a prompt"] * 3, ["word " * 1_000_000]):
        with pytest.raises(InputError, match=rf"{len(texts)} samples are too few .* at least {MIN_TEXTS}"):
            check_enough(AWQ, texts, 1536)


def test_gptq_wants_as_many_tokens_as_the_widest_layer_has_inputs() -> None:
    short, long = ["ten characters"] * 100, ["word " * 1000] * 20

    check_enough(GPTQ, long, 1536)
    check_enough(AWQ, short, 1536)
    with pytest.raises(InputError, match=r"about 400 tokens; .* widest layer has inputs, 1536"):
        check_enough(GPTQ, short, 1536)


def test_a_recipe_without_samples_does_not_care_for_any() -> None:
    check_enough(NEAREST, [], 1536)


def test_of_a_giant_prompt_only_the_beginning_is_taken() -> None:
    assert AWQ.mix is not None

    texts = first_texts(AWQ.mix, ["x" * 10_000_000] + ["short"] * 100_000)

    assert len(texts[0]) < 1000
    assert sum(map(len, texts)) == pytest.approx(AWQ.mix.budget * 8, rel=0.01)


def test_of_short_prompts_as_many_are_taken_as_the_recipe_has_tokens_for() -> None:
    mix = CalibrationMix(packaged=56, tokens=192, budget=1000, general_share=0.25)
    prompts, general = [f"prompt {number}" for number in range(600)], ["general text " * 50] * 9

    filled = fill(mix, lambda text, limit: [0] * min(limit, len(text.split())), samples=prompts, general=general)

    assert (filled.samples, filled.sample_tokens, filled.general_tokens) == (375, 750, 250)
    assert len(filled.rows) == 375 + 3  # one of general text is long
    assert samples_used(600, filled.counts()) == (
        "calibrated on 375 of 600 samples, 750 tokens, and 250 of general text (25 %); the other 225 are not needed: "
        "the recipe reads 1,000 tokens"
    )


def test_the_share_of_general_text_stays_where_samples_are_few() -> None:
    mix = CalibrationMix(packaged=56, tokens=192, budget=1000, general_share=0.2)

    filled = fill(mix, lambda text, limit: [0] * min(limit, 10), samples=["one"] * 20, general=["general"] * 90)

    assert (filled.samples, filled.sample_tokens, filled.general_tokens) == (20, 200, 50)
    assert "more samples would help: the recipe reads 1,000 tokens" in samples_used(20, filled.counts())


def test_without_samples_all_tokens_are_general() -> None:
    mix = CalibrationMix(packaged=56, tokens=192, budget=1000, general_share=0.2)

    filled = fill(mix, lambda text, limit: [0] * min(limit, 300), samples=[], general=["general"] * 90)

    assert (filled.samples, filled.sample_tokens, filled.general_tokens) == (0, 0, 1000)
    assert sum(map(len, filled.rows)) == 1000


def test_what_does_not_fit_on_the_disk_or_into_memory_is_refused(tmp_path: Path) -> None:
    wanted = plan(GPTQ, SMOLLM2, memory=None)
    cache = tmp_path / "not" / "there" / "yet"

    check_room(wanted, cache, available_memory())
    with pytest.raises(RecipeError, match=r"GB of memory are needed, 0.10 GB are available; --memory-gb"):
        check_room(wanted, cache, 100_000_000)
    huge = ResourceNeeds(weights=SMOLLM2, checkpoint_bytes=0, disk_bytes=10**18, memory_bytes=0)
    with pytest.raises(DiskFullError, match=r"1000000000.00 GB are needed in .*yet"):
        check_room(huge, cache, available_memory())
