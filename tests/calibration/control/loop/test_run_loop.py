"""The order of a loop's steps: what is done again and what is not, and what waits for a signature."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitladder.settings.load import load_settings
from calibration.artifacts.folder import locked
from calibration.control.loop.loop_file import LoopFile
from calibration.control.loop.loop_page import PAGE
from calibration.control.loop.loop_state import read_state
from calibration.control.loop.promotion import require_files
from calibration.control.loop.run_loop import LoopEnd, LoopOptions, run_loop, sign
from calibration.control.proposals.proposal_folder import ProposalStore
from calibration.errors import InputError, ProposalRefusedError
from tests.conftest import ROOT


class Commands:
    """Stands for the processes of the steps: writes what a command writes, and notes that it was called."""

    def __init__(self, folder: Path) -> None:
        self.called: list[str] = []
        self.arguments: list[Sequence[str]] = []
        self.statuses: dict[str, int] = {}
        self.policy = "first"
        self.writes = True
        self._folder = folder

    def __call__(self, arguments: Sequence[str]) -> tuple[int, bytes]:
        name = " ".join(arguments[:2]) if arguments[0] == "canary" else arguments[0]
        self.called.append(name)
        self.arguments.append(arguments)
        status = self.statuses.get(name, 0)
        if self.writes and (status == 0 or name == "label"):
            self._write(name)
        return status, b"a line of text\n" + json.dumps({"step": name}).encode() + b"\n"

    def _write(self, name: str) -> None:
        made = {
            "sample": ("sample/heldout.jsonl", "{}"),
            "label": ("labels/labels.jsonl", "{}"),
            "tune": ("policy.json", self.policy),
            "ablate": ("ablation/report.json", "{}"),
        }
        if name in made:
            path = self._folder / made[name][0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[name][1])
        if name == "ablate":
            (self._folder / "ablation" / "curves.png").write_bytes(b"\x89PNG")


class _Settings(http.server.BaseHTTPRequestHandler):
    """An intake's live settings, as far as a loop reads them."""

    in_force = "article"
    url = ""

    def do_GET(self) -> None:
        values: dict[str, Any] = {"policy.name": type(self).in_force}
        values |= {f"policies.{name}.limit": None for name in ("tuned-a", "tuned-b")}
        rows = [{"key": key, "value": value, "live": None} for key, value in values.items()]
        content = json.dumps({"revision": 1, "data": rows}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        del arguments


@pytest.fixture
def settings() -> Iterator[type[_Settings]]:
    class Handler(_Settings):
        pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def loop(tmp_path: Path, settings: type[_Settings]) -> LoopFile:
    return LoopFile(
        policies={name: str(tmp_path / f"{name}.json") for name in ("tuned-a", "tuned-b")},
        url=settings.url,
        proposals=str(tmp_path / "proposals"),
        tune={"cost": ["int4=0.3", "fp8=1"]},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "loop"


@pytest.fixture
def commands(folder: Path) -> Commands:
    return Commands(folder)


def run(loop: LoopFile, folder: Path, commands: Commands, until: str = "promote") -> LoopEnd:
    return run_loop(loop, folder, LoopOptions(until=until, start=commands))


BEFORE_TRAFFIC = ["sample", "label", "tune", "ablate"]


def test_nothing_touches_traffic_before_the_page_is_signed(loop: LoopFile, folder: Path, commands: Commands) -> None:
    end = run(loop, folder, commands)

    assert (end.state, commands.called) == ("to be signed", BEFORE_TRAFFIC)
    assert not Path(loop.policies["tuned-a"]).exists()
    page = (folder / PAGE).read_text()
    assert read_state(folder).proposal in page
    assert "<img" in page


def test_a_signed_policy_is_put_in_place_tried_and_promoted(loop: LoopFile, folder: Path, commands: Commands) -> None:
    run(loop, folder, commands)
    sign(folder, loop, "A. Turing")

    assert run(loop, folder, commands).state == "promoted"

    assert commands.called == [*BEFORE_TRAFFIC, "canary run", "canary promote"]
    assert Path(loop.policies["tuned-a"]).read_text() == "first"
    assert "A. Turing" in ProposalStore(Path(loop.proposals)).read(read_state(folder).proposal).history[-1].author


def test_what_is_done_is_not_done_again(loop: LoopFile, folder: Path, commands: Commands) -> None:
    run(loop, folder, commands, until="tune")
    run(loop, folder, commands, until="ablate")

    assert commands.called == BEFORE_TRAFFIC


@pytest.mark.parametrize("until", ["sample", "label", "tune", "ablate"])
def test_a_loop_stops_where_it_is_told_to(loop: LoopFile, folder: Path, commands: Commands, until: str) -> None:
    end = run(loop, folder, commands, until)

    assert (end, commands.called[-1]) == (LoopEnd(state="stopped", step=until), until)


def test_a_changed_option_does_its_step_and_what_follows_again(
    loop: LoopFile, folder: Path, commands: Commands
) -> None:
    run(loop, folder, commands)
    sign(folder, loop, "A. Turing")
    commands.called.clear()
    commands.policy = "second"
    stricter = msgspec.structs.replace(loop, tune={**loop.tune, "alpha": 0.02})

    end = run(stricter, folder, commands)

    assert (end.state, commands.called) == ("to be signed", ["tune", "ablate"])


def test_what_somebody_deleted_is_made_again(loop: LoopFile, folder: Path, commands: Commands) -> None:
    run(loop, folder, commands, until="ablate")
    (folder / "labels" / "labels.jsonl").unlink()

    run(loop, folder, commands, until="ablate")

    assert commands.called == [*BEFORE_TRAFFIC, "label"]


def test_labels_that_prove_nothing_end_the_loop(loop: LoopFile, folder: Path, commands: Commands) -> None:
    commands.statuses["tune"] = 1

    assert run(loop, folder, commands) == LoopEnd(state="refused", step="tune", message="exit status 1")
    assert "tune refused" in (folder / PAGE).read_text()


def test_prompts_that_could_not_be_labelled_do_not_end_it(loop: LoopFile, folder: Path, commands: Commands) -> None:
    commands.statuses["label"] = 1

    assert run(loop, folder, commands).state == "to be signed"


def test_labels_of_an_earlier_run_are_not_those_of_one_that_broke(
    loop: LoopFile, folder: Path, commands: Commands
) -> None:
    run(loop, folder, commands)
    commands.statuses["label"], commands.writes = 1, False
    changed = msgspec.structs.replace(loop, label={"answers": 4})

    assert run(changed, folder, commands) == LoopEnd(state="refused", step="label", message="exit status 1")


def test_a_refused_canary_puts_the_former_policy_back(loop: LoopFile, folder: Path, commands: Commands) -> None:
    place = Path(loop.policies["tuned-a"])
    place.write_text("former")
    run(loop, folder, commands)
    sign(folder, loop, "A. Turing")
    commands.statuses["canary run"] = 1

    end = run(loop, folder, commands)

    assert (end.state, end.step, place.read_text()) == ("refused", "canary", "former")


def test_the_file_of_a_policy_in_force_is_not_written(
    loop: LoopFile, folder: Path, commands: Commands, settings: type[_Settings]
) -> None:
    settings.in_force = "tuned-a"
    run(loop, folder, commands)
    assert read_state(folder).policy == "tuned-b"

    only = msgspec.structs.replace(loop, policies={"tuned-a": loop.policies["tuned-a"]})
    with pytest.raises(InputError, match="requests go by tuned-a now"):
        run(only, folder, commands)


def test_a_policy_file_that_somebody_changed_since_is_left_alone(
    loop: LoopFile, folder: Path, commands: Commands
) -> None:
    run(loop, folder, commands)
    sign(folder, loop, "A. Turing")
    Path(loop.policies["tuned-a"]).write_text("somebody else's")

    with pytest.raises(ProposalRefusedError):
        run(loop, folder, commands)

    assert commands.called == BEFORE_TRAFFIC


def test_there_is_nothing_to_sign_before_the_proposal(loop: LoopFile, folder: Path, commands: Commands) -> None:
    run(loop, folder, commands, until="ablate")

    with pytest.raises(InputError, match="nothing to sign"):
        sign(folder, loop, "A. Turing")


def test_the_loop_says_its_own_options_itself(loop: LoopFile, folder: Path, commands: Commands) -> None:
    wrong = msgspec.structs.replace(loop, ablate={"cost": ["int4=1"]})

    with pytest.raises(InputError, match=r"\[ablate\] cost: the loop says it itself \(it is that of \[tune\]\)"):
        run(wrong, folder, commands)


def test_costs_at_a_load_are_refused_as_the_ablation_would_have_none(
    loop: LoopFile, folder: Path, commands: Commands
) -> None:
    wrong = msgspec.structs.replace(loop, tune={"load": 12})

    with pytest.raises(InputError, match=r"\[tune\] load: the ablation has no costs then"):
        run(wrong, folder, commands)


def out_of(arguments: Sequence[str]) -> str:
    return arguments[arguments.index("--out") + 1]


def test_a_new_policy_has_a_canary_of_its_own_and_is_promoted_anew(
    loop: LoopFile, folder: Path, commands: Commands, settings: type[_Settings]
) -> None:
    run(loop, folder, commands)
    sign(folder, loop, "A. Turing")
    run(loop, folder, commands)
    settings.in_force, commands.policy = "tuned-a", "second"
    commands.arguments.clear()
    stricter = msgspec.structs.replace(loop, tune={**loop.tune, "alpha": 0.02})
    assert run(stricter, folder, commands).state == "to be signed"
    sign(folder, stricter, "A. Turing")

    assert run(stricter, folder, commands).state == "promoted"

    assert commands.called[-2:] == ["canary run", "canary promote"]
    outs = {out_of(arguments) for arguments in commands.arguments if arguments[0] == "canary"}
    assert outs == {str(folder / "canary" / read_state(folder).proposal)}


def test_a_refused_canary_is_not_asked_again_until_something_changes(
    loop: LoopFile, folder: Path, commands: Commands
) -> None:
    run(loop, folder, commands)
    sign(folder, loop, "A. Turing")
    commands.statuses["canary run"] = 1
    run(loop, folder, commands)
    commands.called.clear()

    end = run(loop, folder, commands)

    assert (end.state, end.step, commands.called) == ("refused", "propose", [])
    assert "was undone" in end.message
    wider = msgspec.structs.replace(loop, canary={"margin": 0.05})
    assert run(wider, folder, commands).state == "to be signed"


def test_the_file_of_a_refused_policy_stays_where_somebody_has_given_it_traffic(
    loop: LoopFile, folder: Path, commands: Commands, settings: type[_Settings]
) -> None:
    run(loop, folder, commands)
    sign(folder, loop, "A. Turing")
    commands.statuses["canary run"] = 1  # its share was changed meanwhile
    settings.in_force = "tuned-a"

    end = run(loop, folder, commands)

    assert (end.state, Path(loop.policies["tuned-a"]).read_text()) == ("refused", "first")
    assert "its file stays" in end.message


def test_only_the_page_that_was_read_is_signed_and_none_while_a_step_runs(
    loop: LoopFile, folder: Path, commands: Commands
) -> None:
    read = run(loop, folder, commands).page
    sign(folder, loop, "A. Turing", page=read)
    commands.policy = "second"
    stricter = msgspec.structs.replace(loop, tune={**loop.tune, "alpha": 0.02})
    run(stricter, folder, commands)

    with pytest.raises(InputError, match="is not the page of now"):
        sign(folder, stricter, "A. Turing", page=read)
    with locked(folder, "loop", lambda: None), pytest.raises(InputError, match="once it waits"):
        sign(folder, stricter, "A. Turing")


def test_the_files_of_a_loop_are_those_that_the_stack_reads(loop: LoopFile, tmp_path: Path) -> None:
    (tmp_path / "tuned-a.json").write_bytes((ROOT / "examples" / "learned_policy.json").read_bytes())
    config = tmp_path / "bitladder.toml"
    tiers = "".join(f'[[models.smollm2.tiers]]\nname = "{tier}"\n' for tier in ("int4", "int8", "fp8"))
    config.write_text(f'{tiers}[policies.tuned-a]\nkind = "learned"\nfile = "tuned-a.json"\n')
    loaded = load_settings(str(config), environ={})
    one = msgspec.structs.replace(loop, policies={"tuned-a": str(tmp_path / "tuned-a.json")})

    require_files(one, loaded)

    with pytest.raises(InputError, match="must be the file that the stack reads"):
        require_files(msgspec.structs.replace(one, policies={"tuned-a": "tuned-a.json"}), loaded)
    with pytest.raises(InputError, match="'tuned-b' must be a table of kind learned"):
        require_files(loop, loaded)
