"""The first tables, and the triggers that keep the truth append-only."""

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
APPEND_ONLY = ("question", "event", "invitation")


def upgrade() -> None:
    _truth()
    _projections()
    for table in APPEND_ONLY:
        for statement in _guards(table, op.get_bind().dialect.name):
            op.execute(statement)


def _truth() -> None:
    op.create_table(
        "question",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("batch", sa.String, nullable=False, index=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("gold", sa.Text),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "event",
        sa.Column("seq", BIG, primary_key=True, autoincrement=True),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("question_id", sa.String, nullable=False, index=True),
        sa.Column("batch", sa.String, nullable=False),
        sa.Column("token", sa.String, nullable=False),
        sa.Column("annotator", sa.String, nullable=False),
        sa.Column("of", BIG, unique=True),
        sa.Column("once", sa.Text, unique=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("ix_event_token", "event", ["token"])
    op.create_index("ix_event_annotator", "event", ["annotator", "seq"])
    op.create_table(
        "invitation",
        sa.Column("seq", BIG, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String, nullable=False, index=True),
        sa.Column("digest", sa.String, nullable=False, index=True),
        sa.Column("revoked", sa.Boolean, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )


def _projections() -> None:
    op.create_table(
        "slot",
        sa.Column("place", BIG, primary_key=True, autoincrement=True),
        sa.Column("question_id", sa.String, nullable=False),
        sa.Column("batch", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("token", sa.String, nullable=False, index=True),
        sa.Column("expires", sa.Float, nullable=False),
        sa.Column("skips", sa.Integer, nullable=False),
    )
    op.create_index("ix_slot_state", "slot", ["state", "place"])
    op.create_index("ix_slot_expires", "slot", ["state", "expires"])
    op.create_index("ix_slot_question", "slot", ["question_id"])
    op.create_table(
        "seen",
        sa.Column("annotator", sa.String, primary_key=True),
        sa.Column("question_id", sa.String, primary_key=True),
    )
    op.create_table(
        "reader",
        sa.Column("annotator", sa.String, primary_key=True),
        sa.Column("place", BIG, nullable=False),
        sa.Column("token", sa.String, nullable=False),
        sa.Column("shown", sa.Integer, nullable=False),
    )
    op.create_table(
        "tally",
        sa.Column("batch", sa.String, primary_key=True),
        sa.Column("annotator", sa.String, primary_key=True),
        sa.Column("what", sa.String, primary_key=True),
        sa.Column("count", BIG, nullable=False),
    )


def _guards(table: str, dialect: str) -> list[str]:
    """Statements that make the database refuse to change or delete a row."""
    message = f"the table {table} is append-only: a correction is a new row"
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb.upper()} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
            for verb in ("update", "delete")
        ]
    return [
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{message}'; END $$",
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()",
    ]
