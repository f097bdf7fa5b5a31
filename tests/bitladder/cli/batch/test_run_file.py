"""bitladder/cli/batch/run_file.py: what is refused before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitladder.cli.batch.run_file import FileRun, run_file
from bitladder.errors import ConfigError
from bitladder.queue_name import Lane
from tests.conftest import make_settings


def test_an_input_is_never_replaced_by_its_own_output(tmp_path: Path) -> None:
    source, link = tmp_path / "in.txt", tmp_path / "link.txt"
    source.write_text("a prompt\n")
    link.symlink_to(source)
    asked = FileRun(
        source=str(source),
        output=str(link),
        fields={"model": "smollm2"},
        headers={},
        lane=Lane.BATCH,
        max_in_flight=1,
        in_order=True,
        retry_failed=False,
        restart=True,
        cancel_on_interrupt=False,
        as_json=False,
    )

    with pytest.raises(ConfigError, match=r"link.txt is the input"):
        run_file(make_settings("redis://127.0.0.1:1/0"), asked)

    assert source.read_text() == "a prompt\n"
    assert link.is_symlink()
