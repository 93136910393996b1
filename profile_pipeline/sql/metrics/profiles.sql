select kind, record_count, sum(profile_count)::bigint as profile_count, sum(event_count)::bigint as event_count
from temp.cells group by kind, record_count
