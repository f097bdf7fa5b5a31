"""The screen of `bitladder top`: a table of tiers, notes below it, and keys."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from bitladder.cli.top.samples import Samples, is_lasting
from bitladder.cli.top.tier_rows import COLUMNS, Row, Sort, bars, check_model, rows_of, summary
from bitladder.errors import BitladderError
from bitladder.overview.shape import Overview, Severity
from calibration.terminal.tabular import plain

# Depths of so many of the last samples are shown as bars.
_BARS = 30
_NAME_CHARS = 24
_STALE_S = 5.0
_STYLES = {Severity.CRITICAL: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_HELP = """\
bitladder top

  q, Ctrl-C   leave
  s           sort by the next: ladder, depth, oldest, tokens, cost
  p           pause the tier under the cursor, or resume it; it asks first
  m           show the next model alone, then all
  arrows      move through the table; PgUp and PgDn too
  ?, h        this help; Escape leaves it

depth          jobs that wait; urg/nor/bat: in the lanes urgent, normal and batch
oldest, wait   age of the oldest job, and how long one waits that comes now
run            jobs of the tier's queues that run, at whichever tier
workers        live ones, +those that claim nothing
slots          jobs that the tier's workers hold, of as many as they may
jobs/s, tok/s  ended at its workers in the last 10 seconds, and written
overflow in    jobs of lower tiers that ended here in the last minute
"""


# Gives an order: its word, and what it is about.
Order = Callable[[str, Mapping[str, object]], object]


def run_screen(screen: TopScreen) -> None:
    """Show the screen until the user leaves it.

    Raises:
        BitladderError: no later try can bring a sample.

    """
    screen.run()
    if screen.failure:
        raise screen.failure


class _Help(ModalScreen[None]):
    """What the keys and columns are."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,h", "back", "Back")]
    CSS = "_Help { align: center middle; } #help { width: auto; height: auto; border: round $primary; padding: 1 2; }"

    def compose(self) -> ComposeResult:
        yield Static(_HELP, id="help", markup=False)

    def action_back(self) -> None:
        if self.is_current:  # keys may come faster than it closes
            self.dismiss()


class _Ask(ModalScreen[bool]):
    """A question that is answered with y; all else is no."""

    CSS = "_Ask { align: center middle; } #ask { width: auto; height: auto; border: round $warning; padding: 1 2; }"

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(f"{self._question}\n\ny: yes   any other key: no", id="ask", markup=False)

    def on_key(self, event: Key) -> None:
        event.stop()
        if self.is_current:
            self.dismiss(event.key == "y")


class TopScreen(App[None]):
    """The app. `failure`: why it ended by itself."""

    TITLE = "bitladder top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; max-height: 25%; padding: 0 1; background: $panel; }
    #trouble { height: auto; padding: 0 1; color: $text-error; display: none; }
    #tiers { height: auto; max-height: 60%; }
    #below { height: 1fr; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "Quit"),
        Binding("s", "sort", "Sort"),
        Binding("m", "model", "Model"),
        Binding("p", "pause", "Pause"),
        Binding("question_mark,h", "help", "Help"),
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    def __init__(self, asked: str, samples: Samples, sort: Sort, model: str | None, order: Order) -> None:
        super().__init__()
        self._order = order
        self._rows: list[Row] = []
        self._asked, self._samples, self._sorting, self._model = asked, samples, sort, model
        self._latest: Overview | None = None
        self._latest_s = 0.0
        self._problem = ""
        self._depths: dict[tuple[str, str], deque[int]] = defaultdict(lambda: deque(maxlen=_BARS))
        self.failure: BitladderError | None = None

    def compose(self) -> ComposeResult:
        yield Static("", id="head", markup=False)
        yield Static("", id="trouble", markup=False)
        yield DataTable(id="tiers", cursor_type="row", zebra_stripes=True)
        with VerticalScroll(id="below"):
            yield Static("", id="notes", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._table.add_columns(*COLUMNS, "depth before")
        self.run_worker(self._follow(), exclusive=True)
        self.set_interval(1.0, self._show)
        self._show()

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._samples()) as items:
            async for item in items:
                try:
                    self._take(item)
                except BitladderError as error:
                    self.failure = error
                    self.exit(return_code=1)
                    return
                self._show()

    def _take(self, item: Overview | BitladderError) -> None:
        if isinstance(item, BitladderError):
            if is_lasting(item):
                raise item
            self._problem = plain(str(item))
            return
        if self._latest is None:
            check_model(item, self._model)
        elif self._model not in [model.model for model in item.models]:
            self._model = None  # the settings do not have it any more
        self._latest, self._latest_s, self._problem = item, time.monotonic(), ""
        for model in item.models:
            for tier in model.tiers:
                self._depths[model.model, tier.tier].append(tier.depth)

    def action_sort(self) -> None:
        order = list(Sort)
        self._sorting = order[(order.index(self._sorting) + 1) % len(order)]
        self._show()

    def action_model(self) -> None:
        models = self._latest.models if self._latest else []
        names: list[str | None] = [None, *(model.model for model in models)]
        self._model = names[(names.index(self._model) + 1) % len(names)] if self._model in names else None
        self._show()

    def action_pause(self) -> None:
        place = self._table.cursor_row
        if not 0 <= place < len(self._rows):
            return
        row = self._rows[place]
        paused = row.tier.paused
        word = "resume" if paused else "pause"
        name = f"{row.model} {row.tier.tier}"
        target: dict[str, object] = {"model": row.model, "tier": row.tier.tier}
        effect = "it claims jobs again" if paused else "it claims nothing more, and higher tiers take its jobs"
        if paused and paused.scope != f"tier:{row.model}:{row.tier.tier}":
            target, name = {"scope": paused.scope}, f"{paused.scope}, which pauses {name}"
            effect = "all of it goes on"
        question = f"{word} {name}? {effect}."

        def answered(is_wanted: bool | None) -> None:
            if is_wanted:
                self.run_worker(self._give(word, target | {"reason": "bitladder top"}))

        self.push_screen(_Ask(question), answered)

    async def _give(self, word: str, target: Mapping[str, object]) -> None:
        try:
            await asyncio.to_thread(self._order, word, target)
        except BitladderError as error:
            self.notify(plain(f"{word}: {error}"), severity="error", timeout=15, markup=False)
        else:
            self.notify(f"{word}: done", markup=False)

    def action_help(self) -> None:
        self.push_screen(_Help())

    @property
    def _table(self) -> DataTable[Text]:
        return self.screen_stack[0].query_one("#tiers", DataTable)

    def _static(self, name: str) -> Static:
        return self.screen_stack[0].query_one(f"#{name}", Static)

    def _show(self) -> None:
        age_s = time.monotonic() - self._latest_s if self._latest else 0.0
        trouble = self._problem
        if self._latest and age_s > _STALE_S:
            trouble = f"shown is what was {age_s:.0f} s ago. {trouble}".strip()
        self._static("trouble").update(trouble)
        self._static("trouble").display = bool(trouble)
        asked = f"{self._asked}  model {self._model or 'all'}  sorted by {self._sorting}"
        if self._latest is None:
            self._static("head").update(f"{asked}\nwaiting for a sample")
            return
        at = time.strftime("%H:%M:%S", time.localtime(self._latest.at))
        self._static("head").update("\n".join([f"{at}  {asked}", *summary(self._latest)]))
        self._fill(self._latest)
        self._static("notes").update(_notes(self._latest))

    def _fill(self, latest: Overview) -> None:
        table = self._table
        self._rows = rows_of(latest, self._sorting, self._model)
        if table.row_count != len(self._rows):
            place = table.cursor_row
            table.clear()
            for _ in self._rows:
                table.add_row(*[Text()] * len(table.columns))
            table.move_cursor(row=place)
        # In place: where the reader has scrolled to stays.
        for number, row in enumerate(self._rows):
            style = "red" if row.is_wrong else ""
            names, depths = map(_shortened, row.cells[:2]), bars(self._depths[row.model, row.tier.tier])
            for column, cell in enumerate((*names, *row.cells[2:], depths)):
                table.update_cell_at(Coordinate(number, column), Text(cell, style=style), update_width=True)


def _shortened(name: str) -> str:
    """Return a name without its middle, where it would leave no room for the numbers."""
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS // 2 - 1]}…{name[-_NAME_CHARS // 2 :]}"


def _notes(latest: Overview) -> Text:
    text = Text()
    for note in latest.notes:
        text.append(f"{note.severity}: ", style=_STYLES[note.severity])
        text.append(plain(note.text))
        if note.runbook:
            text.append(f"  (docs/operating/alerts/{note.runbook}.md)", style="dim")
        text.append("\n")
    return text if latest.notes else Text("nothing is wrong", style="green")
