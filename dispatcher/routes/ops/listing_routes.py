"""Routes that list jobs, workers and tenants."""

from __future__ import annotations

from bitladder.overview.tenant_list import TenantList
from bitladder.overview.worker_list import WorkerList
from bitladder.queue.json_views.job_list import JobList
from dispatcher.auth import Requirement
from dispatcher.ops.listing_handlers import get_jobs, get_tenants, get_workers
from dispatcher.routes.operation import Operation, answer
from dispatcher.routes.ops.listing_parameters import LISTING_PARAMETERS

_NONE = {
    "object": "list",
    "data": [],
    "has_more": False,
    "next_cursor": None,
    "looked_at": 0,
    "counts": {"failed_or_expired": 0},
    "counted": "jobs of all tenants in the queues of all models",
    "left_out": 0,
}

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/jobs",
        requires=Requirement.READ,
        handler=get_jobs,
        name="listJobs",
        tag="jobs",
        summary="List jobs, the latest first.",
        description="Of every tenant with the scope ops:read, else of the key's own. A page may have fewer jobs than "
        "`limit`, or none, while `has_more` is true: only so many records are looked at for each.",
        parameters=tuple(LISTING_PARAMETERS),
        answers={200: answer(JobList, "A page of jobs.", examples={"none": _NONE})},
    ),
    Operation(
        method="GET",
        path="/v1/workers",
        requires=Requirement.OPS_READ,
        handler=get_workers,
        name="listWorkers",
        tag="operating",
        summary="List the workers, and what each of them does.",
        answers={200: answer(WorkerList, "The workers, by model and tier.")},
    ),
    Operation(
        method="GET",
        path="/v1/tenants",
        requires=Requirement.OPS_READ,
        handler=get_tenants,
        name="listTenants",
        tag="operating",
        summary="List the tenants: jobs, weight, limit, and what they have cost today.",
        answers={200: answer(TenantList, "The tenants, those with the most jobs first.")},
    ),
)
