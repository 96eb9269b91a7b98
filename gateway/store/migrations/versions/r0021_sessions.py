"""Sessions that an admin declared, and where a partner's transport module is."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "declared_session",
        sa.Column("record_key", sa.Text(), primary_key=True),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Boolean(), nullable=False),
        sa.Column("nodes", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
    )
    op.add_column("contract", sa.Column("peer_transport", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("contract", "peer_transport")
    op.drop_table("declared_session")
