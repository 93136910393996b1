-- Which combinations of sources meet more often than by chance (lift above 1), and in how many profiles?
select sources, profile_count, expected_count, lift from metrics_source_overlaps
where day = (select max(day) from metrics_dates) and source_count > 1 order by lift desc nulls last, sources limit 20
