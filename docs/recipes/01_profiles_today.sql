-- How many profiles are there now, how many are people, and what happened since the batch before?
select day, profile_count, person_count, pseudonymous_count, created_count + revived_count as added, merged_count, retired_count, split_count
from metrics_snapshots order by batch desc limit 1
