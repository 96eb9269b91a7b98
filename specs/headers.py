"""Header names, always lower case (they are also gRPC metadata keys)."""

from typing import Final

# Part 1 and 2: management and control.
AUTH_SIGN: Final = "x-auth-sign"
CSRF: Final = "x-csrf-protection"
SOURCE_NODE: Final = "x-source-node-id"
TARGET_NODE: Final = "x-target-node-id"
NONCE: Final = "x-nonce"
TRACE: Final = "x-trace-id"
TIMESTAMP: Final = "x-timestamp"
MPRAC_TOKEN_SET: Final = "x-mprac-token-set"  # noqa: S105  # a header's name

# A-18, B-05: what real peers send instead. Read, never written (names with underscores are dropped by many proxies).
ALIASES: Final = {
    "x-node-id": SOURCE_NODE,
    "x_node_id": SOURCE_NODE,
    "x_auth_sign": AUTH_SIGN,
    "x_nonce": NONCE,
    "x_trace_id": TRACE,
    "x_timestamp": TIMESTAMP,
}

# Part 4: transport.
PTP_VERSION: Final = "x-ptp-version"
PTP_PROVIDER: Final = "x-ptp-tech-provider-code"
PTP_PROVIDER_MISSPELT: Final = "x-ptp-tecn-provider-code"  # T-043
PTP_TRACE: Final = "x-ptp-trace-id"
PTP_TOKEN: Final = "x-ptp-token"  # noqa: S105  # a header's name
PTP_URI: Final = "x-ptp-uri"
PTP_SESSION: Final = "x-ptp-session-id"
PTP_SOURCE_NODE: Final = "x-ptp-source-node-id"
PTP_TARGET_NODE: Final = "x-ptp-target-node-id"
PTP_SOURCE_INST: Final = "x-ptp-source-inst-id"
PTP_TARGET_INST: Final = "x-ptp-target-inst-id"
PTP_TOPIC: Final = "x-ptp-topic"  # not in the standard, on real wires (part 4 section 3)
PTP_TIMEOUT: Final = "x-ptp-timeout"

# Ours, between gateways that know it (docs/transport.md): names a message, so that a repeat is noticed.
MESSAGE: Final = "x-interconn-message"
# Ours, from a container to its own gateway: the message that it has, so that the next pop may forget it.
ACK: Final = "x-interconn-ack"

PTP_VERSION_1: Final = "1"  # value of x-ptp-version that selects pass-through (part 4 section 6.2)
