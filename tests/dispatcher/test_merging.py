"""bitladder/queue/json_views/merging.py and the metrics: one answer of those of several Redis."""

from __future__ import annotations

from bitladder.queue.json_views.merging import merged, merged_costs, merged_history, merged_tenants
from dispatcher.several.merged_metrics import merged_metrics


def test_lists_follow_counts_add_and_a_flag_of_one_is_a_flag() -> None:
    first = {
        "at": 2.0,
        "data": [1],
        "total": 3,
        "by_code": {"a": 1},
        "suspended": False,
        "next": None,
        "object": "list",
    }
    second = {"at": 9.0, "data": [2], "total": 4, "by_code": {"a": 1, "b": 2}, "suspended": True, "next": None}

    assert merged([first, second]) == {
        "at": 9.0,
        "data": [1, 2],
        "total": 7,
        "by_code": {"a": 2, "b": 2},
        "suspended": True,
        "next": None,
        "object": "list",
    }


def test_costs_of_one_tenant_are_one_row_and_its_saving_is_the_average_of_a_request() -> None:
    def report(requests: int, saving: float | None) -> dict[str, object]:
        row = {"tenant": "acme", "requests": requests, "attributed": 1.0, "saving_per_request": saving}
        return {"data": [row], "total": {name: row[name] for name in row if name != "tenant"}}

    whole = merged_costs([report(3, 1.0), report(1, 5.0), report(2, None)])

    assert whole["data"] == [{"tenant": "acme", "requests": 6, "attributed": 3.0, "saving_per_request": 2.0}]
    assert whole["total"]["saving_per_request"] == 2.0


def test_samples_of_another_redis_have_its_label_and_the_process_is_there_once() -> None:
    text = (
        '# HELP depth How many?\n# TYPE depth gauge\ndepth{{queue="a}}b"}} {0}\n'
        "# HELP used How much?\n# TYPE used gauge\nused {0}\n"
        "# HELP process_cpu CPU\n# TYPE process_cpu counter\nprocess_cpu 1.0\n"
    )

    assert merged_metrics([("", text.format("1.0")), ("big", text.format("2.0"))]).splitlines() == [
        "# HELP depth How many?",
        "# TYPE depth gauge",
        'depth{queue="a}b"} 1.0',
        'depth{queue="a}b",redis="big"} 2.0',
        "# HELP used How much?",
        "# TYPE used gauge",
        "used 1.0",
        'used{redis="big"} 2.0',
        "# HELP process_cpu CPU",
        "# TYPE process_cpu counter",
        "process_cpu 1.0",
    ]


def test_a_pause_at_every_redis_is_shown_once_and_one_at_some_says_so() -> None:
    def entries(*scopes: str) -> dict[str, object]:
        return {"data": [{"scope": scope, "reason": "tried"} for scope in scopes]}

    whole = merged([entries("all", "tenant:a", "model:x"), entries("all", "tenant:b")])

    assert [(entry["scope"], entry.get("redis")) for entry in whole["data"]] == [
        ("all", None),
        ("tenant:a", "1 of 2"),
        ("model:x", None),
        ("tenant:b", "1 of 2"),
    ]


def test_a_tenant_of_two_redis_is_one_row_and_its_limit_is_that_at_each() -> None:
    row = {"tenant": "a", "waiting": 1, "running": 2, "cost_today": 0.5, "weight": 2, "limit": 9, "keys": ["k"]}
    answer = {"data": [row], "total": 1, "has_more": False}

    whole = merged_tenants([answer, answer])

    assert whole["data"] == [row | {"waiting": 2, "running": 4, "cost_today": 1.0}]
    assert whole["total"] == 1


def test_histories_of_two_clocks_have_the_moments_of_the_first() -> None:
    def history(start: int, name: str) -> dict[str, object]:
        series = {"tier": "t", "depth": [1.0, 2.0], "overflow_in": {"low": [1, 2]}}
        at = [start, start + 10]
        models = [{"model": name, "tiers": [series]}]
        return {"at": at, "models": models, "dead_letters": [1, None], "memory_share": [0.5, None]}

    whole = merged_history([history(10, "a"), history(0, "b")])

    assert whole["at"] == [10, 20]
    assert [model["tiers"][0]["depth"] for model in whole["models"]] == [[1.0, 2.0], [2.0, None]]
    assert whole["models"][1]["tiers"][0]["overflow_in"] == {"low": [2, None]}
    assert (whole["dead_letters"], whole["memory_share"]) == ([1, None], [0.5, None])
