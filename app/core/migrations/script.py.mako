"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep the old code working: add, never rename or drop what the release before still uses."""
    ${upgrades if upgrades else "raise NotImplementedError(\"write this migration\")"}


def downgrade() -> None:
    """Undo it, for development only: a host never goes back."""
    ${downgrades if downgrades else "raise NotImplementedError(\"write this migration\")"}
