-- Which audiences share most of their members?
select audience, other_audience, overlap_count, overlap_percent from metrics_audience_overlaps
where day = (select max(day) from metrics_dates) and overlap_count > 0
order by overlap_percent desc, audience, other_audience limit 20
