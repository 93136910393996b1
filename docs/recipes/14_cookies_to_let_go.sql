-- How many cookies and devices that nobody signed in on have been silent, for how long, and what do they cost in events?
select namespace, idle_days, profile_count, event_count from metrics_unknown_profiles
where day = (select max(day) from metrics_dates) order by namespace, idle_days
