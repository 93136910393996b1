with delivered as (
    select source, max(as_of) as delivered_at from raw.files join raw.batches using (batch) where state = 'loaded' group by source
), records as (
    select source, count(*) as record_count, max(observed_at) as newest_at,
        max(observed_at) filter (clock = 'source') as own_newest_at,
        count(*) filter (clock <> 'source') as without_time_count
    from records.current group by source
), events as (
    select source, count(*) as event_count, max(occurred_at) as newest_at,
        max(occurred_at) filter (clock = 'source') as own_newest_at, count(*) filter (late) as late_count
    from records.events group by source
), named as (
    select unnest(string_split(sources, ',')) as source, sources, profile_count from temp.cells where sources <> ''
), profiles as (
    select source, sum(profile_count)::bigint as profile_count,
        coalesce(sum(profile_count) filter (sources = source), 0)::bigint as only_source_count
    from named group by source
), refused as (
    select source, count(*) as quarantined_count from records.quarantine group by source
)
-- a time that could not be read, or lies ahead, is that of the delivery: it would tell a silent source as fresh
select source, kind, delivered_at,
    coalesce(greatest(r.own_newest_at, e.own_newest_at), r.newest_at, e.newest_at) as newest_at,
    coalesce(record_count, 0) as record_count, coalesce(event_count, 0) as event_count,
    coalesce(profile_count, 0) as profile_count, coalesce(only_source_count, 0) as only_source_count,
    coalesce(without_time_count, 0) as without_time_count, coalesce(late_count, 0) as late_count,
    coalesce(quarantined_count, 0) as quarantined_count
from temp.declared_sources left join delivered using (source) left join records r using (source)
left join events e using (source) left join profiles using (source) left join refused using (source)
