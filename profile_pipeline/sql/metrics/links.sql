with found as (
    select type, namespace, c.left_key is not null as cut
    from identity.edges e left join identity.cut_links c using (left_key, right_key) where accepted
    union all
    select 'attached', namespace, false from identity.attachments
)
select type, namespace, count(*) filter (not cut) as link_count, count(*) filter (cut) as cut_count
from found group by type, namespace
