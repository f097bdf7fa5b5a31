"""bitladder/cli/batch/journal.py: an output goes on wherever its run was broken off, and is nobody else's."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitladder.cli.batch.input_file import Checked
from bitladder.cli.batch.journal import Journal
from bitladder.cli.batch.output_lines import output_line
from bitladder.contract import Outcome, State
from bitladder.errors import BitladderError, ConfigError, GoneError, ModelNotFoundError

NUMBERS = (1, 2, 4, 5)
CHECKED = Checked(array("Q", NUMBERS), "sha")
DONE = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'), request_id="r")
FAILED = Outcome(state=State.FAILED, status=500, code="engine_fault", error="it broke")


def journal(folder: Path, checked: Checked = CHECKED, *, restart: bool = False, **options: object) -> Journal:
    return Journal(folder / "out", checked, options, restart=restart)


def write(to: Journal, number: int, outcome: Outcome = DONE) -> str:
    return to.write(output_line(to.job_id(number), f"id-{number}", outcome))


def ids(folder: Path) -> list[str]:
    return [msgspec.json.decode(line)["custom_id"] for line in (folder / "out").read_bytes().splitlines()]


def finished(folder: Path, *, in_order: bool = True, failed: tuple[int, ...] = ()) -> Journal:
    done = journal(folder)
    for number in (5, 1, 4, 2):
        write(done, number, FAILED if number in failed else DONE)
    done.finish(in_order=in_order)
    done.close()
    return done


def test_lines_are_put_in_order_once_all_are_there(tmp_path: Path) -> None:
    finished(tmp_path)

    assert ids(tmp_path) == ["id-1", "id-2", "id-4", "id-5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.state"]


def test_lines_may_stay_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    finished(tmp_path, in_order=False)

    assert ids(tmp_path) == ["id-5", "id-1", "id-4", "id-2"]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_run_that_was_killed_goes_on_with_the_same_ids_and_without_half_a_line(tmp_path: Path, cut: int) -> None:
    first = journal(tmp_path)
    before = [first.job_id(number) for number in NUMBERS]
    write(first, 4)
    write(first, 1)
    first.close()
    part = tmp_path / "out.part"
    part.write_bytes(part.read_bytes()[: -cut or None])

    second = journal(tmp_path)

    assert second.is_resumed
    assert [second.is_written(number) for number in NUMBERS] == [cut == 0, False, True, False]
    assert [second.job_id(number) for number in NUMBERS if not second.is_written(number)] == [
        job_id for number, job_id in zip(NUMBERS, before, strict=True) if not second.is_written(number)
    ]
    for number in NUMBERS:
        if not second.is_written(number):
            write(second, number)
    second.finish(in_order=True)
    second.close()
    assert ids(tmp_path) == ["id-1", "id-2", "id-4", "id-5"]


def test_a_finished_output_is_left_as_it_is(tmp_path: Path) -> None:
    finished(tmp_path, failed=(4,))
    before = (tmp_path / "out").stat()

    again = journal(tmp_path)
    again.finish(in_order=True)
    again.close()

    assert (again.written, again.failed, dict(again.reasons)) == (4, 1, {"engine_fault": 1})
    assert (tmp_path / "out").stat() == before


def test_lines_that_failed_run_again_under_other_ids_and_the_last_output_counts(tmp_path: Path) -> None:
    finished(tmp_path, failed=(4, 5))
    second = journal(tmp_path)
    second.forget_failed()
    assert (second.written, second.failed) == (2, 0)
    job_id = second.job_id(4)
    write(second, 4, FAILED)
    second.close()  # killed before 5

    third = journal(tmp_path)
    third.forget_failed()
    assert [third.job_id(number)[-4:] for number in (4, 5)] == ["-4.3", "-5.2"]
    assert job_id.endswith("-4.2")
    write(third, 4)
    write(third, 5, FAILED)
    third.finish(in_order=True)
    third.close()

    last = journal(tmp_path)
    last.close()
    assert ids(tmp_path) == ["id-1", "id-2", "id-4", "id-5"]
    assert (last.written, dict(last.reasons)) == (4, {"engine_fault": 1})


def test_jobs_that_were_cancelled_are_followed_by_others(tmp_path: Path) -> None:
    first = journal(tmp_path)
    write(first, 1, FAILED)
    first.cancelled()
    first.close()

    second = journal(tmp_path)
    second.forget_failed()
    second.close()
    assert [second.job_id(number).rpartition("-")[2] for number in NUMBERS] == ["1.3", "2.3", "4.3", "5.3"]


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (
            lambda folder: journal(folder, Checked(array("Q", NUMBERS), "other")),
            "the input has changed since .*out was",
        ),
        (lambda folder: journal(folder, model="other"), "begun with other options"),
        (
            lambda folder: (folder / "out.state").unlink() or journal(folder),
            "not begun by a run .*out.state.*--restart",
        ),
        (lambda folder: (folder / "out.state").write_text("{") and journal(folder), "out.state is damaged"),
        (lambda folder: (folder / "out").write_text("{}\n") and journal(folder), "damaged at byte 0"),
    ],
)
def test_another_output_is_not_touched(tmp_path: Path, begin: Callable[[Path], Any], message: str) -> None:
    finished(tmp_path)

    with pytest.raises(ConfigError, match=message):
        begin(tmp_path)
    assert (tmp_path / "out").exists()
    journal(tmp_path, restart=True).close()
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_output_are_refused(tmp_path: Path) -> None:
    first = journal(tmp_path)

    for restart in (False, True):
        with pytest.raises(ConfigError, match="another run is writing"):
            journal(tmp_path, restart=restart)
    assert (tmp_path / "out.state").exists()
    first.close()


@pytest.mark.parametrize(
    ("outcome", "status", "error", "reason"),
    [
        (DONE, 200, None, ""),
        (FAILED, 500, None, "engine_fault"),
        (
            Outcome(state=State.FAILED, status=400, body=msgspec.Raw(b'{"error":{"code":null}}')),
            400,
            None,
            "status_400",
        ),
        (Outcome(state=State.FAILED, status=400, body=msgspec.Raw(b"[]")), 400, None, "status_400"),
        (
            Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded"),
            None,
            "deadline_exceeded",
            "deadline_exceeded",
        ),
        (Outcome(state=State.CANCELLED, status=409), None, "cancelled", "cancelled"),
        (ModelNotFoundError("gpt", "smollm2"), 404, None, "model_not_found"),
        (GoneError("it is gone"), None, "result_expired", "result_expired"),
    ],
)
def test_an_output_line_says_what_became_of_its_request(
    tmp_path: Path, outcome: Outcome | BitladderError, status: int | None, error: str | None, reason: str
) -> None:
    output = journal(tmp_path)
    line = output_line(output.job_id(2), "name", outcome)
    read = msgspec.json.decode(line)

    assert output.write(line) == reason
    assert (read["response"] and read["response"]["status_code"], read["error"] and read["error"]["code"]) == (
        status,
        error,
    )
    assert read["custom_id"] == "name"
    output.close()
