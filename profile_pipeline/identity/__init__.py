"""Who is the same person: model, edges, clusters, and the ledger of persistent profile ids.

`nodes` collects what can be linked and sets generic values aside, `features` and `comparisons` derive Splink's
input and settings from the semantic types, `model` trains, `edges` scores and rules, `clusters` groups under
the constraints, `profile_ids` keeps the promise that ids persist. Which value a profile shows is `profiles`.
"""
