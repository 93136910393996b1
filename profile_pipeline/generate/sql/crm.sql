-- The CRM: the whole row replaces. Frame: person, copy (0 is the first entry of the person, 1 and 2 are duplicates).
-- Grain of the answer: one row a delivered line. A change carries the number of the delivery that brings it:
-- 0 it was so from the start, 9 never.
with entered as (
    select
        people.*,
        frame.* exclude (person),
        customer_of(person, copy) as customer_id,
        case when u_joins >= $crm_joins_later then 1 when u_joins < $crm_joins_later / 2 then 3 else 2 end as joined,
        case
            when former_line is null or u_home >= $crm_former_address then 0
            when u_move < $crm_move_reported * 0.6 then 2 when u_move < $crm_move_reported then 3 else 9
        end as move_at,
        case
            when former_family is null or u_maiden >= $former_name then 0
            when u_rename < $crm_name_reported * 0.4 then 2 when u_rename < $crm_name_reported then 3 else 9
        end as rename_at,
        case
            when other_email is null or u_other_email >= $use_other_email then 0
            when u_remail < $crm_email_reported * 0.5 then 2 when u_remail < $crm_email_reported then 3 else 9
        end as remail_at,
        case
            when u_withdrawn >= $crm_consent_withdrawn then 9
            when u_withdrawn < $crm_consent_withdrawn / 2 then 3 else 2
        end as withdraw_at,
        case
            when u_deleted >= $crm_deleted then 9
            when u_deleted < $crm_deleted / 2 or joined > 1 then 3 else 2
        end as delete_at,
        case
            when u_clear >= $crm_phone_cleared then 9
            when u_clear < $crm_phone_cleared / 2 then 3 else 2
        end as clear_at
    from frame
    join people using (person)
),
written as (
    select
        *,
        case
            when u_unknown < $crm_name_unknown then 'UNKNOWN'
            when u_form < $nickname_formal then coalesce(nickname, given)
            when u_form < $nickname_formal + $initial then left(given, 1) || '.'
            else perhaps_typo(given, u_given_typo, $typo)
        end as shown_given,
        perhaps_typo(family, u_family_typo, $typo) as shown_family,
        case
            when u_birth < $crm_birth_missing then ''
            when u_birth < $crm_birth_missing + $crm_birth_placeholder then '01/01/1900'
            when u_birth < $crm_birth_missing + $crm_birth_placeholder + $crm_birth_impossible then '31/02/1980'
            else strftime(
                birth_text(born_on, u_birth_swap, $day_month_swapped, u_birth_year, $wrong_year), '%d/%m/%Y')
        end as date_of_birth,
        case
            when u_email < $crm_email_missing then null
            when u_email < $crm_email_missing + $email_placeholder then choose(
                ['n/a', 'test@test.com', 'noemail@luma-lark.example', 'none'],
                (u_email - $crm_email_missing) / $email_placeholder)
        end as placeholder_email,
        if(household_email is not null and u_shared_email < $use_household_email,
            household_email, perhaps_typo(email, u_email_typo, $email_typo)) as known_email,
        case
            when landline is not null and u_landline < $phone_landline then landline
            when former_mobile is not null and u_former_mobile < $phone_former then former_mobile
            else mobile
        end as known_phone,
        case
            when u_phone < $crm_phone_missing then null
            when u_phone < $crm_phone_missing + $phone_placeholder then choose(
                ['000-000-0000', '0', 'n/a', '07000 000000'], (u_phone - $crm_phone_missing) / $phone_placeholder)
            when u_phone < $crm_phone_missing + $phone_placeholder + $phone_switchboard then choose(
                ['0113 496 0100', '020 7946 0200', '0161 496 0300'],
                (u_phone - $crm_phone_missing - $phone_placeholder) / $phone_switchboard)
            else phone_text(dial, known_phone, u_phone_form, if(dial = '44', $phone_national, 0))
        end as shown_phone
    from entered
),
versions as (
    select
        written.*,
        version,
        version > 0 and version >= move_at or former_line is null as at_home,
        version > 0 and version >= rename_at or former_family is null as renamed,
        version > 0 and version >= remail_at or other_email is null as remailed
    from written
    join (values (0), (1), (2), (3)) numbers(version) on
        version = joined
        or version > joined and version <= delete_at
            and version in (move_at, rename_at, remail_at, withdraw_at, delete_at, clear_at)
        -- version 0: an older state that arrives late
        or version = 0 and joined = 1 and u_late < $crm_late and (former_line is not null or other_email is not null)
),
cells as (
    select
        *,
        u_capitals < $capitals as capitals,
        perhaps_plain(shown_given, u_plain, $plain_letters) as given_cell,
        perhaps_plain(if(renamed, shown_family, former_family), u_plain, $plain_letters) as family_cell,
        case
            when u_email < $crm_email_missing + $email_placeholder then placeholder_email
            when remailed then known_email
            else other_email
        end as email_cell,
        if(at_home, line, former_line) as line_cell,
        if(at_home, city, former_city) as city_cell,
        if(at_home, postcode, former_postcode) as postcode_cell,
        case version
            when 0 then date '2020-01-01' + number_below(u_modified, 700)
            when 1 then date '2022-01-01' + number_below(u_modified, 1460)
            when 2 then date '2026-01-06' + number_below(u_modified, 26)
            else date '2026-02-03' + number_below(u_modified, 26)
        end as modified_on
    from versions
),
rows_written as (
    select
        person, customer_id, version, u_order,
        flaw_of(['short', 'long', 'no key'], u_broken, $broken) as flaw,
        [
            customer_id,
            upper_if(if(u_swap < $swapped_names, family_cell, given_cell), capitals),
            upper_if(if(u_swap < $swapped_names, given_cell, family_cell), capitals),
            case
                when u_sex < $gender_missing then ''
                when u_sex < $gender_missing + $gender_unknown then 'Unknown'
                when u_sex < $gender_missing + $gender_unknown + $gender_wrong then if(sex = 'M', 'F', 'M')
                else sex
            end,
            date_of_birth,
            if(person = 0, 'John.Greene@luma.com',
                email_text(email_cell, u_email_case, $email_letter_case, u_email_space, $email_spaces)),
            if(version >= clear_at, '<clear>', shown_phone),
            upper_if(
                perhaps_typo(street_text(line_cell, u_street, $street_shortened), u_street_typo, $typo), capitals),
            if(u_city < $crm_city_unknown, 'n/a', upper_if(city_cell, capitals)),
            if(u_postcode < $postcode_missing, '', postcode_text(postcode_cell, u_postcode_form, $postcode_compact)),
            country_text(country, u_country),
            case
                when version >= withdraw_at then 'N'
                when u_consent < 0.62 then 'Y' when u_consent < 0.85 then 'N' else ''
            end,
            choose(['home', 'garden', 'family', 'gift', 'new', 'lapsed'], u_segment),
            if(version >= delete_at, 'deleted', 'active'),
            strftime(modified_on + to_seconds(28800 + number_below(u_time, 39600)), '%Y-%m-%d %H:%M:%S')
        ] as fields
    from cells
)
select
    person,
    customer_id as record_id,
    case version when 1 then '2026-01-05' when 2 then '2026-02-02' else '2026-03-02' end as delivery,
    flaw,
    case flaw
        when 'short' then csv_line(fields[1:9], ',')
        when 'long' then csv_line(fields, ',') || ',,active'
        when 'no key' then csv_line(list_concat([''], fields[2:]), ',')
        else csv_line(fields, ',')
    end || chr(10) as line
from rows_written
order by delivery, u_order, record_id, version
