"""Deliveries as delivered: the file ledger, and one append-only table of text a source.

`ledger` finds files and decides what each is; `intake` loads them; `streams` and `lines` turn bytes into text,
`delimited`, `json_lines` and `parquet` text into rows, and `target` takes the rows. Nothing here interprets a
value: that is `records`.
"""
