-- How did the number of profiles move from day to day in the last 30 days? Days on which nothing came count as the day before.
with trend as (
    select d.day, s.profile_count, s.profile_count - lag(s.profile_count) over (order by d.day) as change
    from metrics_dates d join metrics_snapshots s on s.batch = d.batch
)
select * from trend where day > (select max(day) from metrics_dates) - interval 30 day order by day
