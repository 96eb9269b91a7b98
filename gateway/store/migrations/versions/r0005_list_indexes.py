"""Indexes in the order of the lists that partners page through."""

from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_dataset_public", "dataset")
    op.create_index("ix_dataset_public_created_record_key", "dataset", ["public", "created", "record_key"])
    op.create_index("ix_project_initiator_created", "project", ["initiator", "created"])


def downgrade() -> None:
    op.drop_index("ix_project_initiator_created", "project")
    op.drop_index("ix_dataset_public_created_record_key", "dataset")
    op.create_index("ix_dataset_public", "dataset", ["public"])
