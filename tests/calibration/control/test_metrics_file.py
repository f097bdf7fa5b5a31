"""Metrics of scheduled commands, as node_exporter and Prometheus read them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bitladder.process.metric_table import Row
from calibration.control.metrics_file import check_metrics_path, write_metrics
from calibration.errors import InputError

LABELS = Row("bitladder_example_labels_total", "counter", "labels", "How many?", {"tier": None})
SHARE = Row("bitladder_example_share", "gauge", "ratio", "Which share?")
BOUNDED = Row("bitladder_example_kinds", "gauge", "prompts", "How many of a kind?", {"kind": 2})


def read(path: Path) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(path.read_text())
    return {(sample.name, *sample.labels.values()): sample.value for one in families for sample in one.samples}


def test_a_reader_of_prometheus_text_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "bitladder_example.prom"

    write_metrics(path, [LABELS, SHARE], {LABELS.name: {("int4",): 3, ('in\n"8',): 1e9}, SHARE.name: 0.25})

    assert read(path) == {(LABELS.name, "int4"): 3, (LABELS.name, 'in\n"8'): 1e9, (SHARE.name,): 0.25}
    assert os.listdir(tmp_path) == [path.name]
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=path.read_bytes(), capture_output=True)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_what_is_not_known_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "bitladder_example.prom"

    write_metrics(path, [LABELS, SHARE], {LABELS.name: {("int4",): None}, SHARE.name: None})

    assert read(path) == {}


def test_values_of_a_bounded_label_beyond_its_maximum_are_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "bitladder_example.prom"

    write_metrics(path, [BOUNDED], {BOUNDED.name: {(f"kind{number}",): 1.0 for number in range(5)}})

    assert read(path) == {(BOUNDED.name, "kind0"): 1, (BOUNDED.name, "kind1"): 1, (BOUNDED.name, "(others)"): 3}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.txt", "must end in .prom"), ("folder.prom", "must be a file"), ("file/a.prom", "--metrics")],
)
def test_a_file_that_nobody_would_read_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "folder.prom").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=expected):
        check_metrics_path(tmp_path / name)
