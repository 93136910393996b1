"""The Dagster shell: the only code that imports Dagster, apart from `definitions` and the run command.

A module a stage declares its tables as assets; `tables` is the factory they share, `resources` the warehouse,
`checks` turns outcomes into check results, `automation` holds job, schedule and sensors, `graph` puts all of it
together. Logic does not belong here: an asset body calls one core function.
"""
