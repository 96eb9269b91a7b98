"""East-west control endpoints (part 2, 3.1-3.9, and v1.0's audit_confirm): route name -> handler for `rest.edge`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.mgmt_plane.service.schedule import Schedule
from gateway.ports import Caller

Handler = Callable[[Caller, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


def schedule_handlers(schedule: Schedule) -> Mapping[str, Handler]:
    """Handlers keyed by the names of `specs.routes.CONTROL` and LEGACY."""
    return {
        "job.create_all": schedule.create_all,
        "job.create": schedule.create,
        "job.start": schedule.job_start,
        "task.start": schedule.task_start,
        "job.stop_all": schedule.stop_all,
        "job.stop": schedule.job_stop,
        "job.status_all": schedule.status_all,
        "task.poll": schedule.task_poll,
        "task.callback": schedule.task_callback,
        "job.audit_confirm": schedule.audit_confirm,
    }
