-- Identities seen in events only, as nodes of their own: key `event:<namespace>=<value>`. Reads events_of_subjects.
-- Person identifiers stated together in one event belong to the same subject.
with subjects as (
    select subject, max(occurred_at) as last_event_at from events_of_subjects group by subject
),
stated as (
    select subject, i.namespace as namespace, i.value as value, min(i.raw) as raw_value,
        min(occurred_at) as observed_at
    from (
        select subject, occurred_at, unnest(identifiers) as i from events_of_subjects where attribution = 'stated'
    )
    where i.namespace in (select namespace from person_namespaces)
    group by subject, i.namespace, i.value
),
own as (
    select subject, split_part(subject[7:], '=', 1) as namespace, substr(subject, strpos(subject, '=') + 1) as value
    from subjects
)
select s.subject as record_key, 'event' as source, namespace, value,
    coalesce(min(raw_value), value) as raw_value, min(observed_at) as observed_at,
    any_value(last_event_at) as last_event_at, hash(namespace, value) as value_key, hash(s.subject) as node
from (
    select subject, namespace, value, raw_value, observed_at from stated
    union all
    select subject, namespace, value, null, null from own
) s
join subjects using (subject)
group by s.subject, namespace, value
