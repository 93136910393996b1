"""Computed attributes: what rules/computed.yaml makes of the events and records of a profile.

`names` reads which names an expression uses, `compile` turns rules into one query a kind of row and one over profiles,
`build` keeps profiles.computed up to date, `preview` tries an attribute without a trace. Conditions of audiences do not
belong here.
"""
