"""Why a profile is one person and shows what it shows: values, records, links that hold it together or do not, history.

Reads the warehouse and changes nothing. `members` finds the profile and its records, `links` the spanning tree and
the evidence of each link, `rejected` the links that lead out of the profile and why they do not hold, `constraints`
the limits and set-aside values that acted; `profiles.reasons` says why each value won. How it is shown belongs to `cli`.
"""

from profile_pipeline.explain.answer import Explanation, explain
from profile_pipeline.explain.links import Link
from profile_pipeline.explain.members import Member
from profile_pipeline.explain.rejected import RejectedLink

__all__ = ["Explanation", "Link", "Member", "RejectedLink", "explain"]
