"""Runs the scripts of bitladder/queue/scripts in this process, on tables instead of Redis (tables.lua)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from bitladder.queue import run_script
from bitladder.queue.run_script import Call
from calibration.simulation.scripted.compiled import compiled

try:  # several times as fast, and of the same version of the language
    from lupa.luajit21 import LuaRuntime
except ImportError:  # pragma: no cover  (not built for this machine)
    from lupa.lua51 import LuaRuntime


class ScriptRunner:
    """A Redis of tables with the scripts that it was asked to know."""

    def __init__(self, names: Sequence[str], *, as_they_are: bool = False) -> None:
        """`as_they_are`: run the scripts' text word by word, which takes twice as long."""
        self._lua = LuaRuntime(
            encoding="utf-8", unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        tables = (files("calibration.simulation.scripted") / "tables.lua").read_text(encoding="utf-8")
        self.lua: Any = self._lua.execute(tables, name="=tables")
        for name in names:
            text = run_script.source(name).removeprefix("#!lua flags=allow-oom\n")
            if as_they_are:
                run = self._lua.execute(f"return function(KEYS, ARGV)\n{text}\nend", name=f"={name}")
            else:
                run = self._lua.execute(compiled(text), self.lua.commands, self.lua.remembering, name=f"={name}")
            self.lua.add_script(name, run)

    def call(self, *words: str | float) -> Any:  # noqa: ANN401  (each command has an answer of its own)
        """Run one command."""
        return self.lua.call(*words)

    def run(self, call: Call, now_ms: int) -> Any:  # noqa: ANN401
        """Run one call of a script, as a server would at this time."""
        keys, arguments = self._words(call)
        return self.lua.run(call.script, keys, arguments, now_ms)

    def template(self, call: Call) -> Any:  # noqa: ANN401  (a table of Lua)
        """Return a call to be run often with some arguments replaced."""
        return self._lua.table_from([*self._words(call)])

    def know(self, text: str) -> None:
        """Learn to decode a JSON text: claims decode the same ones again and again."""
        self.lua.know(text, self._lua.table_from(json.loads(text), recursive=True))

    def _words(self, call: Call) -> tuple[Any, Any]:
        first: tuple[int, ...] = (2**52,) if call.is_timely else ()
        arguments = [word.decode("latin-1") if isinstance(word, bytes) else word for word in (*first, *call.args)]
        return self._lua.table_from(list(call.keys)), self._lua.table_from(arguments)
