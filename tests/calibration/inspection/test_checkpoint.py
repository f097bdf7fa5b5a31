"""A sound checkpoint passes in every layout, and every defect is found and named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from calibration.environment import example_folder
from calibration.errors import InputError
from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.model import ModelConfig, layers_of
from calibration.inspection.quantization import Schemes, read_quantization
from calibration.inspection.tensor_file import CHUNK, Array, Tensor, read_header
from calibration.inspection.unpack import weights_of
from calibration.inspection.verdict import CheckName, Findings, Inspection, Verdict
from tests.calibration.inspection.tiny import LAYERS, LAYOUTS, Tiny, bf16, stored, write_tensors
from tests.conftest import ROOT
from tests.warm_start import CALIBRATION

REAL = sorted(example_folder().glob("[a-z]*/"))
DOWN, UP, NORM = (f"model.layers.1.{name}" for name in ("mlp.down_proj", "mlp.up_proj", "input_layernorm"))
NAN_BF16, INFINITE_BF16, ONE_BF16 = 0x7FC0, 0x7F80, 0x3F80


def said(inspection: Inspection, name: CheckName) -> tuple[Verdict, str]:
    check = next(check for check in inspection.checks if check.name is name)
    return check.verdict, "\n".join(check.texts)


def schemes_of(config: dict[str, Any], tensors: dict[str, Tensor]) -> Schemes:
    layers = layers_of(msgspec.convert(config, ModelConfig))
    quantization = read_quantization(config.get("quantization_config"), tensors)
    assert layers
    return quantization.schemes(layers.modules, Findings()) if quantization else {}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shards", [1, 3])
def test_a_sound_checkpoint_passes(layout: str, shards: int, tmp_path: Path) -> None:
    found = inspect_checkpoint(Tiny(layout).write(tmp_path, shards))

    bad = {check.name: check.texts for check in found.checks if check.verdict is not Verdict.OK}
    assert bad == {}
    least, most = (30, 55) if "4" in layout or layout == "awq" else (50, 101)
    assert least < int(said(found, CheckName.SIZE)[1].split(", ")[1].split("%")[0]) < most
    assert found.verdict is Verdict.OK


@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantized_numbers_are_read_as_the_weights_that_they_stand_for(layout: str, tmp_path: Path) -> None:
    tiny = Tiny(layout)
    tensors = {tensor.name: tensor for tensor in read_header(tiny.write(tmp_path) / "model.safetensors")}
    schemes = schemes_of(tiny.config, tensors)

    for module, weights in tiny.weights.items():
        scheme = schemes.get(module)
        read = np.concatenate(list(weights_of(module, scheme, tensors)))
        read = read.T if layout == "awq" else read
        worst = np.abs(read - weights).max() / np.abs(weights).max()
        assert worst < (0.1 if "4" in layout or layout == "awq" else 0.04), module


@pytest.mark.skipif(not REAL, reason="`make checkpoints` has not been run")
@pytest.mark.parametrize("folder", REAL, ids=lambda folder: folder.name)
def test_the_example_ladder_passes_in_little_memory(folder: Path) -> None:
    command = [sys.executable, "-m", "calibration", "inspect", "--json", str(folder)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    found = json.loads(done.stdout)["checkpoints"][0]
    assert done.returncode == 0, found
    assert found["verdict"] in ("ok", "warning")
    assert found["peak_bytes"] < 150e6 < found["weight_bytes"] * 2


@pytest.mark.skipif(len(REAL) < 4, reason="`make checkpoints` has not been run")
@pytest.mark.parametrize(("tier", "least"), [("int4", 0.98), ("int8", 0.999)])
def test_what_real_quantizers_wrote_is_read_as_nearly_the_original(tier: str, least: float) -> None:
    def weights(name: str) -> Array:
        folder = REAL[0].parent / name
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = {tensor.name: tensor for tensor in read_header(folder / "model.safetensors")}
        # A layer that AWQ leaves nearly as it is: there is no norm before it to move scales into.
        module = "model.layers.5.self_attn.o_proj"
        scheme = schemes_of(config, tensors).get(module)
        return np.concatenate(list(weights_of(module, scheme, tensors)))

    assert np.corrcoef(weights("bf16").ravel(), weights(tier).ravel())[0, 1] > least


def run(*arguments: Path | str, columns: int = 200) -> subprocess.CompletedProcess[str]:
    wide = {**os.environ, "COLUMNS": str(columns)}
    return CALIBRATION.run("calibration", "inspect", *map(str, arguments), env=wide)


def test_the_command_shows_a_verdict_per_check_and_fails_when_one_checkpoint_does(tmp_path: Path) -> None:
    sound, broken = Tiny("int4").write(tmp_path / "sound"), Tiny().write(tmp_path / "broken")
    (broken / "pytorch_model.bin").touch()

    good, both, none = run(sound), run(sound, broken), run(tmp_path / "none")

    assert (good.returncode, both.returncode, none.returncode) == (0, 1, 2)
    assert "pack-quantized 4 bit, per group of 32" in good.stdout
    assert "pytorch_model.bin: pickle" in both.stdout
    assert none.stderr.startswith("error: a checkpoint is a folder")


def test_a_long_path_is_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    folder = Tiny().write(tmp_path / ("a-folder-with-a-long-name" * 4))

    assert str(folder) in run(folder, columns=80).stdout.splitlines()


def test_names_of_strangers_are_shown_and_mean_nothing(tmp_path: Path) -> None:
    tiny = Tiny()
    tiny.tensors["[/x] \x1b[2J"] = tiny.tensors["y" * 5000] = bf16(np.ones(8))
    folder = tiny.write(tmp_path / os.fsdecode(b"[/y] \xff"))

    done, as_json = run(folder), run("--json", folder)

    assert (done.returncode, as_json.returncode) == (1, 1), done.stderr + as_json.stderr
    assert "\x1b" not in done.stdout
    assert r"[/x] \x1b[2J belongs to no layer" in done.stdout
    assert r"[/y] \udcff" in done.stdout
    assert json.loads(as_json.stdout)["checkpoints"][0]["path"].endswith(r"[/y] \udcff")
    assert (
        max(len(said) for check in json.loads(as_json.stdout)["checkpoints"][0]["checks"] for said in check["said"])
        < 500
    )


def set_number(name: str, number: float, at: tuple[int, ...] = (0,)) -> Callable[[Tiny], None]:
    def spoil(tiny: Tiny) -> None:
        tiny.array(name)[at] = number

    return spoil


def scale_row(tiny: Tiny) -> None:
    weights = tiny.weights[DOWN].copy()
    weights[7] *= 40
    tiny.tensors[f"{DOWN}.weight"] = bf16(weights)


def scale_row_absurdly(tiny: Tiny) -> None:
    weights = tiny.weights[DOWN].copy()
    weights[7] *= 10_000
    tiny.tensors[f"{DOWN}.weight"] = bf16(weights)


def rename(old: str, new: str) -> Callable[[Tiny], None]:
    def spoil(tiny: Tiny) -> None:
        tiny.tensors[new] = tiny.tensors.pop(old)

    return spoil


def configure(**fields: object) -> Callable[[Tiny], None]:
    return lambda tiny: tiny.config.update(fields)


def quantize(**fields: object) -> Callable[[Tiny], None]:
    return lambda tiny: tiny.config["quantization_config"].update(fields)


def group(**fields: object) -> Callable[[Tiny], None]:
    return lambda tiny: tiny.config["quantization_config"]["config_groups"]["group_0"]["weights"].update(fields)


def drop(name: str) -> Callable[[Tiny], None]:
    return lambda tiny: tiny.tensors.pop(name) and None


def widen(tiny: Tiny) -> None:
    """Let all tensors be as config.json has them, and that be what no kernel can unpack."""
    tiny.config["intermediate_size"] = 132
    for name in list(tiny.tensors):
        if name.endswith(("gate_proj.scales", "up_proj.scales")):
            tiny.tensors[name] = stored(np.ones((2, 132), "<f2"))
        elif name.endswith(("down_proj.scales", "down_proj.qweight", "down_proj.qzeros")):
            kind, values = tiny.tensors[name]
            tiny.tensors[name] = kind, np.ones((132 if "qweight" in name else 5, values.shape[1]), values.dtype)


def nan_pair() -> tuple[str, Array]:
    return "F32", np.full(2, np.nan, "<f4")


def shrink_scales(tiny: Tiny) -> None:
    tiny.tensors[f"{DOWN}.weight_scale"] = bf16(np.ones((64, 2)))


W, S, F = CheckName.WEIGHTS, CheckName.SCALES, Verdict.FAIL
T, Q, A, K = CheckName.TENSORS, CheckName.QUANTIZATION, CheckName.ALIGNMENT, CheckName.TOKENIZER
DEFECTS: list[tuple[str, Callable[[Tiny], object], CheckName, Verdict, str]] = [
    ("bf16", set_number(f"{DOWN}.weight", NAN_BF16, (3, 4)), W, F, "1 values are NaN"),
    ("bf16", set_number(f"{NORM}.weight", INFINITE_BF16), W, F, "1 values are infinite"),
    ("bf16", lambda tiny: tiny.array(f"{NORM}.weight").fill(0), W, F, "all values are 0"),
    ("bf16", set_number(f"{DOWN}.weight", 0x4780, (3, 4)), W, F, "up to 6.55e"),
    ("fp8-channel", set_number(f"{DOWN}.weight", 0x7F, (3, 4)), W, F, "1 values are NaN"),
    ("fp8-channel", lambda tiny: tiny.array(f"{UP}.weight").__setitem__(slice(9), 0x7E), W, Verdict.WARNING, "end of"),
    ("int8", lambda tiny: tiny.array(f"{UP}.weight").fill(0), W, F, "all values are 0"),
    ("int8", set_number(f"{DOWN}.weight_scale", NAN_BF16), S, F, "1 of 64 are NaN"),
    ("int4", set_number(f"{DOWN}.weight_scale", 0, (2, 1)), S, F, "1 of 256 are zero"),
    ("int4", set_number(f"{DOWN}.weight_scale", 0x8000 + ONE_BF16, (2, 1)), S, F, "1 of 256 are negative"),
    ("awq", set_number(f"{DOWN}.scales", np.inf), S, F, "are infinite"),
    ("awq", set_number(f"{DOWN}.scales", 60_000), S, F, "up to 6e"),
    ("fp8-block", set_number(f"{DOWN}.weight_scale", 0x4180), S, F, "around"),
    ("bf16", scale_row, CheckName.OUTLIERS, Verdict.WARNING, "row 7 is"),
    ("bf16", scale_row_absurdly, CheckName.OUTLIERS, F, "row 7 is"),
    ("bf16", drop(f"{NORM}.weight"), T, F, f"{NORM}.weight is missing"),
    ("int4", drop(f"{DOWN}.weight_scale"), T, F, f"{DOWN}.weight_scale is missing"),
    ("bf16", rename(f"{NORM}.weight", f"{NORM}.wait"), T, F, f"{NORM}.wait belongs to no layer"),
    ("bf16", configure(num_hidden_layers=LAYERS + 1), T, F, "model.layers.2.input_layernorm.weight is missing"),
    ("bf16", configure(intermediate_size=160), T, F, "has shape [128, 64], expected [160, 64]"),
    ("int8", lambda tiny: tiny.tensors.update({f"{UP}.weight": bf16(tiny.weights[UP])}), T, F, "expected I8"),
    ("int4", shrink_scales, T, F, "has shape [64, 2], expected [64, 4]"),
    ("int4", lambda tiny: tiny.array(f"{DOWN}.weight_shape").fill(64), T, F, "says (64, 64), config.json (64, 128)"),
    ("bf16", lambda tiny: tiny.tokenizer.update(added_tokens=[3]), K, F, "tokenizer.json is damaged"),
    ("bf16", lambda tiny: tiny.tokenizer["model"]["vocab"].update(t2="2"), K, F, "tokenizer.json is damaged"),
    ("bf16", lambda tiny: tiny.tokenizer["model"]["vocab"].update(t2=-2), K, F, "tokenizer.json is damaged"),
    ("bf16", lambda tiny: tiny.tokenizer["model"]["vocab"].update(t2="\ud800"), K, F, "tokenizer.json is damaged"),
    ("bf16", lambda tiny: tiny.tokenizer["model"].update(vocab=[["a", 0.5], [["b"], 0.5]]), K, F, "is damaged"),
    ("int4", lambda tiny: tiny.tensors.update({f"{DOWN}.weight_shape": nan_pair()}), T, F, "dtype F32, expected I64"),
    ("bf16", configure(hidden_size=10**3000), CheckName.CONFIG, F, "hidden_size must be from 1 to"),
    ("bf16", configure(head_dim=0), CheckName.CONFIG, F, "head_dim must be from 1 to"),
    ("bf16", configure(num_key_value_heads=5), CheckName.CONFIG, F, "num_key_value_heads must be at most 4"),
    ("bf16", configure(num_hidden_layers=10**9), CheckName.CONFIG, F, "must be at most 1000"),
    ("bf16", configure(tie_word_embeddings=False), T, F, "lm_head.weight is missing"),
    (
        "bf16",
        lambda tiny: tiny.tensors.update({"lm_head.weight": bf16(np.ones((96, 64)))}),
        T,
        Verdict.WARNING,
        "not used",
    ),
    ("bf16", configure(architectures=["OtherForCausalLM"]), T, Verdict.WARNING, "architecture is not known"),
    ("int4", group(group_size=48), A, F, "group size 48 does not divide 64 inputs"),
    ("int4", group(group_size=16), A, Verdict.WARNING, "none of 32, 64, 128"),
    ("fp8-block", group(block_structure=[48, 128]), A, F, "blocks of 48 rows do not divide 64 outputs"),
    ("fp8-block", group(block_structure=[32, 64]), A, Verdict.WARNING, "fit no CPU kernel"),
    ("int4", quantize(quant_method="gptq"), Q, F, "must be compressed-tensors or awq, got 'gptq'"),
    ("int4", quantize(format="marlin-24"), Q, F, "format must be one of"),
    ("int4", group(num_bits=3), Q, F, "holds int of 4 or 8 bits, not int of 3"),
    ("int8", group(symmetric=False), Q, F, "int-quantized must be symmetric"),
    ("int4", group(group_size=0), Q, F, "group_size must be 1 or more"),
    ("int4", quantize(config_groups={}), Q, F, "config_groups is empty"),
    ("int4", quantize(ignore=["re:["]), Q, F, "quantization_config"),
    ("int4", group(num_bits="\ud800"), Q, F, "quantization_config"),
    ("int4", quantize(ignore=["re:" + "(" * 5000 + ")" * 5000]), Q, F, "quantization_config"),
    ("int4", group(group_size=10**30), Q, F, "group_size"),
    ("awq", widen, A, F, "132 outputs are no whole words of 8"),
    (
        "bf16",
        lambda tiny: tiny.tensors.update({f"model.layers.{'9' * 5000}.x": bf16(np.ones(8))}),
        T,
        F,
        "belongs to no layer",
    ),
    ("int4", quantize(ignore=[f"{UP}"]), A, F, "are stacked and must be quantized alike"),
    ("awq", quantize(version="gemv"), Q, F, "version must be gemm"),
    ("bf16", configure(vocab_size="many"), CheckName.CONFIG, F, "Expected `int`, got `str` - at `$.vocab_size`"),
    ("bf16", configure(eos_token_id=96), K, F, "eos_token_id is 96, which is no token"),
    ("bf16", lambda tiny: tiny.tokenizer["model"]["vocab"].update(x=96), K, F, "tokens go up to 96"),
    ("bf16", configure(vocab_size=5000), K, Verdict.WARNING, "tokens end at 95"),
    ("bf16", lambda tiny: tiny.tokenizer_config.update({"eos_token": "<x>"}), K, F, "eos_token is '<x>'"),
    ("bf16", lambda tiny: tiny.tokenizer_config.pop("chat_template"), K, Verdict.WARNING, "no chat template"),
    ("bf16", lambda tiny: tiny.tokenizer.update(truncation={"max_length": 64}), K, Verdict.WARNING, "at 64 tokens"),
    (
        "bf16",
        lambda tiny: tiny.tensors.update({f"{UP}.weight": stored(tiny.weights[UP])}),
        CheckName.DTYPES,
        Verdict.WARNING,
        "mlp.up_proj.weight: BF16 in 1, F32 in 1 layers",
    ),
]


@pytest.mark.parametrize(
    ("layout", "spoil", "check", "verdict", "text"), DEFECTS, ids=[f"{d[0]}-{d[4]}" for d in DEFECTS]
)
def test_a_planted_defect_is_found_and_named(
    layout: str, spoil: Callable[[Tiny], object], check: CheckName, verdict: Verdict, text: str, tmp_path: Path
) -> None:
    tiny = Tiny(layout)
    spoil(tiny)

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert said(found, check)[0] is verdict
    assert text in said(found, check)[1]


def cut(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def lengthen(folder: Path) -> None:
    with (folder / "model-00002-of-00003.safetensors").open("ab") as file:
        file.write(b"more")


def index_of(folder: Path) -> dict[str, str]:
    content = json.loads((folder / "model.safetensors.index.json").read_text())
    return dict(content["weight_map"])


def reindex(**shards: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        index = index_of(folder) | {name.replace("__", "."): shard for name, shard in shards.items()}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))

    return spoil


def unindex(folder: Path) -> None:
    index = index_of(folder)
    del index["model.norm.weight"]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def name_twice(folder: Path) -> None:
    entry = '"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}'
    head = f"{{{entry}, {entry}}}".encode()
    (folder / "model-00002-of-00003.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"0")


def store_twice(folder: Path) -> None:
    write_tensors(folder / "model-00002-of-00003.safetensors", {"model.norm.weight": bf16(np.ones(64))})
    (folder / "model.safetensors.index.json").unlink()


def without_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00002-of-00003.safetensors").unlink()


def put(name: str, content: bytes = b"") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return spoil


def head(content: bytes) -> Callable[[Path], None]:
    return put("model-00002-of-00003.safetensors", len(content).to_bytes(8, "little") + content)


def entry(shape: str, offsets: str = "[0, 0]") -> bytes:
    return f'{{"a": {{"dtype": "I8", "shape": {shape}, "data_offsets": {offsets}}}}}'.encode()


def empty(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    write_tensors(folder / "model.safetensors", {})


DEEP = b'{"a":' * 100_000


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (put("pytorch_model.bin"), "pytorch_model.bin: pickle runs code"),
        (put("PYTORCH_MODEL.BIN"), "PYTORCH_MODEL.BIN: pickle runs code"),
        (put("original/consolidated.00.pth"), "original/consolidated.00.pth: pickle runs code"),
        (head(DEEP), "model-00002-of-00003.safetensors: its header is damaged: it is nested too deeply"),
        (head(b"[]"), "its header is damaged"),
        (head(b'{"__metadata__": {"step": 1}}'), "its header is damaged"),
        (head(entry("[]").replace(b'"a"', b'"\\ud800"')), "its header is damaged"),
        (head(entry("[" + ", ".join(["9" * 18] * 500) + "]")), "its header is damaged"),
        (head(entry("[1]", f"[{'9' * 4300}, {'9' * 4300}]")), "its header is damaged"),
        (head(entry("[-1]")), "its header is damaged"),
        (put("model.safetensors.index.json", DEEP), "model.safetensors.index.json is damaged"),
        (empty, "there is no tensor in it"),
        (
            lambda folder: (
                (folder / "model-00002-of-00003.safetensors").unlink()
                or (folder / "model-00002-of-00003.safetensors").mkdir()
            ),
            "model-00002-of-00003.safetensors is no file",
        ),
        (
            lambda folder: (folder / "model-00002-of-00003.safetensors").unlink(),
            "model-00002-of-00003.safetensors is missing",
        ),
        (without_index, "model-00002-of-00003.safetensors is missing, the names of the others count it"),
        (cut, "model-00002-of-00003.safetensors is cut off"),
        (cut_header, "is cut off or no safetensors file"),
        (lengthen, "bytes that belong to no tensor"),
        (name_twice, "names a twice"),
        (store_twice, "which counts?"),
        (
            reindex(model__norm__weight="model-00009-of-00003.safetensors"),
            "model-00009-of-00003.safetensors is missing",
        ),
        (reindex(model__norm__weight="../other.safetensors"), "expected a .safetensors file beside it"),
        (reindex(model__gone__weight="model-00002-of-00003.safetensors"), "model.gone.weight is not in model-00002"),
        (unindex, "model.norm.weight is in model-0000"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "is damaged"),
    ],
)
def test_a_broken_folder_is_found_and_named(spoil: Callable[[Path], object], text: str, tmp_path: Path) -> None:
    folder = Tiny().write(tmp_path, shards=3)
    spoil(folder)

    verdict, seen = said(inspect_checkpoint(folder), CheckName.FILES)

    assert verdict is Verdict.FAIL
    assert text in seen


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("config.json", CheckName.CONFIG),
        ("tokenizer.json", CheckName.TOKENIZER),
        ("tokenizer_config.json", CheckName.TOKENIZER),
        ("generation_config.json", CheckName.TOKENIZER),
    ],
)
def test_json_that_is_nested_too_deeply_is_damage_like_other(name: str, check: CheckName, tmp_path: Path) -> None:
    folder = Tiny().write(tmp_path)
    (folder / name).write_bytes(DEEP)

    verdict, text = said(inspect_checkpoint(folder), check)

    assert verdict is Verdict.FAIL
    assert f"{name}" in text
    assert "nested too deeply" in text


@pytest.mark.parametrize("name", [5, None, "../model.safetensors", "x" * 5000])
def test_a_manifest_that_names_no_files_is_told(name: object, tmp_path: Path) -> None:
    folder = Tiny().write(tmp_path)
    fields = {"tier": "t", "recipe_hash": "", "fingerprint": {}, "versions": {}, "made_at": "", "seconds": 1.0}
    fields |= {"measured": "", "perplexity": 1.0, "reference_perplexity": 1.0}
    weights = [{"name": name, "size_bytes": 1, "sha256": ""}]
    (folder / "manifest.json").write_text(json.dumps(fields | {"weights": weights}))

    found = inspect_checkpoint(folder)

    assert found.verdict is not Verdict.OK


def test_a_file_that_cannot_be_read_fails_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Array:
        raise OSError(errno.EIO, "Input/output error")

    folder = Tiny().write(tmp_path)
    monkeypatch.setattr(np, "fromfile", broken)

    verdict, text = said(inspect_checkpoint(folder), CheckName.FILES)

    assert verdict is Verdict.FAIL
    assert "cannot be read: [Errno 5] Input/output error" in text


def test_as_many_heads_for_keys_as_for_queries_may_be_left_unsaid(tmp_path: Path) -> None:
    tiny = Tiny()
    tiny.config.update(num_key_value_heads=None, num_attention_heads=2, head_dim=16)

    _, text = said(inspect_checkpoint(tiny.write(tmp_path)), CheckName.TENSORS)

    assert "q_proj.weight has shape [64, 64], expected [32, 64]" in text


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    folder = Tiny().write(tmp_path)
    (folder / missing).unlink()

    found = inspect_checkpoint(folder)

    assert found.verdict is Verdict.FAIL
    assert any(missing in text for check in found.checks for text in check.texts)


def test_only_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a checkpoint is a folder"):
        inspect_checkpoint(tmp_path / "none")

    assert inspect_checkpoint(tmp_path).verdict is Verdict.FAIL


def test_a_defect_everywhere_is_told_by_a_few_places(tmp_path: Path) -> None:
    tiny = Tiny()
    for name in list(tiny.tensors):
        if "layernorm" in name or "proj" in name:
            del tiny.tensors[name]

    _, seen = said(inspect_checkpoint(tiny.write(tmp_path)), CheckName.TENSORS)

    assert seen.count("is missing") == 3
    assert seen.endswith("and 15 more like it")


def test_a_tensor_larger_than_a_chunk_is_read_in_parts(tmp_path: Path) -> None:
    weights = np.zeros((CHUNK // 1024 + 5, 1024), "<f4")
    weights[-1, -1] = np.nan
    write_tensors(tmp_path / "model.safetensors", {"model.layers.0.a.weight": ("F32", weights)})
    (tmp_path / "config.json").write_text(json.dumps(Tiny().config | {"architectures": ["Other"]}))

    assert "1 values are NaN" in said(inspect_checkpoint(tmp_path), CheckName.WEIGHTS)[1]
