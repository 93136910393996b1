-- How many profiles are in no audience, and by which identifiers are they known?
select namespace, unsegmented_count, round(100 * unsegmented_count / profile_count, 1) as percent
from metrics_namespaces where day = (select max(day) from metrics_dates) order by unsegmented_count desc, namespace
