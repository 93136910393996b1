-- Sales in the stores. Frame: person, number (from 0 within the person). Grain of the answer: one row a line.
with sold as (
    select
        people.*,
        frame.* exclude (person),
        'T' || nine_digits(scramble(64 * person + frame.number, 505)) as transaction_id,
        timestamp '2026-01-02 09:00:00' + to_days(number_below(u_day, 56))
            + to_minutes(number_below(u_time, 600)) as happened_at,
        cast(floor(u_amount ** 3 * 18000) as bigint) + 250 as pence
    from frame
    join people using (person)
),
rows_written as (
    select
        person, transaction_id, happened_at, u_order,
        flaw_of(['short', 'long', 'no time'], u_broken, $broken) as flaw,
        if(happened_at < timestamp '2026-01-30 20:00:00' and u_late >= $store_late, 1, 2) as delivery_number,
        [
            transaction_id,
            if(flaw = 'no time', '', strftime(happened_at, '%d.%m.%Y %H:%M')),
            case country
                when 'GB' then choose(['York', 'Leeds', 'Bath', 'Marylebone', 'Edinburgh', 'Bristol Café'], u_store)
                when 'IE' then choose(['Dublin', 'Galway'], u_store)
                when 'FR' then choose(['Orléans', 'Paris Opéra'], u_store)
                when 'DE' then choose(['Köln', 'Düsseldorf'], u_store)
                else 'Kraków'
            end,
            case
                when u_card < $store_cash then ''
                when shared_card is not null and u_card < $store_cash + $store_shared_card then 'tok_' || shared_card
                when u_card < 1 - $store_second_card then 'tok_' || token('own card', person)
                else 'tok_' || token('second card', person)
            end,
            if(in_loyalty and u_loyalty_card < $store_loyalty_card, card_of(person), ''),
            cast(1 + floor(u_items ** 2 * 8) as integer)::varchar,
            replace(pounds(pence), '.', ',')
        ] as fields
    from sold
)
select
    person,
    transaction_id as event_id,
    if(delivery_number = 1, '2026-01-31', '2026-02-28') as delivery,
    flaw,
    case flaw
        when 'short' then array_to_string(fields[1:4], ';')
        when 'long' then array_to_string(fields, ';') || ';;'
        else array_to_string(fields, ';')
    end || chr(10) as line
from rows_written
order by delivery, happened_at + to_hours(if(u_order < $out_of_order, 30, 0)), event_id
