-- What is known of one person, and where is it from? Any identifier, as the pipeline normalises it.
select p.profile_id, l.field, l.value, l.source, l.rule, l.observed_at
from profile_identifiers i join profiles p using (profile_id)
join profile_lineage l on l.profile_id = p.profile_id and l.policy = p.policy and l.won
where i.namespace = 'email' and i.value = (select min(value) from profile_identifiers where namespace = 'email')
order by l.field, l.rank, l.source
