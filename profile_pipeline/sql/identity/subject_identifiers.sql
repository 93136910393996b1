-- Identities seen in events only, as nodes of their own: key `event:<namespace>=<value>`.
-- Person identifiers stated together in one event belong to the same subject.
with subjects as (
    select distinct subject from records.event_subjects where starts_with(subject, 'event:')
),
stated as (
    select s.subject, i.namespace as namespace, i.value as value, min(i.raw) as raw_value,
        min(e.occurred_at) as observed_at
    from records.event_subjects s
    join (select event_key, occurred_at, unnest(identifiers) as i from records.events) e using (event_key)
    where s.attribution = 'stated' and starts_with(s.subject, 'event:')
        and i.namespace in (select namespace from person_namespaces)
    group by s.subject, i.namespace, i.value
),
own as (
    select subject, split_part(subject[7:], '=', 1) as namespace, substr(subject, strpos(subject, '=') + 1) as value
    from subjects
)
select subject as record_key, 'event' as source, namespace, value,
    coalesce(min(raw_value), value) as raw_value, min(observed_at) as observed_at
from (
    select subject, namespace, value, raw_value, observed_at from stated
    union all
    select subject, namespace, value, null, null from own
)
group by subject, namespace, value
