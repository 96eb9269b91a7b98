"""One trace id follows a job: from the partner's call into the log, the trail, the task and back to the partner."""

import json
from pathlib import Path

from gateway import cli
from tests.integration.rig import Rig


def test_a_trace_id_goes_end_to_end(rig: Rig, tmp_path: Path) -> None:
    rows = [{"id": f"u{n}", "x": n} for n in range(8)]
    ours, theirs = rig.add_dataset(rig.bank, rows), rig.add_dataset(rig.payment, rows)
    rig.grant(theirs, components=["psi"])
    job_id = rig.submit(rig.job_file(rig.project(ours, theirs), (ours, theirs), [{"component": "psi"}]))
    rig.ended(job_id, seconds=60)
    trace = next(each["trace_id"] for each in rig.bank.events(event="job.submitted") if each["job_id"] == job_id)

    # The partner's structured log: what came in, what became of it.
    noted = {(each["event"], each.get("route", "")) for each in rig.payment.events(trace_id=trace)}
    assert {("edge.call", "job.audit.apply"), ("edge.call", "job.create"), ("task.state", "")} <= noted
    assert f'"trace_id":"{trace}"' in rig.payment.logs()

    # Its audit trail, where the partner is who acted.
    file = tmp_path / "trail.jsonl"
    config = str(rig.payment.folder / "node.toml")
    assert cli.main(["audit", "export", "--config", config, "--out", str(file)]) == 0
    told = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    of_it = {(each["event"], each["actor"]) for each in told if each["trace_id"] == trace}
    assert ("audit.applied", "partner") in of_it

    # Its task knew it: what a component sends carries the trace of its environment; so do calls of both gateways.
    channel = {
        each.headers["x-ptp-trace-id"] for each in rig.exchanges() if job_id in each.headers.get("x-ptp-session-id", "")
    }
    assert channel == {trace}
    from_payment = [each for each in rig.taps["bank"].exchanges() if each.headers.get("x-trace-id") == trace]
    from_bank = [each for each in rig.taps["payment"].exchanges() if each.headers.get("x-trace-id") == trace]
    assert from_payment
    assert from_bank
