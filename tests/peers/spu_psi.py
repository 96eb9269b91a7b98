"""One rank of a PSI by a real SPU over its black-box link; run by the interpreter that has `spu`, not by ours.

`spu_psi.py RANK NODE0 NODE1 INPUT OUTPUT MAX_PAYLOAD`: MAX_PAYLOAD 0 leaves the library's own size of a chunk.
"""

import sys

import spu.libspu.link as link
from spu import psi

rank, max_payload = int(sys.argv[1]), int(sys.argv[6])
description = link.Desc()
description.id = "root"
description.add_party("alice", sys.argv[2])
description.add_party("bob", sys.argv[3])
description.link_type = "blackbox"
description.brpc_channel_protocol = "http"
description.brpc_channel_connection_type = "pooled"
description.recv_timeout_ms = 30_000
if max_payload:
    description.http_max_payload_size = max_payload
context = link.create_brpc(description, rank)
config = psi.BucketPsiConfig(
    psi_type=psi.PsiType.Value("ECDH_PSI_2PC"),
    receiver_rank=0,
    broadcast_result=True,
    input_params=psi.InputParams(path=sys.argv[4], select_fields=["id"], precheck=False),
    output_params=psi.OutputParams(path=sys.argv[5], need_sort=True),
    curve_type=psi.CurveType.Value("CURVE_25519"),
    bucket_size=1 << 20,
)
report = psi.bucket_psi(context, config, None, 5000, True)
print("found", report.original_count, report.intersection_count, flush=True)
context.stop_link()
