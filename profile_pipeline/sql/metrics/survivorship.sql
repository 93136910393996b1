select policy, field, source, count(*) as value_count
from profiles.lineage where won and value is not null group by policy, field, source
