-- How values get written down. Every macro is a pure function of its text and of uniform numbers u in [0, 1).
-- Below a rate, u / rate is uniform again: one number decides both whether and how.

create macro digits_of(u) as cast(floor(u * 4503599627370496) as bigint);

create macro number_below(u, limit_) as cast(floor(u * limit_) as integer);

create macro choose(options, u) as options[1 + number_below(u, len(options))];

-- how a row is broken, null for a sound one
create macro flaw_of(flaws, u, rate) as if(u < rate, choose(flaws, u / rate), null);

create macro upper_if(text, condition) as if(condition, upper(text), text);

create macro title_case(text) as upper(left(text, 1)) || substr(text, 2);

-- a letter inserted, lost, mistaken or swapped with the next one; never the first
create macro typo_at(text, place, letter, kind) as
    left(text, place) || case kind
        when 0 then letter || substr(text, place + 1)
        when 1 then substr(text, place + 2)
        when 2 then letter || substr(text, place + 2)
        else substr(text, place + 2, 1) || substr(text, place + 1, 1) || substr(text, place + 3)
    end;

create macro typo(text, number) as typo_at(
    text, 1 + (number // 4) % (length(text) - 2), chr(97 + cast(number // 1000 % 26 as integer)), number % 4);

create macro perhaps_typo(text, u, rate) as
    if(u < rate and length(text) > 3, typo(text, digits_of(u / rate)), text);

create macro plain(text) as
    replace(translate(strip_accents(text), 'łŁøØæÆđĐıİ', 'lLoOaAdDiI'), 'ß', 'ss');

create macro perhaps_plain(text, u, rate) as if(u < rate, plain(text), text);

create macro email_case(email, u, rate) as
    case
        when u < rate * 0.5 then title_case(email)
        when u < rate * 0.8 and contains(split_part(email, '@', 1), '.') then
            title_case(split_part(email, '.', 1)) || '.'
            || title_case(substr(email, 2 + length(split_part(email, '.', 1))))
        when u < rate then upper(email)
        else email
    end;

create macro email_text(email, u_case, case_rate, u_space, space_rate) as
    if(u_space < space_rate / 2, ' ', '') || email_case(email, u_case, case_rate)
    || if(u_space between space_rate / 2 and space_rate, ' ', '');

-- national: the digits without the leading zero; the other forms say the country
create macro phone_text(dial, national, u, national_forms) as
    case
        when u >= national_forms then choose([
            '+' || dial || national,
            '+' || dial || ' ' || left(national, 4) || ' ' || substr(national, 5),
            '00' || dial || ' ' || national,
            '+' || dial || '-' || left(national, 3) || '-' || substr(national, 4, 3) || '-' || substr(national, 7)
        ], (u - national_forms) / (1 - national_forms))
        else choose([
            '0' || national,
            '0' || left(national, 4) || ' ' || substr(national, 5),
            '0' || left(national, 4) || ' ' || substr(national, 5, 3) || ' ' || substr(national, 8),
            '(0' || left(national, 4) || ') ' || substr(national, 5),
            '0' || left(national, 4) || '-' || substr(national, 5),
            '+' || dial || ' (0) ' || left(national, 4) || ' ' || substr(national, 5)
        ], u / national_forms)
    end;

create macro street_text(line, u, rate) as
    case
        when u >= rate then line
        when left(line, 5) = 'Flat ' and u < rate / 2 then 'Apt ' || substr(line, 6)
        when suffix(line, ' Road') then left(line, -3) || 'd'
        when suffix(line, ' Street') then left(line, -4)
        when suffix(line, ' Avenue') then left(line, -3)
        when suffix(line, ' Lane') then left(line, -3) || 'n'
        else replace(line, 'straße ', 'str. ')
    end;

create macro postcode_text(postcode, u, rate) as
    case
        when u < rate * 0.7 then replace(postcode, ' ', '')
        when u < rate then lower(postcode)
        else postcode
    end;

create macro country_text(country, u) as
    case country
        when 'GB' then choose(
            ['United Kingdom', 'UK', 'GB', 'United Kingdom', 'UK', 'England', 'Great Britain', 'uk'], u)
        when 'IE' then choose(['Ireland', 'IE', 'Ireland', 'Republic of Ireland', 'IRL'], u)
        when 'FR' then choose(['France', 'FR', 'France', 'FRANCE'], u)
        when 'DE' then choose(['Germany', 'DE', 'Deutschland', 'Germany'], u)
        else choose(['Poland', 'PL', 'Polska', 'Poland'], u)
    end;

-- a wrong date of birth: day and month swapped where that is a date, or the year out by one or ten
create macro birth_text(born_on, u_swap, swap_rate, u_year, year_rate) as
    case
        when u_swap < swap_rate and day(born_on) <= 12 then make_date(year(born_on), day(born_on), month(born_on))
        when u_year < year_rate then
            make_date(
                year(born_on) + choose([-1, 1, -10, 10], u_year / year_rate), month(born_on), least(day(born_on), 28))
        else born_on
    end;

-- a number that tells nothing about its origin; one to one up to 999 999 937
create macro scramble(number, salt) as (number + salt) * 387420489 % 999999937;

create macro nine_digits(number) as right('00000000' || number, 9);

create macro customer_of(person, copy) as 'C' || nine_digits(scramble(8 * person + copy, 101));

create macro card_of(person) as 'LC' || nine_digits(scramble(person, 202));

create macro account_of(person, number) as 'A' || nine_digits(scramble(8 * person + number, 303));

-- an identifier that looks random; a world's seed is its salt
create macro token(kind, number) as left(md5(kind || getvariable('seed') || '/' || number), 12);

create macro csv_field(text, delimiter) as
    case
        when contains(text, delimiter) or contains(text, '"') then '"' || replace(text, '"', '""') || '"'
        else coalesce(text, '')
    end;

create macro csv_line(fields, delimiter) as
    array_to_string(list_transform(fields, lambda x: csv_field(x, delimiter)), delimiter);

-- one member of a JSON object; a null member is not mentioned
create macro json_text(name, text) as '"' || name || '":' || cast(to_json(text) as varchar);

create macro json_raw(name, raw) as '"' || name || '":' || raw;

create macro json_object(members) as '{' || array_to_string(members, ',') || '}';

-- an amount in pence as a decimal number
create macro pounds(pence) as (pence // 100) || '.' || right('0' || (pence % 100), 2);

-- the price of an article in pence, a whole or a crooked amount
create macro price_of(article) as 300 + article * 7919 % 80 * 100 + choose([0, 50, 95, 99], article % 4 / 4);
