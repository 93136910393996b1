-- Profiles in which different values of a field were on offer, whatever their case, and a rule had to decide. Spellings that
-- the policy takes for the same value are none. Keys are hashed for memory; few values are left where a rule decided.
with judged as (
    select policy, field, hash(policy, field, profile_id) as cell, hash(lower(value)) as value, rank
    from profiles.lineage where rule not in ('only_record', 'all_agree') and value is not null
), decided as (
    select distinct hash(policy, field, profile_id) as cell
    from profiles.lineage where rank = 1 and rule not in ('only_record', 'all_agree')
), disagreeing as (
    select any_value(policy) as policy, any_value(field) as field from judged semi join decided using (cell)
    group by cell having min(value) <> max(value)
)
select policy, field, count(*) as conflict_count from disagreeing group by policy, field
