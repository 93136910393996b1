-- How large is every audience, and how did it move since 30 days ago?
with sizes as (
    select d.day, f.audience, f.member_count from metrics_dates d join metrics_audiences f on f.day = d.counted_on
), ends as (
    select max(day) as newest, greatest(min(day), (max(day) - interval 30 day)::date) as earlier from metrics_dates
)
select n.audience, n.member_count, n.member_count - coalesce(e.member_count, 0) as change
from sizes n join ends on n.day = newest left join sizes e on e.day = earlier and e.audience = n.audience
order by n.member_count desc, n.audience
