"""What the ledger's tables are made of: one set of tables, and the types of their columns."""

from sqlalchemy import BigInteger, Dialect, Float, Integer, MetaData, String, Text
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)


class Sentence(TypeDecorator[str]):
    """Text that a peer, a model or an operating system may have worded: what a database cannot hold (NUL, half a surrogate) is left out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text as both databases take it."""
        return None if value is None else value.replace("\0", "").encode(errors="replace").decode()


Id = BigInteger().with_variant(Integer, "sqlite")
Uid = String(64)
Ae = String(16)
Key = String(64)
Moment = Float(53)  # seconds since the epoch
