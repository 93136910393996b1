-- By which identifiers can the members of each audience be reached?
select a.audience, a.member_count, n.namespace, n.profile_count, round(100 * n.profile_count / a.member_count, 1) as percent
from metrics_audiences a join metrics_audience_namespaces n using (day, audience)
where day = (select max(day) from metrics_dates) order by a.audience, n.profile_count desc, n.namespace
