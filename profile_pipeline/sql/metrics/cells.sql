-- Profiles by all that they are counted by. Grain: kind, record_count, namespaces, sources, audiences; names joined by commas.
with memberships as (
    select profile_id, array_to_string(list_sort(list(audience)), ',') as audiences
    from audiences.membership where exited_at is null group by profile_id
), visits as (
    select profile_id, list(distinct source) as event_sources
    from profiles.events where profile_id is not null group by profile_id
), traits as (
    select kind, least(record_count, 10) as record_count, event_count,
        coalesce(array_to_string(map_keys(identity_map), ','), '') as namespaces,
        array_to_string(list_sort(list_distinct(list_concat(sources, coalesce(event_sources, [])))), ',') as sources,
        coalesce(audiences, '') as audiences
    from profiles.unified left join memberships using (profile_id) left join visits using (profile_id)
)
select kind, record_count, namespaces, sources, audiences, count(*) as profile_count,
    sum(event_count)::bigint as event_count
from traits group by all
