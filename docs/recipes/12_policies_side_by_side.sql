-- What difference do the merge policies make to completeness?
select policy, policy_version, profile_count, round(100 * completeness, 1) as percent_filled, high_count, medium_count, low_count, conflict_count
from metrics_policies where batch = (select max(batch) from metrics_policies) order by is_default desc, policy
