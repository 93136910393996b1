-- Shop orders. Frame: person, number (from 0 within the person). Grain of the answer: one row a delivered line.
with ordered as (
    select
        people.*,
        frame.* exclude (person),
        'L' || nine_digits(scramble(64 * person + frame.number, 404)) as order_id,
        timestamp '2026-01-01 07:00:00' + to_days(number_below(u_day, 57))
            + to_seconds(number_below(u_time, 55000)) as happened_at,
        if(u_guest < $guest_order, null, account_of(person, if(u_account < $second_account, 1, 0))) as account_id,
        has_app and u_app < $app_order as in_app,
        country in ('FR', 'DE', 'PL') as ahead,
        former_line is not null and u_home < $shop_former_address as formerly,
        u_swap < $swapped_names as swapped,
        list_transform(range(1 + cast(floor(u_items ** 3 * 4) as integer)), lambda i: [
            1000 + digits_of(u_goods) // (1 + 7919 * i) % 600,
            1 + digits_of(u_quantity) // (1 + 97 * i) % 7 // 5
        ]) as items
    from frame
    join people using (person)
),
written as (
    select
        *,
        if(u_form < $nickname_casual,
            coalesce(nickname, given), perhaps_typo(given, u_given_typo, $typo)) as shown_given,
        perhaps_typo(
            if(former_family is not null and u_maiden < $former_name / 2, former_family, family), u_family_typo, $typo
        ) as shown_family,
        case
            when account_id is null then email
            when household_email is not null and u_shared_email < $use_household_email then household_email
            when other_email is not null and u_other_email < $use_other_email then other_email
            else perhaps_typo(email, u_email_typo, $email_typo)
        end as shown_email,
        street_text(if(formerly, former_line, line), u_street, $street_shortened) as shown_line,
        postcode_text(if(formerly, former_postcode, postcode), u_postcode_form, $postcode_compact) as shown_postcode,
        list_transform(items, lambda x: '{"sku":"LL-' || x[1] || '","quantity":' || x[2]
            || ',"unit_price":' || pounds(price_of(x[1])) || '}') as item_texts,
        list_sum(list_transform(items, lambda x: x[2] * price_of(x[1]))) as pence
    from ordered
),
cells as materialized (
    select
        person, order_id, happened_at, u_order,
        coalesce(account_id, lower(shown_email)) as record_id,
        flaw_of(['cut', 'cut', 'no time', 'no key'], u_broken, $broken) as flaw,
        u_cut,
        u_repeat < $order_repeated as repeated,
        if(happened_at < timestamp '2026-01-30 22:30:00' and u_late >= $order_late, 1, 2) as delivery_number,
        json_object([
            if(flaw = 'no key', null, json_text('order_id', order_id)),
            if(flaw = 'no time', null, json_text('ordered_at',
                strftime(happened_at + to_hours(if(ahead, 1, 0)), '%Y-%m-%dT%H:%M:%S')
                || case when ahead then '+01:00' when u_zone < 0.5 then 'Z' else '+00:00' end)),
            coalesce(json_text('account_id', account_id), '"account_id":null'),
            if(in_app, null, json_text('cookie_id', token('cookie', person))),
            json_raw('customer', json_object([
                json_text('first_name', upper_if(if(swapped, shown_family, shown_given), u_capitals < $capitals)),
                json_text('last_name', upper_if(if(swapped, shown_given, shown_family), u_capitals < $capitals)),
                json_text('email',
                    email_text(shown_email, u_email_case, $email_letter_case, u_email_space, $email_spaces)),
                case
                    when u_phone < $shop_phone_cleared then '"phone":null'
                    when u_phone < $shop_phone_cleared + $shop_phone_missing then null
                    else json_text('phone',
                        phone_text(dial, mobile, u_phone_form, if(dial = '44', $phone_national, 0)))
                end,
                if(u_collected < $collected_order, null, json_raw('address', json_object([
                    json_text('line1', perhaps_typo(shown_line, u_street_typo, $typo)),
                    json_text('city', if(formerly, former_city, city)),
                    json_text('postcode', shown_postcode),
                    json_text('country', country)
                ])))
            ])),
            json_raw('items', '[' || array_to_string(item_texts, ',') || ']'),
            json_raw('total', pounds(pence::bigint)),
            json_text('currency', case country when 'GB' then 'GBP' when 'PL' then 'PLN' else 'EUR' end),
            json_text('channel', if(in_app, 'app', 'web'))
        ]) as line
    from written
),
delivered as (
    select * from cells
    union all
    select * replace (2 as delivery_number) from cells where repeated and delivery_number = 1 and flaw is null
)
select
    person,
    record_id,
    order_id as event_id,
    if(delivery_number = 1, '2026-01-31', '2026-02-28') as delivery,
    flaw,
    if(flaw = 'cut', left(line, 20 + number_below(u_cut, length(line) - 30)), line) || chr(10) as line
from delivered
order by delivery, happened_at + to_hours(if(u_order < $out_of_order, 30, 0)), event_id, record_id
