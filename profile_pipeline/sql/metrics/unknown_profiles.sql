-- Pseudonymous profiles of one identifier without an event for so many days; who is idle for 30 days is so for 7 too.
with strangers as (
    select map_keys(identity_map)[1] as namespace, event_count, last_event_at from profiles.unified
    where kind = 'pseudonymous' and len(map_keys(identity_map)) = 1 and len(map_values(identity_map)[1]) = 1
), spans as (select unnest([7, 30, 60, 90, 120]) as idle_days)
select namespace, idle_days, count(*) as profile_count, sum(event_count)::bigint as event_count
from strangers, spans, temp.moment
where coalesce(last_event_at <= as_of - to_days(idle_days), true) group by namespace, idle_days
