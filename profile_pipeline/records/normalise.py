"""Semantic types as DuckDB expressions: what makes two spellings of a value equal.

Every function takes a SQL expression of type text and returns one; missing, placeholder and invalid values
become NULL. The raw value is kept beside the normalised one by `mapping`. VERSION changes whenever a result
could change, and makes every record be normalised afresh.
"""

import functools
import re
from collections.abc import Callable

import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.config.identity import Namespace
from profile_pipeline.config.sources import Attribute, Source
from profile_pipeline.warehouse import literal, quote, scalar

VERSION = "2"

MISSING_WORDS = (
    "", "-", "--", ".", "?", "n/a", "na", "n.a.", "#n/a", "nan", "nil", "none", "null", "(null)", "undefined",
    "unknown", "not known", "not provided", "not given", "not specified", "not-specified", "unspecified",
    "anonymous", "invalid", "missing", "tbc", "tbd", "test", "xxx", "xxxx",
)  # fmt: skip
MISSING_EMAILS = (
    "test@test.com", "test@example.com", "a@a.com", "none@none.com", "no@email.com", "noemail@noemail.com",
    "no-reply@example.com", "noreply@example.com", "email@email.com", "email@example.com", "na@na.com",
    "nobody@example.com", "unknown@unknown.com", "user@example.com",
)  # fmt: skip
MISSING_EMAIL_NAMES = ("noemail", "no-email", "no.email", "nomail", "donotreply", "notprovided")
MISSING_DATES = (
    "1900-01-01",
    "1901-01-01",
    "1970-01-01",
    "1111-11-11",
    "9999-12-31",
    "2999-12-31",
    "0001-01-01",
)
GENDERS = {
    "f": ("f", "female", "woman", "w", "weiblich", "femme", "mrs", "ms", "miss"),
    "m": ("m", "male", "man", "männlich", "homme", "mr"),
    "x": ("x", "d", "nonbinary", "non-binary", "diverse", "divers", "other"),
}
HIDDEN = (
    r"\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x84\x86-\x9F\x{AD}\x{34F}\x{61C}\x{180E}\x{200B}-\x{200F}"
    r"\x{202A}-\x{202E}\x{2060}-\x{206F}\x{FEFF}\x{FFF9}-\x{FFFB}\x{E0000}-\x{E007F}"
)
"""Control, bidi, zero-width and tag characters and the soft hyphen, as part of a regular expression."""
SPACES = r"\s\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
"""Every space of Unicode: RE2's own class knows those of ASCII only."""
ISO_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
ISO_OFFSET = r"([zZ]|[+-](0\d|1[0-4])(:?[0-5]\d)?)"
ISO_CLOCK = r"[ T]\d{1,2}:\d{2}(:\d{2}([.]\d{1,9})?)?"
LAST_EPOCH_SECOND = 7_289_654_399
"""The end of the year 2200: the latest time that counts as one."""
APOSTROPHES = "''`\u00b4\u2019"
TRUE_WORDS = ("y", "yes", "true", "t", "1", "on", "ja", "oui", "opt-in", "in")
FALSE_WORDS = ("n", "no", "false", "f", "0", "off", "nein", "non", "opt-out", "out")
STREET_WORDS = {
    "st": "street", "str": "strasse", "rd": "road", "ave": "avenue", "av": "avenue", "ln": "lane", "dr": "drive",
    "crt": "court", "ct": "court", "pl": "place", "cres": "crescent", "cl": "close", "sq": "square",
    "gdns": "gardens", "grn": "green", "ter": "terrace", "terr": "terrace", "blvd": "boulevard", "hwy": "highway",
    "pde": "parade", "apt": "apartment", "flt": "flat",
}  # fmt: skip
COUNTRY_NAMES = {
    "uk": "GB", "u.k.": "GB", "great britain": "GB", "england": "GB", "scotland": "GB", "wales": "GB",
    "northern ireland": "GB", "gb-eng": "GB", "eire": "IE", "éire": "IE", "republic of ireland": "IE",
    "usa": "US", "u.s.a.": "US", "u.s.": "US", "united states of america": "US", "deutschland": "DE",
    "allemagne": "DE", "frankreich": "FR", "polska": "PL", "españa": "ES", "espana": "ES", "italia": "IT",
    "nederland": "NL", "holland": "NL", "the netherlands": "NL", "österreich": "AT", "schweiz": "CH",
    "suisse": "CH", "belgique": "BE", "belgië": "BE", "danmark": "DK", "sverige": "SE", "norge": "NO",
    "suomi": "FI", "turkey": "TR", "czech republic": "CZ", "russia": "RU", "south korea": "KR",
    "vietnam": "VN", "ivory coast": "CI",
}  # fmt: skip


def clean_query(text: str) -> str:
    """Text fit to show: composed Unicode, no control, bidi or zero-width characters, single spaces."""
    visible = f"regexp_replace(nfc_normalize({text}), '[{HIDDEN}]', '', 'g')"
    spaced = f"trim(regexp_replace({visible}, '[{SPACES}]+', ' ', 'g'))"
    # most text is plain already, and one look is five times cheaper than three replacements
    return f"(case when regexp_full_match({text}, '[!-~]+( [!-~]+)*') then {text} else {spaced} end)"


def filled_query(text: str, placeholders: tuple[str, ...] = ()) -> str:
    """Clean text, or NULL when it is a word for 'missing'."""
    words = ", ".join(literal(word) for word in (*MISSING_WORDS, *(p.lower() for p in placeholders)))
    clean = clean_query(text)
    return f"(case when lower({clean}) in ({words}) then null else {clean} end)"


def folded_query(text: str) -> str:
    """Lower case without accents; letters that have no plain form (ł, ø, ß, Greek ...) are transliterated."""
    plain = f"lower(strip_accents({text}))"
    return (
        f"(case when regexp_matches({plain}, '[^\\x00-\\x7F]') then transliterated({text}) else {plain} end)"
    )


def _name(folded: str) -> str:
    # an apostrophe joins (O'Brien = OBrien), any other mark separates (Anne-Marie = Anne Marie)
    joined = f"regexp_replace({folded}, '[{APOSTROPHES}.]', '', 'g')"
    return f"nullif(trim(regexp_replace({joined}, '[^a-z]+', ' ', 'g')), '')"


def _email(text: str) -> str:
    lowered = f"lower(replace({text}, ' ', ''))"
    bare = f"regexp_replace({lowered}, '^(mailto:)|[<>;,]+', '', 'g')"
    shape = r"'[a-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}'"
    words = ", ".join(literal(word) for word in MISSING_EMAILS)
    names = ", ".join(literal(word) for word in MISSING_EMAIL_NAMES)
    valid = (
        f"case when regexp_matches({bare}, '[^\\x00-\\x7F]') then international_email({bare})"
        f" when regexp_full_match({bare}, {shape}) then {bare} end"
    )
    return f"(case when {bare} in ({words}) or split_part({bare}, '@', 1) in ({names}) then null else {valid} end)"


def _phone(text: str, region: str) -> str:
    digits = rf"regexp_replace({text}, '(?i)\s*(ext|x|#)\.?\s*\d+$', '')"
    kept = rf"regexp_replace(replace({digits}, '(0)', ''), '[^0-9+\x{{0660}}-\x{{0669}}]', '', 'g')"
    return f"e164({kept}, {literal(region)})"


def _street(folded: str) -> str:
    words = f"regexp_replace({folded}, '[^a-z0-9]+', ' ', 'g')"
    split = f"string_split(trim({words}), ' ')"
    table = ", ".join(f"{literal(short)}: {literal(word)}" for short, word in STREET_WORDS.items())
    # `st` opens a saint's street and closes an ordinary one
    return (
        f"nullif(array_to_string(list_transform({split}, lambda w, i:"
        f" case when w = 'st' and i < len({split}) then 'saint' else coalesce(map {{{table}}}[w], w) end), ' '), '')"
    )


def _words(folded: str) -> str:
    return f"nullif(trim(regexp_replace({folded}, '[^a-z0-9]+', ' ', 'g')), '')"


def _compact(text: str) -> str:
    return f"nullif(regexp_replace(upper(strip_accents({text})), '[^A-Z0-9]', '', 'g'), '')"


def _code(text: str, words: dict[str, tuple[str, ...]]) -> str:
    cases = " ".join(
        f"when lower({text}) in ({', '.join(literal(v) for v in values)}) then {literal(code)}"
        for code, values in words.items()
    )
    return f"(case {cases} end)"


def date_query(
    text: str, formats: list[str], earliest: int, placeholders: tuple[str, ...] = MISSING_DATES
) -> str:
    """ISO date text from the declared formats only; `iso` also reads year and year-month alone."""
    listed = [f for f in formats if f != "iso"]
    tries = []
    if "iso" in formats:
        tries.append(
            f"case when regexp_full_match({text}, '\\d{{4}}(-\\d{{2}}){{0,2}}([ T].*)?')"
            f" then case when length({text}) = 4 then {text}"
            f" when length({text}) = 7 and try_cast({text} || '-01' as date) is not null then {text}"
            f" else strftime(try_cast(left({text}, 10) as date), '%Y-%m-%d') end end"
        )
    if listed:
        names = ", ".join(literal(f) for f in listed)
        tries.append(f"strftime(try_strptime({text}, [{names}]), '%Y-%m-%d')")
    found = f"coalesce({', '.join(tries)})"
    words = ", ".join(literal(word) for word in (*placeholders, ""))
    return (
        f"(case when {found} in ({words}) or {found} < '{earliest:04d}' or length({found}) > 10"
        f" then null else {found} end)"
    )


EPOCHS = {"epoch_s": 1, "epoch_ms": 1000}


def _epoch(text: str, scale: int) -> str:
    """Seconds since 1970; a number beyond every calendar would stop the whole query."""
    seconds = f"try_cast({text} as double) / {scale}"
    return f"case when abs({seconds}) <= {LAST_EPOCH_SECOND} then to_timestamp({seconds}) end"


def time_query(text: str, formats: list[str], zone: str) -> str:
    """A point in time (UTC) from the declared formats; a time without an offset is in `zone`."""
    tries = []
    listed = [f for f in formats if f not in {"iso", "epoch_s", "epoch_ms"}]
    if "iso" in formats:
        # the shape first: a cast would also read `epoch`, `infinity` or a zone name, and ignore the last
        tries.append(
            f"case when regexp_full_match({text}, '{ISO_DAY}{ISO_CLOCK} ?{ISO_OFFSET}')"
            f" then try_cast(regexp_replace({text}, ' ([zZ+-])', '\\1') as timestamptz)"
            f" when regexp_full_match({text}, '{ISO_DAY}({ISO_CLOCK})?')"
            f" then timezone({literal(zone)}, try_cast({text} as timestamp)) end"
        )
    zoned = [f for f in listed if "%z" in f]
    plain = [f for f in listed if "%z" not in f]
    if zoned:
        tries.append(f"try_strptime({text}, [{', '.join(literal(f) for f in zoned)}])")
    if plain:
        parsed = f"try_strptime({text}, [{', '.join(literal(f) for f in plain)}])"
        tries.append(f"timezone({literal(zone)}, {parsed}::timestamp)")
    tries += [_epoch(text, scale) for name, scale in EPOCHS.items() if name in formats]
    found = f"coalesce({', '.join(tries)})"
    return f"(case when year({found}) between 1900 and 2200 then {found} end)"


FOLDED = {
    "given_name", "middle_name", "family_name", "full_name", "street_address", "city", "region", "category",
}  # fmt: skip
"""Types that are compared without accents and case: their text is folded before `value_query` sees it."""


def value_query(attribute: Attribute, source: Source, text: str) -> str:
    """The normalised value of a field, from its filled (and for FOLDED types folded) text."""
    kind = attribute.type
    by_type: dict[str, Callable[[], str]] = {
        "given_name": lambda: _name(text),
        "middle_name": lambda: _name(text),
        "family_name": lambda: _name(text),
        "full_name": lambda: _name(text),
        "birth_date": lambda: date_query(text, source.dates, attribute.earliest),
        "gender": lambda: _code(text, GENDERS),
        "email": lambda: _email(text),
        "phone": lambda: _phone(text, source.country or "ZZ"),
        "street_address": lambda: _street(text),
        "house_number": lambda: _compact(text),
        "city": lambda: _words(text),
        "region": lambda: _words(text),
        "postcode": lambda: _compact(text),
        "country": lambda: f"country_code({text})",
        "national_id": lambda: _compact(text),
        "id": lambda: _compact(text),
        "category": lambda: _words(text),
        "text": lambda: text,
        "number": lambda: _number(text),
        "integer": lambda: f"try_cast(try_cast({text} as decimal(38, 6)) as bigint)",
        "boolean": lambda: _boolean(text),
        "consent": lambda: _boolean(text),
        "date": lambda: f"try_cast({date_query(text, source.dates, attribute.earliest)} as date)",
        "timestamp": lambda: time_query(text, source.dates, source.time.zone if source.time else "UTC"),
        "list": lambda: _objects(attribute, source, text) if attribute.fields else _list(text),
        "map": lambda: _map(attribute, source, text),
    }
    return by_type[kind]()


def _number(text: str) -> str:
    """A finite number; `1,234` may be a thousand or a fraction and is therefore not read."""
    value = f"try_cast(replace({text}, ',', '.') as double)"
    unclear = f"regexp_full_match({text}, '[+-]?[1-9]\\d{{0,2}},\\d{{3}}')"
    return f"(case when isfinite({value}) and not {unclear} then {value} end)"


def _boolean(text: str) -> str:
    return f"cast({_code(text, {'true': TRUE_WORDS, 'false': FALSE_WORDS})} as boolean)"


def _list(text: str) -> str:
    """The distinct elements of a JSON array, or of text that `;`, `|` or `,` part."""
    array = f"case when {text}[1] = '[' then try_cast(try_cast({text} as json) as text[]) end"
    items = f"list_transform(coalesce({array}, string_split_regex({text}, '[;|,]')), lambda x: trim(x))"
    return f"nullif(list_sort(list_distinct(list_filter({items}, lambda x: x <> ''))), [])"


def _map(attribute: Attribute, source: Source, text: str) -> str:
    """The entries of a JSON object whose values can be read, in the order of their keys.

    An explicit null stays where it clears: an entry without a value takes the key from the profile.
    """
    value = _inner(value_of(attribute), source, "e.value")
    entry = f"struct_pack(key := e.key, value := {value}, said := e.value)"
    read = f"list_transform({_entries(text)}, lambda e: {entry})"
    kept = "e.value is not null or e.said is null" if source.clear_value == "null" else "e.value is not null"
    sorted_entries = f"list_sort(list_filter({read}, lambda e: {kept}))"
    bare = (
        f"list_transform(nullif({sorted_entries}, []), lambda e: struct_pack(key := e.key, value := e.value))"
    )
    return f"map_from_entries({bare})"


def _entries(text: str) -> str:
    """Key and text of each entry of a JSON object; NULL where it is none, or has a key twice."""
    return f"map_entries(try_cast(try_cast({text} as json) as map(text, text)))"


def value_of(attribute: Attribute) -> Attribute:
    """What the values of a map are."""
    return Attribute(type=attribute.values, placeholders=attribute.placeholders, earliest=attribute.earliest)


def _objects(attribute: Attribute, source: Source, text: str) -> str:
    """The objects of a JSON array with the declared fields, each once; those with none of them are left out."""
    texts = {name: f"(o ->> '$.{name}')" for name in attribute.fields}
    parts = ", ".join(
        f"{quote(name)} := {_inner(attribute.field(name), source, text)}" for name, text in texts.items()
    )
    filled = " or ".join(f"o.{quote(name)} is not null" for name in attribute.fields)
    array = f"case when json_type(try_cast({text} as json)) = 'ARRAY' then try_cast({text} as json[]) end"
    read = f"list_transform({array}, lambda o: struct_pack({parts}))"
    return f"nullif(list_sort(list_distinct(list_filter({read}, lambda o: {filled}))), [])"


def _inner(attribute: Attribute, source: Source, text: str) -> str:
    """A value inside a list or a map, from its text as delivered."""
    return value_query(attribute, source, filled_query(text, tuple(attribute.placeholders)))


def readable_query(attribute: Attribute, source: Source, text: str, value: str) -> str | None:
    """Whether a filled text gave a value of its type; None for types that any text satisfies.

    A placeholder is missing, not unreadable.
    """
    kind = attribute.type
    if kind in {"birth_date", "date"}:
        parsed = date_query(text, source.dates, 1, placeholders=())
        words = ", ".join(literal(word) for word in MISSING_DATES)
        return f"({text} is null or {value} is not null or coalesce({parsed} in ({words}), false))"
    if kind == "email":
        words = ", ".join(literal(word) for word in MISSING_EMAILS)
        names = ", ".join(literal(word) for word in MISSING_EMAIL_NAMES)
        return (
            f"({text} is null or {value} is not null or lower({text}) in ({words})"
            f" or lower(split_part({text}, '@', 1)) in ({names}))"
        )
    if kind == "phone":
        digits = f"regexp_replace({text}, '[^0-9]', '', 'g')"
        return (
            f"({text} is null or {value} is not null or {digits} = repeat(left({digits}, 1), len({digits})))"
        )
    if kind == "map":
        return f"({text} is null or {_entries(text)} is not null)"
    if attribute.fields:
        return f"({text} is null or coalesce(json_type(try_cast({text} as json)) = 'ARRAY', false))"
    if kind in {"number", "integer", "boolean", "consent", "timestamp", "country", "gender"}:
        return f"({text} is null or {value} is not null)"
    return None


def value_type(attribute: Attribute) -> str:
    """The DuckDB type of a normalised field."""
    if attribute.fields:
        parts = ", ".join(f"{quote(name)} {value_type(attribute.field(name))}" for name in attribute.fields)
        return f"struct({parts})[]" if attribute.type == "list" else f"struct({parts})"
    if attribute.type == "map":
        return f"map(text, {value_type(value_of(attribute))})"
    special = {
        "number": "double", "integer": "bigint", "boolean": "boolean", "consent": "boolean", "date": "date",
        "timestamp": "timestamptz", "list": "text[]",
    }  # fmt: skip
    return special.get(attribute.type, "text")


def field_type(attribute: Attribute) -> str:
    """What a value of a field was read as: its semantic type, or that of its parts."""
    return value_type(attribute) if attribute.fields or attribute.type == "map" else attribute.type


def identifier_query(namespace: Namespace, source: Source, text: str) -> str:
    """The key of an identifier from its filled text: equal keys are the same identifier."""
    if namespace.type == "email":
        key = _email(text)
    elif namespace.type == "phone":
        key = _phone(text, source.country or "ZZ")
    elif namespace.type == "id":
        key = text
    else:
        key = f"upper({text})"
    # at most 1,024 characters, the limit that identity services share; a longer one is no identifier
    return f"(case when length({key}) <= 1024 then {key} end)"


def register(con: DuckDBPyConnection) -> None:
    """Make the field libraries available to SQL; each is called once per distinct value and batch."""
    from duckdb import func, sqltypes

    if scalar(con, "select count(*) from duckdb_functions() where function_name = 'e164'"):
        return
    functions: dict[str, tuple[Callable[..., str | None], int]] = {
        "e164": (e164, 2),
        "transliterated": (transliterated, 1),
        "international_email": (international_email, 1),
        "country_code": (country_code, 1),
    }
    for name, (function, arity) in functions.items():
        con.create_function(
            name,
            _by_distinct_value(function, arity),
            [sqltypes.VARCHAR] * arity,
            sqltypes.VARCHAR,
            type=func.ARROW,
            null_handling=func.SPECIAL,
        )


def _by_distinct_value(function: Callable[..., str | None], arity: int) -> Callable[..., pa.Array]:
    cached = functools.lru_cache(maxsize=500_000)(function)

    def one(column: pa.Array) -> pa.Array:
        return pa.array([None if v is None else cached(v) for v in column.to_pylist()], pa.string())

    def two(column: pa.Array, other: pa.Array) -> pa.Array:
        pairs = zip(column.to_pylist(), other.to_pylist(), strict=True)
        return pa.array([None if a is None else cached(a, b) for a, b in pairs], pa.string())

    return one if arity == 1 else two


def e164(text: str, region: str) -> str | None:
    """A valid phone number as E.164, or None; `region` reads numbers without a country code."""
    import phonenumbers

    candidate = "+" + text[2:] if text.startswith("00") else text
    try:
        number = phonenumbers.parse(candidate, None if region == "ZZ" else region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def transliterated(text: str) -> str:
    """Plain lower-case ASCII for any script."""
    from anyascii import anyascii

    return anyascii(text).lower()


def international_email(text: str) -> str | None:
    """An internationalised address in its normal form, or None when it is not valid."""
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(text, check_deliverability=False).normalized.lower()
    except EmailNotValidError:
        return None


def country_code(text: str) -> str | None:
    """ISO 3166-1 alpha-2 of a country name or code in its common spellings, or None."""
    import pycountry

    known = COUNTRY_NAMES.get(text.strip().lower())
    if known:
        return known
    try:
        return pycountry.countries.lookup(text.strip()).alpha_2
    except LookupError:
        return None


@functools.cache
def formal_names() -> dict[str, set[str]]:
    """Nickname to the formal names it may stand for; many to many (the `nicknames` data set)."""
    from nicknames import NickNamer

    found: dict[str, set[str]] = {}
    for nickname, formals in NickNamer().canonical_lookup.items():
        found[re.sub("[^a-z]", "", nickname)] = set(formals)
    return found
