-- Why were rows refused, by source?
select source, reason, sum(row_count)::bigint as row_count from quarantine_summary group by all order by row_count desc, source, reason
