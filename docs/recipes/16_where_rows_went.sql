-- Where did every delivered row go? The columns add up to what was delivered.
select source, sum(delivered)::bigint as delivered, sum(current)::bigint as current, sum(superseded)::bigint as superseded,
    sum(events)::bigint as events, sum(expired)::bigint as expired, sum(quarantined)::bigint as quarantined,
    sum(not_selected)::bigint as not_selected, sum(reverted)::bigint as reverted
from metrics_row_fates group by source order by source
