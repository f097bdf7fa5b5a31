"""bitladder/queue/json_views/merging.py and the metrics: one answer of those of several Redis."""

from __future__ import annotations

from bitladder.queue.json_views.merging import merged, merged_costs
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
