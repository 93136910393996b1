with members as (
    select unnest(string_split(audiences, ',')) as audience, namespaces, profile_count
    from temp.cells where audiences <> '' and namespaces <> ''
), named as (
    select audience, unnest(string_split(namespaces, ',')) as namespace, namespaces, profile_count from members
)
select audience, namespace, sum(profile_count)::bigint as profile_count,
    coalesce(sum(profile_count) filter (namespaces = namespace), 0)::bigint as single_identity_count
from named group by audience, namespace
