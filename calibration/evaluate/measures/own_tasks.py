"""The user's own tasks: one greedy answer each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from calibration.artifacts.digest import file_digest
from calibration.artifacts.evaluation_report import Comparison
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import Asker
from calibration.evaluate.figures import TierFigures, make_estimate, share_figures
from calibration.evaluate.heldout import HeldoutText
from calibration.evaluate.measures.measure import EvaluationOptions, Prepared, gather
from calibration.evaluate.task_file import Task, is_right, is_same, read_tasks
from calibration.statistics import wilson
from calibration.terminal.progress import Advance


def prepare(options: EvaluationOptions, texts: Sequence[HeldoutText]) -> Prepared:
    if not options.tasks:
        return Prepared()
    return Prepared(measures=[OwnTasks(read_tasks(options.tasks))], sources={"tasks": file_digest(options.tasks)})


class Answered(msgspec.Struct, frozen=True):
    """One task with the model's answer."""

    name: str
    right: bool | None  # None: it is compared with the reference's
    answer: str


@dataclass(frozen=True, slots=True)
class OwnTasks:
    """The answers to the tasks."""

    tasks: Sequence[Task]
    name: str = "tasks"

    @property
    def inputs(self) -> dict[str, Any]:
        return {"tasks": [task.model_dump(by_alias=True) for task in self.tasks]}

    async def take(self, asker: Asker, advance: Advance) -> list[Answered]:
        requests = [asker.complete(task.prompt, task.max_tokens, task.stop) for task in self.tasks]
        answers = await gather(requests, advance)
        pairs = zip(self.tasks, answers, strict=True)
        return [Answered(task.name, None if task.same else is_right(task, answer), answer) for task, answer in pairs]

    def encode(self, result: list[Answered]) -> bytes:
        return msgspec.json.encode(result)

    def decode(self, content: bytes) -> list[Answered]:
        return msgspec.json.decode(content, type=list[Answered])

    def figures(self, result: list[Answered], reference: list[Answered] | None, candidate: Candidate) -> TierFigures:
        """Return one share for each name of tasks: of right answers, and of answers that are as the reference's."""
        figures = TierFigures()
        for name in dict.fromkeys(answer.name for answer in result):
            if right := _right(result, name):
                of_reference = None if reference is None else _right(reference, name)
                figures |= share_figures(f"task.{name}", right, of_reference)
            if same := self._same(result, reference or (), name):
                low, high = wilson(sum(same), len(same))
                share = {f"task_same.{name}": make_estimate(sum(same) / len(same), low, high, len(same))}
                figures |= TierFigures(share, share)
        return figures

    def compare(
        self, result: list[Answered], other: list[Answered], reference: list[Answered] | None
    ) -> dict[str, Comparison]:
        """Return how two checkpoints differ task by task: in right answers, and in those that are the reference's."""
        compared: dict[str, Comparison] = {}
        for name in dict.fromkeys(answer.name for answer in result):
            pairs = {"task": (_right(result, name), _right(other, name))}
            pairs["task_same"] = (self._same(result, reference or (), name), self._same(other, reference or (), name))
            for metric, (new, old) in pairs.items():
                if new:
                    compared |= share_figures(f"{metric}.{name}", new, old).compared
        return compared

    def _same(self, answers: Sequence[Answered], reference: Sequence[Answered], name: str) -> list[bool]:
        """Return for each task of a name that compares answers whether both are the same; [] without a reference."""
        return [
            is_same(task, answer.answer, of_reference.answer)
            for task, answer, of_reference in zip(self.tasks, answers, reference, strict=False)
            if task.name == name and task.same
        ]


def _right(answers: Sequence[Answered], name: str) -> list[bool]:
    return [answer.right for answer in answers if answer.name == name and answer.right is not None]
