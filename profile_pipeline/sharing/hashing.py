"""Identifiers as hashes, inside DuckDB: HMAC-SHA256 (RFC 2104) with a key, or plain SHA-256; lower-case hexadecimal.

The key lies in a table in memory and is never part of a statement, so no message can repeat it.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.secrets import secret
from profile_pipeline.config.sharing import Hashing
from profile_pipeline.errors import PipelineError

PADS = "scratch.hash_pads"
BLOCK = 64
"""Bytes of a block of SHA-256."""
SHORTEST_KEY = 16


def hashed_query(expression: str, method: str, *, is_list: bool = False) -> str:
    """The hash of a value as text, or of each element of a list; nothing stays nothing."""
    if is_list:
        return f"list_transform({expression}, lambda element: {_hash('element', method)})"
    return _hash(expression, method)


def _hash(expression: str, method: str) -> str:
    text = f"encode(({expression})::text)"
    if method == "sha256":
        return f"sha256({text})"
    inner = f"unhex(sha256((select inner_pad from {PADS}) || {text}))"
    return f"sha256((select outer_pad from {PADS}) || {inner})"


def load_key(con: DuckDBPyConnection, rules: Hashing | None, where: str) -> None:
    """Make the key of a destination usable in this connection."""
    if rules is None or not rules.key_env:
        return
    key = secret(rules.key_env, f"{where}.hash.key_env").encode()
    if len(key) < SHORTEST_KEY:
        raise PipelineError(
            f"{where}.hash.key_env: the key in {rules.key_env} is shorter than {SHORTEST_KEY} characters; make a longer one"
        )
    inner, outer = pads(key)
    con.execute(f"create or replace table {PADS} (inner_pad blob, outer_pad blob)")
    con.execute(f"insert into {PADS} values (?, ?)", [inner, outer])


def pads(key: bytes) -> tuple[bytes, bytes]:
    """The two pads of HMAC-SHA256 that a key stands for."""
    import hashlib

    block = (hashlib.sha256(key).digest() if len(key) > BLOCK else key).ljust(BLOCK, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)
