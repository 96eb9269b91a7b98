"""Indexes for every list that can grow, and for what is counted at every application."""

from collections.abc import Mapping, Sequence

from alembic import op

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None

_Indexes = Mapping[str, Sequence[Sequence[str]]]
_GONE: _Indexes = {
    "audit": (("kind", "status"), ("peer_node_id",)),
    "project": (("created",), ("initiator", "created")),
    "out_call": (("state", "due"),),
    "job": (("flow_id",),),
}
_NEW: _Indexes = {
    "dataset": (("created", "record_key"),),
    "audit": (
        ("kind", "direction", "status"),
        ("peer_node_id", "direction", "status", "kind"),
        ("created", "record_key"),
    ),
    "project": (("created", "record_key"), ("initiator", "created", "record_key")),
    "out_call": (("state", "created", "record_key"), ("created",)),
    "job": (("flow_id", "created"),),
}


def _change(gone: _Indexes, new: _Indexes) -> None:
    for table, indexes in gone.items():
        for columns in indexes:
            op.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
    for table, indexes in new.items():
        for columns in indexes:
            op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def upgrade() -> None:
    _change(_GONE, _NEW)


def downgrade() -> None:
    _change(_NEW, _GONE)
