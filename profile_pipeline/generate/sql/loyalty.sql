-- The loyalty programme: typed columns; the March delivery mentions only what changed. Frame: person.
-- Grain of the answer: one row a card and delivery.
with cards as (
    select
        people.*,
        frame.* exclude (person),
        card_of(person) as card_number,
        if(u_joins < $loyalty_joins_later, 2, 1) as joined,
        if(in_crm and u_crm_id < $loyalty_crm_id, customer_of(person, 0), null) as crm_id,
        cast(floor(u_points ** 3 * 6000) as integer) as points,
        cast(floor(u_earned * 400) as integer) as earned
    from frame
    join people using (person)
),
written as (
    select
        *,
        case
            when u_form < $nickname_casual then coalesce(nickname, given)
            when u_form < $nickname_casual + $initial then left(given, 1)
            else perhaps_typo(given, u_given_typo, $typo)
        end as shown_given,
        perhaps_typo(
            if(former_family is not null and u_maiden < $former_name, former_family, family), u_family_typo, $typo
        ) as shown_family,
        case
            when u_email < $loyalty_email_missing then null
            when u_email < $loyalty_email_missing + $email_placeholder then choose(
                ['noemail@luma-lark.example', 'test@test.com', 'till@luma-lark.example'],
                (u_email - $loyalty_email_missing) / $email_placeholder)
            when household_email is not null and u_shared_email < $use_household_email then household_email
            when other_email is not null and u_other_email < $use_other_email then other_email
            else perhaps_typo(email, u_email_typo, $email_typo)
        end as shown_email,
        if(former_mobile is not null and u_former_mobile < $phone_former, former_mobile, mobile) as known_phone,
        case
            when u_phone < $loyalty_phone_missing then null
            when u_phone < $loyalty_phone_missing + $phone_placeholder then '000-000-0000'
            else phone_text(dial, known_phone, u_phone_form, if(dial = '44', $phone_national, 0))
        end as shown_phone,
        case
            when u_birth < $loyalty_birth_missing then null
            when u_birth < $loyalty_birth_missing + $loyalty_birth_placeholder then date '1900-01-01'
            else birth_text(born_on, u_birth_swap, $day_month_swapped, u_birth_year, $wrong_year)
        end as shown_birth,
        if(former_line is not null and u_home < $loyalty_former_address, former_postcode, postcode) as shown_postcode,
        case joined
            when 2 then date '2026-01-07' + number_below(u_enrolled, 50)
            else least(
                date '2026-01-04', greatest(born_on + 5900, date '2012-03-01' + number_below(u_enrolled, 5000)))
        end as enrolled_on
    from cards
),
full_rows as (
    select
        person, joined as delivery_number, u_order, u_broken, card_number, crm_id,
        case
            when u_capitals < $capitals then upper(shown_given || ' ' || shown_family)
            when u_swap < $swapped_names * 4 then shown_family || ', ' || shown_given
            else perhaps_plain(shown_given || ' ' || shown_family, u_plain, $plain_letters)
        end as full_name,
        email_text(shown_email, u_email_case, $email_letter_case, u_email_space, $email_spaces) as email,
        shown_phone as mobile,
        shown_birth as birth_date,
        if(u_postcode < $postcode_missing * 2, null,
            postcode_text(shown_postcode, u_postcode_form, $postcode_compact)) as postcode,
        case when points >= 2500 then 'gold' when points >= 900 then 'silver' else 'bronze' end as tier,
        points,
        enrolled_on,
        case joined
            when 2 then enrolled_on + to_seconds(30000 + number_below(u_updated, 30000))
            else timestamp '2023-01-01' + to_seconds(number_below(u_updated, 94000000))
        end as updated_at
    from written
),
patches as (
    select
        person, 2 as delivery_number, u_order, u_broken, card_number,
        if(u_patched_field < 0.5 and shown_email <> email, email, null) as email,
        if(u_patched_field < 0.8 and shown_postcode <> postcode, postcode, null) as postcode,
        if(points < 900 and points + earned >= 900, 'silver', null) as tier,
        points + earned as points,
        timestamp '2026-01-07' + to_seconds(number_below(u_updated, 4700000)) as updated_at
    from written
    where joined = 1 and u_patch < $loyalty_patched
),
delivered as (
    select * from full_rows
    union all by name
    select * from patches
)
select
    person,
    card_number as record_id,
    if(delivery_number = 1, '2026-01-06', '2026-03-03') as delivery,
    flaw_of(['no key'], u_broken, $broken) as flaw,
    if(flaw is null, card_number, null) as card_number,
    crm_id, full_name, email, mobile, birth_date, postcode, tier, points, enrolled_on, updated_at
from delivered
order by delivery, u_order, record_id
