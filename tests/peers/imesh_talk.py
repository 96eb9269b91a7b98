"""A container that speaks by imesh, the reference SDK of part 4; run by the interpreter that has it, not by ours.

`imesh_talk.py ADDRESS SESSION TARGET push|pop|peek|release TOPIC [SIZE]`: push sends SIZE bytes made from a counter and
a hash, pop and peek print the SHA-256 of what came.
"""

import hashlib
import os
import sys

address, session_id, target, operation, topic = sys.argv[1:6]
os.environ["MESH_ADDRESS"] = address
import mesh
from mesh import ServiceLoader, Transport

mesh.start()
session = (
    ServiceLoader.load(Transport)
    .get("mesh")
    .open(
        session_id,
        {
            "mesh.mpc.address": address,
            "x-ptp-tech-provider-code": "imesh",
            "x-ptp-trace-id": "imesh-trace",
            "x-ptp-token": "imesh-token",
            "x-ptp-session-id": session_id,
            "x-ptp-target-node-id": target,
        },
    )
)
if operation == "push":
    size = int(sys.argv[6])
    blocks = (hashlib.sha256(str(number).encode()).digest() for number in range(size // 32 + 1))
    payload = b"".join(blocks)[:size]
    session.push(payload, {}, topic)
elif operation == "release":
    session.release(5000, topic)
    payload = b""
else:
    payload = (session.pop(5000, topic) if operation == "pop" else session.peek(topic)) or b""
print("got", len(payload), hashlib.sha256(payload).hexdigest(), flush=True)
os._exit(0)  # its threads do not end
