-- How many profiles have both an e-mail address and a cookie? Any two or more namespaces can stand here.
select coalesce(sum(profile_count), 0)::bigint as profiles_with_both from metrics_namespace_overlaps
where day = (select max(day) from metrics_dates) and list_has_all(string_split(namespaces, ','), ['email', 'cookie'])
