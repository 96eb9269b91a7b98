"""Spans made of the journal's events, and that a gateway without the extra says so."""

import sys
from typing import Any

import pytest

from gateway.errors import CallerError, Kind
from gateway.runtime.observe import ObservedJournal
from gateway.runtime.tracing import Spans, exporting
from tests.mgmt.conftest import a, b, c, world  # noqa: F401  # fixtures
from tests.mgmt.world import NOW, FakeClock, ListJournal, Node


def recorded() -> tuple[Spans, Any]:
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return Spans(provider, FakeClock()), memory


def test_calls_and_tasks_become_spans_of_one_trace() -> None:
    spans, memory = recorded()
    journal = ObservedJournal(ListJournal())
    journal.listen(spans.listen)
    journal.note("edge.call", route="job.create", peer="A", code=0, ms=20, trace_id="tr-1", job_id="j")
    journal.note("call.out", route="task.callback", peer="A", code="peer_timeout", ms=10_000, trace_id="tr-1")
    journal.note("task.state", task="psi_1", task_id="t", state="RUNNING", trace_id="tr-1")
    journal.note("task.state", task="psi_1", task_id="t", state="SUCCESS", ms=1500, trace_id="tr-1")
    journal.note("edge.call", route="node.health", peer="A", code=0, ms=1, trace_id="tr-2")
    journal.note("edge.refused", kind="unauthenticated", code=401, ms=1, trace_id="tr-3")
    journal.note("job.state", job_id="j", trace_id="tr-1", state="FINISHED")
    found = memory.get_finished_spans()
    assert [each.name for each in found] == ["job.create", "task.callback", "task psi_1", "node.health", "unknown"]
    assert [each.kind.name for each in found] == ["SERVER", "CLIENT", "INTERNAL", "SERVER", "SERVER"]
    assert len({each.context.trace_id for each in found[:3]}) == 1
    assert len({each.context.trace_id for each in found}) == 3
    assert [each.status.is_ok for each in found] == [True, False, True, True, False]
    assert (found[2].start_time, found[2].end_time) == ((NOW - 1500) * 1_000_000, NOW * 1_000_000)
    assert found[0].attributes["interconn.job_id"] == "j"


async def test_both_gateways_of_a_call_are_in_one_trace(a: Node, b: Node) -> None:  # noqa: F811
    """Each derives the trace from x-trace-id alone."""
    (ours, sent), (theirs, received) = recorded(), recorded()
    a.journal.listeners.append(ours.listen)
    b.journal.listeners.append(theirs.listen)
    await a.world.partners(a, b)
    out = {each.context.trace_id: each.name for each in sent.get_finished_spans() if each.kind.name == "CLIENT"}
    into = {each.context.trace_id: each.name for each in received.get_finished_spans() if each.kind.name == "SERVER"}
    common = set(out) & set(into)
    assert common
    assert all(out[trace] == into[trace] for trace in common)


def test_without_the_extra_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(CallerError, match=r"interconn\[otel\]") as caught:
        exporting("http://127.0.0.1:4318/v1/traces", node_id="A", clock=FakeClock())
    assert caught.value.kind is Kind.NOT_OFFERED
