"""Deliveries of published rows to destinations: local folders and cloud storage.

Belongs here: which rows leave and why others stay (`query`), what changed for a destination (`changes`), files and their
manifest, the way into a store (`sinks`), when a size is too strange to leave (`health`), and what everybody has
received (`ledger`). `deliver` puts them in order. What is published is not decided here.
"""
