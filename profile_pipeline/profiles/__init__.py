"""Merge policies made visible as data: candidates, then lineage, then one unified row a profile.

`candidates` lists every value on offer, `lineage` ranks them under each policy, `unified` shows the winners,
`timeline` holds identifiers and events by profile. Which records form a profile is `identity`.
"""
