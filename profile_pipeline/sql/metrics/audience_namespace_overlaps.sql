with members as (
    select unnest(string_split(audiences, ',')) as audience, namespaces, profile_count
    from temp.cells where audiences <> ''
)
select audience, namespaces, if(namespaces = '', 0, len(string_split(namespaces, ','))) as namespace_count,
    sum(profile_count)::bigint as profile_count
from members group by audience, namespaces
