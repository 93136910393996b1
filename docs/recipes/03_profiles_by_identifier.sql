-- By which identifiers are profiles known, and how many by that one only?
select namespace, kind, profile_count, single_identity_count,
    round(100 * profile_count / (select profile_count from metrics_snapshots order by batch desc limit 1), 1) as percent_of_profiles
from metrics_namespaces where day = (select max(day) from metrics_dates) order by profile_count desc, namespace
