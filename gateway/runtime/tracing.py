"""Spans for OpenTelemetry, made of the journal's events: partners' requests, calls to partners, tasks (extra `otel`).

The doors note every call with its trace id and duration anyway; a span is that event in another form, made when it is
over, so that no door knows of tracing and nothing is measured twice. Both gateways of a call derive the same
OpenTelemetry trace from one x-trace-id: spans of two institutions meet in one picture where they share a collector.
Attributes are the event's ids; payloads and tokens never were in them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import CallerError, Kind
from gateway.ports import Clock
from specs.codes import OK

NAMES: Final[Mapping[str, str]] = {
    "edge.call": "SERVER",
    "edge.refused": "SERVER",
    "call.out": "CLIENT",
    "task.state": "INTERNAL",
}
"""Event -> kind of its span."""
_ATTRIBUTES: Final = ("peer", "code", "job_id", "task_id", "party", "state", "bytes", "kind")
_TRACE_BYTES, _SPAN_BYTES = 16, 8


class Spans:
    """Listens to the journal (observe.Listener) and hands spans to an OpenTelemetry tracer. `close` sends the rest."""

    def __init__(self, provider: Any, clock: Clock) -> None:
        """provider: an SDK TracerProvider."""
        from opentelemetry import trace  # noqa: PLC0415  # only where the extra is installed

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("interconn")
        self._clock = clock

    def listen(self, event: str, ids: Mapping[str, Any]) -> None:
        kind, trace_id, ms = NAMES.get(event), ids.get("trace_id"), ids.get("ms")
        if kind is None or not trace_id or ms is None:
            return
        end = self._clock.now_ms() * 1_000_000
        span = self._tracer.start_span(
            f"task {ids.get('task')}" if event == "task.state" else str(ids.get("route") or "unknown"),
            context=self._parent(str(trace_id)),
            kind=self._api.SpanKind[kind],
            attributes={
                "interconn.trace_id": str(trace_id),
                **{f"interconn.{name}": ids[name] for name in _ATTRIBUTES if ids.get(name) is not None},
            },
            start_time=end - int(ms) * 1_000_000,
        )
        if ids.get("state") == "FAILED" or ids.get("code", OK) != OK:
            span.set_status(self._api.Status(self._api.StatusCode.ERROR))
        span.end(end_time=end)

    def _parent(self, trace_id: str) -> Any:
        """A context whose trace is that of x-trace-id at every gateway."""
        digest = hashlib.sha256(trace_id.encode()).digest()
        context = self._api.SpanContext(
            trace_id=int.from_bytes(digest[:_TRACE_BYTES], "big"),
            span_id=int.from_bytes(digest[_TRACE_BYTES : _TRACE_BYTES + _SPAN_BYTES], "big"),
            is_remote=True,
            trace_flags=self._api.TraceFlags(self._api.TraceFlags.SAMPLED),
        )
        return self._api.set_span_in_context(self._api.NonRecordingSpan(context))

    def close(self) -> None:
        self._provider.shutdown()


def exporting(endpoint: str, *, node_id: str, clock: Clock) -> Spans:
    """Spans that go to a collector at `endpoint` (OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces).

    Raises CallerError(NOT_OFFERED) where the extra is not installed. Sending is a thread's work; where the collector is
    away spans are dropped.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as e:
        words = "[tracing] endpoint needs the extra `otel`: pip install 'interconn[otel]'"
        raise CallerError(words, kind=Kind.NOT_OFFERED) from e

    resource = Resource.create({"service.name": "interconn", "service.instance.id": node_id})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Spans(provider, clock)
