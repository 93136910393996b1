-- The third party: formal names, older addresses, few contacts. Frame: person.
-- Grain of the answer: one row a delivered line.
with written as (
    select
        people.*,
        frame.* exclude (person),
        'EX' || upper(token('enrichment', person)) as ref,
        case
            when u_form < $nickname_formal then coalesce(nickname, given)
            when u_form < $nickname_formal + $initial * 3 then left(given, 1)
            else perhaps_typo(given, u_given_typo, $typo)
        end as forename,
        perhaps_typo(
            if(former_family is not null and u_maiden < $former_name, former_family, family), u_family_typo, $typo
        ) as surname,
        case
            when u_birth < $enrichment_birth_missing then ''
            else strftime(
                birth_text(born_on, u_birth_swap, $day_month_swapped / 2, u_birth_year, $wrong_year * 2), '%Y%m%d')
        end as dob,
        former_line is not null and u_home < $enrichment_former_address as formerly,
        case
            when u_email < $enrichment_email_missing then ''
            when other_email is not null and u_other_email < $use_other_email then other_email
            else perhaps_typo(email, u_email_typo, $email_typo)
        end as shown_email,
        u_capitals < $capitals * 4 as capitals
    from frame
    join people using (person)
),
rows_written as (
    select
        person, ref, u_order,
        flaw_of(['short', 'long', 'no key'], u_broken, $broken) as flaw,
        [
            ref,
            upper_if(plain(forename), capitals),
            upper_if(plain(surname), capitals),
            dob,
            perhaps_typo(
                street_text(if(formerly, former_line, line), u_street, $street_shortened), u_street_typo, $typo),
            upper(if(formerly, former_city, city)),
            if(formerly, former_postcode, postcode),
            shown_email,
            choose(['A', 'B', 'C1', 'C2', 'D', 'E', 'n/a'], u_income),
            choose(['Y', 'N', 'Y', 'U'], u_homeowner),
            choose(['garden', 'kitchen', 'travel', 'books', 'pets', 'craft', 'music', ''], u_interest)
                || choose(['', ';travel', ';wine', ';running', ';antiques', ''], u_other_interest),
            strftime(date '2024-06-01' + number_below(u_as_of, 600), '%Y-%m-%d')
        ] as fields
    from written
)
select
    person,
    ref as record_id,
    '2026-02-10' as delivery,
    flaw,
    case flaw
        when 'short' then csv_line(fields[1:8], '|')
        when 'long' then csv_line(fields, '|') || '|X|'
        when 'no key' then csv_line(list_concat([''], fields[2:]), '|')
        else csv_line(fields, '|')
    end || chr(10) as line
from rows_written
order by delivery, u_order, record_id
