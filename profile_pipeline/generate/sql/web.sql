-- Web and app events. Frame: person, session, step (from 0), visitor (on a cookie nobody ever logs in on), and
-- s_*: random numbers of the session. Grain of the answer: one row a delivered line.
with sessions as (
    select
        people.*,
        frame.* exclude (person),
        case
            when visitor then 'visitor'
            when tablet is not null and s_device < $web_tablet then 'tablet'
            when has_app and s_device > 1 - $web_app then 'app'
            else 'browser'
        end as device,
        not visitor and in_shop and (s_login < $web_login or device = 'tablet') as logged_in,
        country in ('FR', 'DE', 'PL') and s_pace < 0.5 as ahead
    from frame
    join people using (person)
),
timed as (
    select
        *,
        -- members of a household use the tablet at different hours
        timestamp '2026-01-01' + to_days(number_below(s_day, 57))
            + to_seconds(if(device = 'tablet', 28800 + 10800 * member + number_below(s_time, 5000),
                25200 + number_below(s_time, 55000)))
            + to_seconds(step * (20 + number_below(s_pace, 160)) + number_below(u_pause, 20)) as happened_at,
        case device
            when 'tablet' then tablet
            when 'visitor' then token('visitor', person)
            when 'browser' then token('cookie', if(s_device < $web_other_browser, -1 - person, person))
        end as cookie_id,
        case
            when step = 0 and logged_in then 'login'
            when step = 0 and device = 'app' then 'app_open'
            when step = 0 and device = 'browser' and s_newsletter < $web_newsletter then 'newsletter_click'
            when u_type < 0.45 then 'page_view'
            when u_type < 0.87 then 'product_view'
            else 'add_to_cart'
        end as type,
        token('event', person || '/' || session || '/' || step || '/' || visitor) as event_id
    from sessions
),
cells as materialized (
    select
        person as owner,
        if(visitor, null, person) as entity,
        event_id, happened_at, u_order, u_cut,
        flaw_of(['cut', 'cut', 'no time', 'no key'], u_broken, $broken) as flaw,
        u_repeat < $web_repeated as repeated,
        if(happened_at < timestamp '2026-01-30 23:00:00' and u_late >= $web_late, 1, 2) as delivery_number,
        json_object([
            if(flaw = 'no key', null, json_text('event_id', event_id)),
            if(flaw = 'no time', null, json_text('occurred_at',
                strftime(happened_at + to_hours(if(ahead, 1, 0)), '%Y-%m-%dT%H:%M:%S') || if(ahead, '+01:00', 'Z'))),
            json_text('type', type),
            json_text('cookie_id', cookie_id),
            if(device = 'app', json_text('device_id', token('device', person)), null),
            if(logged_in and (device = 'app' or type = 'login'),
                json_text('account_id', account_of(person, 0)), null),
            if(type = 'newsletter_click', json_text('email', email), null),
            json_text('page', case type
                when 'login' then '/account' when 'app_open' then '/' when 'newsletter_click' then '/news'
                when 'page_view' then choose(['/', '/garden', '/kitchen', '/gifts', '/sale', '/stores'], u_page)
                else '/p/LL-' || (1000 + number_below(u_page, 600))
            end),
            json_text('channel', if(device = 'app', 'app', 'web'))
        ]) as line
    from timed
),
delivered as (
    select * from cells
    union all
    select * replace (2 as delivery_number) from cells where repeated and flaw is null
)
select
    owner as person,
    entity,
    event_id,
    if(delivery_number = 1, '2026-01-31', '2026-02-28') as delivery,
    flaw,
    if(flaw = 'cut', left(line, 20 + number_below(u_cut, length(line) - 30)), line) || chr(10) as line
from delivered
order by delivery, happened_at + to_hours(if(u_order < $out_of_order, 20, 0)), event_id
