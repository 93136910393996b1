-- The true people with everything they own. Grain: one row a person.
create or replace temp table people as
with placed as (
    select
        household, size, country, h_number, h_flat, h_former_number,
        string_split(place, '|') as place,
        string_split(if(h_moved < $moved, former_place, null), '|') as former_place,
        street, kind, former_street, former_kind,
        md5_number_lower(place || street || kind || floor(h_number * 8)) as stretch,
        md5_number_lower(
            former_place || former_street || former_kind || floor(h_former_number * 8)) as former_stretch,
        h_landline < $landline as has_landline,
        h_landline_lead,
        size > 1 and h_shared_email < $household_email as shares_email,
        size > 1 and h_tablet < $tablet as shares_tablet,
        size > 1 and h_shared_card < $shared_card as shares_card,
        country = 'GB' and h_double < $double_barrelled as double_barrelled,
        h_shared_email / $household_email as h_shared_email
    from homes
),
housed as (
    select
        * exclude (place, former_place),
        place[2] as city,
        place_line(country, street, kind, h_number, h_flat, $flat) as line,
        place_postcode(country, place[3], cast(place[4] as integer), stretch) as postcode,
        former_place[2] as former_city,
        if(former_place is null, null,
            place_line(country, former_street, former_kind, h_former_number, 1, $flat)) as former_line,
        place_postcode(country, former_place[3], cast(former_place[4] as integer), former_stretch) as former_postcode,
        if(has_landline,
            place[5] || letter_of(place[6], cast(floor(h_landline_lead * 8) as integer))
            || right('000000' || scramble(household, 77), cast(place[7] as integer)),
            null) as landline
    from placed
),
named as (
    select
        frame.* exclude (given, nickname, family), housed.* exclude (household),
        if(person = 0, 'John', given) as given,
        if(person = 0, 'Johnny', nickname) as nickname,
        case
            when person = 0 then 'Greene'
            when double_barrelled then family || '-' || second_family
            when sex = 'F' then feminine(family)
            else family
        end as family,
        if(couple and sex = 'F' and u_married < $married_name, feminine(maiden_family), null) as former_family,
        case country
            when 'GB' then '44' when 'IE' then '353' when 'FR' then '33' when 'DE' then '49' else '48'
        end as dial,
        -- people of this name among ten million: the commoner the name, the longer the number in the address
        greatest(0, least(4, cast(ceil(log10(given_share * family_share * 1e7)) as integer))) as number_length
    from frame
    join housed using (household)
),
spelt as (
    select
        *,
        address_word(given) as plain_given,
        address_word(family) as plain_family,
        address_word(coalesce(nickname, given)) as plain_nickname,
        if(number_length = 0, '', right('0000' || digits_of(u_local_number), number_length)) as number
    from named
)
select
    person, household, member, sex, born_on, size, country, dial, given, nickname, family, former_family,
    line, city, postcode, former_line, former_city, former_postcode, landline,
    mobile_of(country, 2 * person) as mobile,
    if(u_former_mobile < $former_mobile, mobile_of(country, 2 * person + 1), null) as former_mobile,
    if(person = 0,
        'john.greene@luma.com',
        local_part(plain_given, plain_family, plain_nickname, number, born_on, u_local)
        || '@' || email_domain(country, u_domain)
    ) as email,
    if(u_other < $other_email,
        local_part(
            plain_nickname, plain_family, plain_given, right('000' || digits_of(u_other), 3), born_on, u_other_local)
        || '@' || email_domain(country, u_other_domain),
        null) as other_email,
    if(shares_email,
        choose(['the', 'family.', 'home.', 'team'], h_shared_email)
        || first(plain_family) over (partition by household order by member)
        || right('0000' || scramble(household, 31), 4) || '@' || email_domain(country, h_shared_email),
        null) as household_email,
    if(shares_tablet, token('tablet', household), null) as tablet,
    if(shares_card, token('card', household), null) as shared_card,
    person = 0 or u_crm < $crm as in_crm,
    person = 0 or u_loyalty < $loyalty as in_loyalty,
    person = 0 or u_shop < $shop as in_shop,
    u_web < $web as in_web,
    u_store < if(u_loyalty < $loyalty, $store_card_holder, $store_other) as in_store,
    u_enrichment < $enrichment as in_enrichment,
    u_app < $app as has_app
from spelt
order by person
