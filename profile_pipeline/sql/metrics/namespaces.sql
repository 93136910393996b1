with held as (
    select namespace, any_value(kind) as kind, count(*) as identity_count from profiles.identifiers group by namespace
), named as (
    select unnest(string_split(namespaces, ',')) as namespace, namespaces, audiences, profile_count
    from temp.cells where namespaces <> ''
)
select namespace, kind, sum(profile_count)::bigint as profile_count,
    coalesce(sum(profile_count) filter (namespaces = namespace), 0)::bigint as single_identity_count,
    coalesce(sum(profile_count) filter (audiences = ''), 0)::bigint as unsegmented_count, identity_count
from named join held using (namespace) group by namespace, kind, identity_count
