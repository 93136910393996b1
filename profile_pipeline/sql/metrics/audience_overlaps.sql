-- Every pair of audiences once, the first in the alphabet first; 100 % where both are empty, as Adobe counts it.
with sets as (
    select audiences, sum(profile_count)::bigint as profile_count from temp.cells where audiences <> '' group by audiences
), members as (
    select audiences, unnest(string_split(audiences, ',')) as audience, profile_count from sets
), sizes as (
    select audience, coalesce(sum(profile_count), 0)::bigint as size
    from temp.declared_audiences left join members using (audience) group by audience
), shared as (
    select l.audience, r.audience as other_audience, sum(l.profile_count)::bigint as overlap_count
    from members l join members r on l.audiences = r.audiences and l.audience < r.audience group by 1, 2
)
select l.audience, r.audience as other_audience, coalesce(overlap_count, 0) as overlap_count,
    if(l.size + r.size = 0, 100, round(100 * coalesce(overlap_count, 0) / (l.size + r.size - coalesce(overlap_count, 0)), 4))
        as overlap_percent
from sizes l join sizes r on l.audience < r.audience
left join shared s on s.audience = l.audience and s.other_audience = r.audience
