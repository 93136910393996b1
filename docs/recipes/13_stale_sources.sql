-- Which sources have not delivered for long, or deliver old news?
select source, kind, delivered_at, newest_at, date_diff('day', newest_at, (select max(as_of) from metrics_snapshots)) as days_behind,
    record_count, event_count, profile_count, only_source_count, quarantined_count
from metrics_sources where day = (select max(day) from metrics_dates) order by newest_at nulls first, source
