-- How the true addresses, phones and e-mail addresses are formed.

create macro place_line(country, street, kind, u_number, u_flat, flat_rate) as
    case country
        when 'DE' then street || kind || ' ' || cast(1 + floor(u_number * 120) as integer)
        when 'PL' then kind || ' ' || street || ' ' || cast(1 + floor(u_number * 90) as integer)
            || if(u_flat < 0.5, '/' || cast(1 + floor(u_flat * 80) as integer), '')
        when 'FR' then cast(1 + floor(u_number * 140) as integer) || ' ' || kind || ' ' || street
        else if(u_flat < flat_rate, 'Flat ' || cast(1 + floor(u_flat / flat_rate * 24) as integer) || ', ', '')
            || cast(1 + floor(u_number * 180) as integer) || ' ' || street || ' ' || kind
    end;

create macro letter_of(letters, number) as substr(letters, 1 + cast(number % length(letters) as integer), 1);

-- stretch: a number of the stretch of street; british codes are area and district, then sector and unit
create macro place_postcode(country, area, districts, stretch) as
    case country
        when 'GB' then area || (1 + stretch % districts) || ' ' || (stretch // 100 % 9 + 1)
            || letter_of('ABDEFGHJLNPQRSTUWXYZ', stretch // 1000)
            || letter_of('ABDEFGHJLNPQRSTUWXYZ', stretch // 100000)
        when 'IE' then area || right('0' || (1 + stretch % districts), 2)
            || ' ' || letter_of('ACDEFHKNPRTVWXY', stretch // 1000) || (stretch // 100 % 10)
            || letter_of('ACDEFHKNPRTVWXY', stretch // 100000) || (stretch // 10 % 10)
        when 'FR' then area || '0' || right('0' || (1 + stretch % districts), 2)
        when 'DE' then area || right('000' || (stretch % 1000), 3)
        else area || '-' || right('000' || (stretch % 1000), 3)
    end;

create macro line_digits(prefixes, tail, line_number) as
    prefixes[1 + cast((line_number * 433494437 + 271828183) // cast(10 ** tail as bigint) % len(prefixes) as integer)]
    || right('000000' || ((line_number * 433494437 + 271828183) % cast(10 ** tail as bigint)), tail);

-- mobile numbers are one to one with the number of the line; only prefixes that are valid throughout
create macro mobile_of(country, line_number) as
    case country
        when 'GB' then line_digits(
            list_concat(range(7300, 7603), range(7701, 7911), range(7912, 8000)), 6, line_number)
        when 'IE' then line_digits([83, 85, 86, 87, 88, 89], 7, line_number)
        when 'FR' then line_digits([60, 61, 62, 64, 65, 66, 67, 68, 73, 74, 75, 76, 77, 78, 79], 7, line_number)
        when 'DE' then line_digits([160, 162, 163, 170, 171, 172, 173, 174, 175, 176, 177, 178, 179], 7, line_number)
        else line_digits([50, 51, 53, 57, 60, 66, 69, 72, 73, 78, 79, 88], 7, line_number)
    end;

-- women's forms of the family names that have one
create macro feminine(family) as regexp_replace(family, '(s|c|dz)ki$', '\1ka');

create macro address_word(text) as lower(regexp_replace(plain(text), '[^A-Za-z]', '', 'g'));

create macro local_part(given, family, nickname, number, born_on, u) as
    choose([
        given || '.' || family || number,
        given || '.' || family || number,
        given || family || number,
        left(given, 1) || family || number || strftime(born_on, '%y'),
        left(given, 1) || '.' || family || number,
        nickname || '.' || family || number,
        nickname || family || strftime(born_on, '%y') || number,
        family || '.' || given || number,
        given || '_' || family || number,
        nickname || number || strftime(born_on, '%y') || left(family, 3)
    ], u);

create macro email_domain(country, u) as
    case country
        when 'IE' then choose(['gmail.com', 'gmail.com', 'eircom.net', 'outlook.ie', 'icloud.com', 'yahoo.ie'], u)
        when 'FR' then choose(['gmail.com', 'orange.fr', 'wanadoo.fr', 'free.fr', 'hotmail.fr', 'laposte.net'], u)
        when 'DE' then choose(['gmail.com', 'gmx.de', 'web.de', 't-online.de', 'outlook.de', 'posteo.de'], u)
        when 'PL' then choose(['gmail.com', 'wp.pl', 'onet.pl', 'o2.pl', 'interia.pl', 'gmail.com'], u)
        else choose([
            'gmail.com', 'gmail.com', 'gmail.com', 'gmail.com', 'hotmail.co.uk', 'outlook.com', 'yahoo.co.uk',
            'btinternet.com', 'icloud.com', 'hotmail.com', 'sky.com', 'live.co.uk', 'aol.com', 'talktalk.net',
            'luma.com'
        ], u)
    end;
