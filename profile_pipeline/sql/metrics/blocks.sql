-- Keys that more than one record shares; a key is empty where records are left out because too many share it.
with sizes as (
    select rule, key, count(*) as size from identity.blocking_keys where key is not null group by rule, key
), left_out as (
    select rule, count(*) as left_out_count from identity.blocking_keys where key is null group by rule
)
select names[rule + 1] as rule, count(*) filter (size > 1) as block_count, max(size) as largest_block,
    coalesce(sum(size * (size - 1) // 2), 0)::bigint as pair_count, coalesce(any_value(left_out_count), 0) as left_out_count
from sizes left join left_out using (rule), temp.blocking_rules group by rule, names
