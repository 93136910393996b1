"""The ledger of persistent profile ids: the promise to everybody downstream, apart from the statistics.

An id follows where most of its records went. In order: pinned, overlap weight, share of the old id, older id, id,
records that have been with the id for longer, smallest record key of the cluster; one id to one cluster. A cluster
without an id revives one that was retired and had its majority here, else mints one: UUIDv5 (RFC 9562) of its
birth record and a generation counter, so that a replay gives the same ids. An id without a cluster retires, with
a redirect when its records live on.

A revision is one change of the ledger; a run that changes nothing makes none. `assign` is the step of a run:
`affected` finds what may change, `claims` gives ids to clusters, `proposal` says what would happen and `causes`
why, `churn` judges it, `revision` writes it. `pins` and `history` serve stewards. Who belongs together is
`identity.clusters` and no business of the ledger.
"""

from profile_pipeline.profile_ids.assign import assign_profile_ids
from profile_pipeline.profile_ids.churn import pending
from profile_pipeline.profile_ids.claims import DECIDED_WEIGHT, EVENT_NODE_WEIGHT, NAMESPACE, one_to_one
from profile_pipeline.profile_ids.history import changes, history, largest_pending, pending_totals, successors
from profile_pipeline.profile_ids.pins import pin, unpin
from profile_pipeline.profile_ids.tables import MEMBERS, TABLES, create_tables, final_redirects_query

__all__ = [
    "DECIDED_WEIGHT",
    "EVENT_NODE_WEIGHT",
    "MEMBERS",
    "NAMESPACE",
    "TABLES",
    "assign_profile_ids",
    "changes",
    "create_tables",
    "final_redirects_query",
    "history",
    "largest_pending",
    "one_to_one",
    "pending",
    "pending_totals",
    "pin",
    "successors",
    "unpin",
]
