with stays as (
    select audience, count(*) filter (exited_at is null) as member_count, count(*) as entered_count,
        count(*) filter (exited_at is not null) as left_count
    from audiences.membership group by audience
)
select audience, coalesce(member_count, 0) as member_count, coalesce(entered_count, 0) as entered_count,
    coalesce(left_count, 0) as left_count
from temp.declared_audiences left join stays using (audience)
