"""One shape for every source: mapped, normalised, validated rows; current records; identifiers; events.

`normalise` knows the semantic types, `mapping` turns delivered rows into that shape, `staging` fills
records.<source> and quarantines rows, `current` derives what holds now, `events` the timeline's input, and
`conservation` proves that no row was lost. Who is the same person is not decided here: that is `identity`.
"""
