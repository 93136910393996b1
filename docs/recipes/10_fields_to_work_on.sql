-- Which fields are poorly filled or in conflict under the default policy?
select field, filled_count, round(100 * f.completeness, 1) as percent_filled, distinct_count, f.conflict_count,
    round(100 * f.conflict_count / nullif(filled_count, 0), 1) as percent_in_conflict
from metrics_fields f join metrics_policies p on p.policy = f.policy and p.is_default and p.batch = (select max(batch) from metrics_policies)
where f.day = (select max(day) from metrics_dates) order by f.completeness, field
