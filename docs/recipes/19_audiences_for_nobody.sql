-- Which audiences go to no destination, and by which identifiers could their members be reached?
select a.audience, a.member_count, n.namespace, n.profile_count
from metrics_audiences a join metrics_audience_namespaces n using (day, audience)
anti join metrics_destination_audiences d on d.audience = a.audience
where day = (select max(day) from metrics_dates) order by a.member_count desc, a.audience, n.profile_count desc, n.namespace
