"""Deliveries as delivered: the file ledger, and one append-only table of text a source.

`ledger` finds files and decides what each is; `intake` loads them; `streams`, `delimited`, `json_lines` and
`parquet` read bytes into rows. Nothing here interprets a value: that is `records`.
"""
