"""The TLS certificates that partners have shown; notices that were given up, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "peer_tls",
        sa.Column("record_key", sa.Text(), primary_key=True),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=False),
    )
    op.add_column("notice", sa.Column("state", sa.Text(), nullable=False, server_default="DUE"))
    op.add_column("notice", sa.Column("error", sa.Text(), nullable=False, server_default=""))
    op.drop_index("ix_notice_due", "notice")
    op.create_index("ix_notice_state_due", "notice", ["state", "due"])
    op.create_index("ix_notice_created_record_key", "notice", ["created", "record_key"])


def downgrade() -> None:
    op.drop_index("ix_notice_created_record_key", "notice")
    op.drop_index("ix_notice_state_due", "notice")
    op.create_index("ix_notice_due", "notice", ["due"])
    op.drop_column("notice", "error")
    op.drop_column("notice", "state")
    op.drop_table("peer_tls")
