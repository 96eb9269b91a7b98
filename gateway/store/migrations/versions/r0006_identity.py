"""Revocation lists, the partners' and what goes into our own; our TLS certificates that follow each other."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0002"
branch_labels = None
depends_on = None


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _times(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _key() -> sa.Column[str]:
    return sa.Column("record_key", sa.Text(), primary_key=True)


def upgrade() -> None:
    op.create_table(
        "crl",
        _key(),
        *_texts("ca", "node_id", "pem"),
        *_times("revoked", "this_update", "next_update", "created"),
    )
    op.create_index("ix_crl_node_id", "crl", ["node_id"])
    op.create_table(
        "own_tls",
        _key(),
        *_texts("leaf", "ca", "chain_uri", "key_uri", "ca_uri", "ca_key_uri"),
        sa.Column("emergency", sa.Boolean(), nullable=False),
        *_times("created", "told", "serving"),
    )
    op.create_index("ix_own_tls_created", "own_tls", ["created"])
    op.create_table("revoked_cert", _key(), *_texts("ca", "serial"), *_times("created"))
    op.create_index("ix_revoked_cert_ca", "revoked_cert", ["ca"])


def downgrade() -> None:
    for table in ("revoked_cert", "own_tls", "crl"):
        op.drop_table(table)
