"""Signing keys that follow each other: ours, and for each contract the partner's previous one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXTS = ("our_key", "old_auth_type", "old_auth_credential", "old_tls_ca", "ca_offered", "ca_allowed")


def upgrade() -> None:
    for name in _TEXTS:
        op.add_column("contract", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("contract", sa.Column("old_until", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "own_key",
        sa.Column("record_key", sa.Text(), primary_key=True),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("auth_type", sa.Text(), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False),
        sa.Column("key_uri", sa.Text(), nullable=False),
        sa.Column("emergency", sa.Boolean(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_own_key_created", "own_key", ["created"])


def downgrade() -> None:
    op.drop_table("own_key")
    for name in (*_TEXTS, "old_until"):
        op.drop_column("contract", name)
