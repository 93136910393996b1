-- Which source gives most of the values of each field under the default policy?
select field, source, value_count, round(100 * value_count / sum(value_count) over (partition by field), 1) as percent
from metrics_survivorship s join metrics_policies p on p.policy = s.policy and p.is_default and p.batch = (select max(batch) from metrics_policies)
where s.day = (select max(day) from metrics_dates) order by field, value_count desc, source
