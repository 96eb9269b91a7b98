"""Uses of a grant have a state, grants and components name digests of what they stand for."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource_grant", sa.Column("reserved", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("resource_grant", sa.Column("schema_digest", sa.Text(), nullable=False, server_default=""))
    op.add_column("resource_grant", sa.Column("components", sa.Text(), nullable=False, server_default="{}"))
    # Until now a use was counted for good when the job was created.
    op.add_column("grant_use", sa.Column("state", sa.Text(), nullable=False, server_default="CONSUMED"))
    op.add_column("grant_use", sa.Column("opened", sa.BigInteger(), nullable=True))
    op.execute("UPDATE grant_use SET opened = created")
    op.add_column("component", sa.Column("code_digest", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("component", "code_digest")
    op.execute("DELETE FROM grant_use WHERE state = 'RETURNED'")
    op.execute("UPDATE resource_grant SET used = used + reserved")
    for name in ("opened", "state"):
        op.drop_column("grant_use", name)
    for name in ("components", "schema_digest", "reserved"):
        op.drop_column("resource_grant", name)
