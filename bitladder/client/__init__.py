"""The Python client of the job API, blocking and asyncio. OpenAI's own client works for completions and chat.

with Client() as client:
    job = client.submit({"model": "smollm2", "prompt": "Hello"}, priority=9)
    print(client.wait(job["id"])["result"])
    jobs = client.submit_many({"model": "smollm2", "prompt": line} for line in lines)
    for index, job_id, outcome in client.as_completed(jobs):
        ...  # a job that has ended, or the error of body `index`
"""

from __future__ import annotations

from bitladder.client.answers import Job, envelope_headers
from bitladder.client.async_client import AsyncClient
from bitladder.client.sync_client import Client
from bitladder.errors import JobError

__all__ = ["AsyncClient", "Client", "Job", "JobError", "envelope_headers"]
