"""The stack that a canary steers and watches: live settings, the overview, failed jobs, and how many it has served."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from bitladder.errors import ConfigError, JobError
from bitladder.settings.live_values import LiveDocument, LiveValue, with_live
from bitladder.settings.load import Loaded
from bitladder.settings.sections import Settings
from calibration.control.canary.guards import failure_problem, overview_problem
from calibration.control.canary.spec import (
    SPLIT,
    Change,
    Spec,
    give,
    is_given,
    is_promoted,
    key_of,
    promote,
    take_back,
)
from calibration.control.proposals.intake_settings import IntakeSettings
from calibration.errors import CalibrationError, InputError, ProposalRefusedError

# Somebody else may change other settings between the look and the change.
_TRIES = 5
_PAUSE_S = 0.2
# Sums of costs are kept for longer than any canary runs.
_DAYS = 30
_LISTED, _PAGES = 200, 25


class CanaryStack(IntakeSettings):
    """One intake, for one canary."""

    def effective(self, loaded: Loaded) -> Settings:
        """Return the settings that the processes go by: the files', with the live ones over them."""
        revision, rows = self.read()
        made: dict[str, Any] = {"author": "live", "at": 0.0, "revision": revision}
        values = {key: LiveValue(value=row.value, **made) for key, row in rows.items() if row.is_live}
        try:
            return with_live(loaded, LiveDocument(revision=revision, values=values)).settings
        except ConfigError as error:
            raise InputError(f"the configuration here is not the one of the stack: {error}") from error

    def policy_before(self, spec: Spec) -> tuple[object, bool]:
        """Return the model's policy, and whether it was set live."""
        row = self.read()[1].get(f"models.{spec.model}.policy")
        return (row.value, row.is_live) if row else (None, False)

    def give(self, spec: Spec, for_s: float) -> None:
        """Give the share, or prolong it: it ends by itself where nobody does so any more."""
        self._apply(give(spec), f"canary: {spec.share:.0%} of the keys of {spec.model} to {spec.what}", for_s)

    def take_back(self, spec: Spec, before: tuple[object, bool], why: str) -> None:
        """End the share, if it is still as this canary has set it."""
        if is_given(spec, self.value(spec)):
            self._apply(take_back(spec, before[0], was_live=before[1]), f"canary rolled back: {why}")

    def promote(self, spec: Spec, why: str, lapsed: Callable[[object], bool]) -> None:
        """Give the candidate everything; `lapsed`: whether by that setting the share has ended by itself.

        Raises:
            ProposalRefusedError: the share is not as this canary has set it.

        """
        value = self.value(spec)
        if is_promoted(spec, value):
            return  # by a call that was killed before it had written so, or by a proposal
        if not is_given(spec, value) and not lapsed(value):
            raise ProposalRefusedError(f"somebody else has changed {key_of(spec)} since: nothing was promoted")
        self._apply(promote(spec), f"canary promoted: {why}")

    def value(self, spec: Spec) -> object:
        """Return the setting by which one sees whether the share is as the canary has set it; None: it is not set."""
        row = self.read()[1].get(key_of(spec))
        return None if row is None else row.value

    def counts(self, spec: Spec) -> tuple[int, int]:
        """Return how many jobs the candidate has ended, where its tiers have prices, and how many this intake gave it.

        The first one counts those of all intakes, and the canary's own; the second one begins anew with the intake.
        """
        ended = 0
        if spec.candidate:
            rows = self._get("/v1/costs", by="model", days=_DAYS)["data"]
            ended = sum(int(row["requests"]) for row in rows if row["model"] == spec.candidate)
        try:
            families = list(text_string_to_metric_families(self._http.get("/metrics").text))
        except (httpx2.HTTPError, ValueError) as error:
            raise CalibrationError(f"the intake does not say (/metrics): {error}") from error
        return ended, int(
            sum(sample.value for family in families for sample in family.samples if _is_given(sample, spec))
        )

    def problem(self, spec: Spec, since: float, touched: int) -> str:
        """Return what is wrong with the candidate now; '' where nothing is."""
        if problem := overview_problem(spec, self._get("/v1/overview")):
            return problem
        failed: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        # As many as decide: where thousands were touched, hundreds that failed may still be few.
        for _ in range(_PAGES if spec.candidate else 0):
            page = self._get("/v1/jobs", model=spec.candidate, state="failed", limit=_LISTED, **after)
            failed += page["data"]
            if not page["has_more"] or len(failed) > spec.max_failed * touched + _LISTED:
                break
            after = {"after": page["next_cursor"]}
        return failure_problem(spec, failed, since, touched)

    def running(self, spec: Spec) -> int:
        """Return how many jobs the candidate still has."""
        models = self._get("/v1/overview")["models"]
        tiers = [tier for entry in models if entry["model"] == spec.candidate for tier in entry["tiers"]]
        return sum(tier["depth"] + tier["in_flight"] for tier in tiers)

    def _get(self, path: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401  (of a query)
        try:
            answer: dict[str, Any] = self._call("GET", path, params=params)
        except JobError as error:
            raise CalibrationError(f"the intake does not say ({path}): {error}") from error
        return answer

    def _apply(self, change: Change, reason: str, for_s: float | None = None) -> None:
        for attempt in range(_TRIES):
            revision, rows = self.read()
            unset = tuple(key for key in change.unset if (row := rows.get(key)) and row.is_live)
            if not change.values and not unset:
                return
            try:
                self.change(change.values, unset, reason=reason, revision=revision, for_s=for_s)
            except ProposalRefusedError:
                if self.read()[0] == revision or attempt == _TRIES - 1:  # it was not for the revision
                    raise
                time.sleep(_PAUSE_S)
            else:
                return


def _is_given(sample: Sample, spec: Spec) -> bool:
    labels = sample.labels
    if labels.get("model") != spec.model:
        return False
    if spec.candidate:
        return bool(sample.name == "bitladder_canary_requests_total" and labels["end"] == "candidate")
    name = f"{SPLIT}/{spec.policy}"  # with the beginning of its digest behind it, if it is a table
    is_arm = labels.get("policy") == name or labels.get("policy", "").startswith(f"{name}:")
    return bool(sample.name == "bitladder_decisions_total" and is_arm)
