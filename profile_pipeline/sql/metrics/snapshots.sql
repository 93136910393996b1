with counted as (
    select sum(profile_count) as profile_count, sum(profile_count) filter (kind = 'person') as person_count,
        sum(profile_count) filter (kind = 'pseudonymous') as pseudonymous_count,
        sum(profile_count) filter (namespaces <> '' and not contains(namespaces, ',')) as single_identity_count,
        sum(profile_count) filter (audiences = '') as unsegmented_count, sum(event_count) as event_count
    from temp.cells
), happened as (
    select count(*) filter (event = 'created') as created_count, count(*) filter (event = 'revived') as revived_count,
        count(*) filter (event = 'merged') as merged_count, count(*) filter (event = 'retired') as retired_count,
        count(*) filter (event = 'split') as split_count
    from identity.profile_events
    where revision > (select known_revision from temp.moment)
), ledger as (
    select max(revision) as revision, arg_max(model_id, revision) as model_id, arg_max(threshold, revision) as threshold
    from identity.revisions
)
select as_of, revision, model_id, threshold, coalesce(profile_count, 0)::bigint as profile_count,
    coalesce(person_count, 0)::bigint as person_count, coalesce(pseudonymous_count, 0)::bigint as pseudonymous_count,
    coalesce(single_identity_count, 0)::bigint as single_identity_count,
    coalesce(unsegmented_count, 0)::bigint as unsegmented_count,
    (select count(*) from profiles.identifiers) as identity_count,
    (select count(*) from records.current) as record_count, coalesce(event_count, 0)::bigint as event_count,
    happened.*, (select count(*) from records.quarantine) as quarantined_count
from temp.moment, counted, happened, ledger
