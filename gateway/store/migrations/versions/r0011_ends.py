"""What a job's end still lacks: the scheduler's word for it, and the result code of a partner's part."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("unsure", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_job_unsure", "job", ["unsure"])
    op.add_column("task_view", sa.Column("code", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("task_view", "code")
    op.drop_index("ix_job_unsure", "job")
    op.drop_column("job", "unsure")
