"""Routes of the live settings."""

from __future__ import annotations

from bitladder.queue.json_views.settings_answers import SettingList, SettingsChange, SettingsChanged, SettingsHistory
from dispatcher.auth import Requirement
from dispatcher.ops.settings_handlers import change_live_settings, get_settings, get_settings_history
from dispatcher.routes.operation import Content, Operation, answer

_CHANGE = {
    "set": {"models.smollm2.tiers.int4.high": 32},
    "reason": "the evening's peak",
    "revision": 0,
}

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/settings",
        requires=Requirement.OPS_READ,
        handler=get_settings,
        name="listSettings",
        tag="operating",
        summary="List the settings that may be changed while the system runs, with value and source.",
        parameters=("LiveQuery",),
        answers={200: answer(SettingList, "The settings; `live` says who has changed one, when and why.")},
    ),
    Operation(
        method="PATCH",
        path="/v1/settings",
        requires=Requirement.OPS_WRITE,
        handler=change_live_settings,
        name="changeSettings",
        tag="operating",
        summary="Change settings of all running intakes and workers, or take changes back.",
        description="Checked as a whole first. Processes take it within two seconds.",
        body=Content(kinds=(SettingsChange,), examples={"a mark": _CHANGE}),
        answers={200: answer(SettingsChanged, "What was changed, with the values before.")},
        errors=("RevisionConflict",),
    ),
    Operation(
        method="GET",
        path="/v1/settings/history",
        requires=Requirement.OPS_READ,
        handler=get_settings_history,
        name="listSettingsHistory",
        tag="operating",
        summary="List the last changes of the live settings, the latest first.",
        parameters=("SettingsLimitQuery",),
        answers={200: answer(SettingsHistory, "The changes: who, when, why, and the values before and after.")},
    ),
)
