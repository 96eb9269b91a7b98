"""The TLS certificates that partners have shown; why a notice could not be sent."""

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


def downgrade() -> None:
    op.drop_table("peer_tls")
