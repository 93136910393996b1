"""What column names mean, in languages of Europe.

English, German, French, Spanish, Italian, Polish, Dutch, Nordic, Portuguese and Czech.
Names are compared without accents, case and separators. A word in EXACT_ONLY means its field only when it is the
whole name, or follows a word for a person: `name` of a customer, but not of a store.
"""

import re
import unicodedata
from dataclasses import dataclass

FIELD_NAMES = {
    "given_name": """firstname forename givenname given vorname prenom nombre nome imie voornaam fornavn fornamn
        etunimi fname first christianname rufname jmeno nombredepila primernombre""",
    "middle_name": """middlename middle secondname middleinitial zweitername deuxiemeprenom segundonombre mname
        mellannamn mellomnavn drugieimie""",
    "family_name": """lastname surname familyname family nachname nom nomdefamille apellido apellidos cognome
        nazwisko achternaam etternavn efternavn efternamn sukunimi lname last zuname sobrenome prijmeni
        primerapellido""",
    "full_name": """fullname name customername contactname personname vollername vollstaendigername nomcomplet
        nombrecompleto nomecompleto naam navn namn displayname cardholder cardholdername nomprenom""",
    "birth_date": """dob dateofbirth birthdate born birthday geburtsdatum geburtstag gebdatum gebdat datedenaissance
        datenaissance fechadenacimiento fechanacimiento datadinascita datanascita dataurodzenia geboortedatum
        birth geburt naissance nacimiento nascita
        fodselsdato fodselsdag fodelsedatum syntymaaika datadenascimento datumnarozeni bday birthyear yearofbirth""",
    "gender": """gender sex geschlecht sexe sexo sesso plec geslacht kjonn kon sukupuoli genero pohlavi salutation
        anrede civilite""",
    "email": """email emailaddress mail mailaddress correo correoelectronico courriel epost emailadresse mailadresse
        adresseemail adressemail epostadresse sahkoposti emailid""",
    "phone": """phone telephone tel telefon telefono telefone mobile mobil cell cellphone handy phonenumber
        mobilenumber mobilephone telephonenumber telefonnummer telefonnr handynummer mobilnummer telephoneportable
        portable gsm puhelin movil celular cellulare msisdn landline rufnummer telefoon telefoonnummer nrtelefonu""",
    "street_address": """street streetaddress streetname address address1 addressline1 line1 strasse str adresse
        anschrift rue calle via direccion indirizzo ulica straat gate gata katu rua endereco addressfull fulladdress
        postaladdress homeaddress adres adresse1 strassehausnummer road""",
    "house_number": """housenumber houseno streetnumber streetno hausnummer hausnr numerocivico numerorue nrdomu
        huisnummer buildingnumber husnummer numerodecalle housenum""",
    "city": """city town posttown ort stadt ville ciudad citta miasto plaats woonplaats stad kaupunki cidade
        localidad suburb locality wohnort commune municipality mesto poststed postort""",
    "postcode": """postcode postalcode zip zipcode plz postleitzahl codepostal codigopostal cap kodpocztowy postnummer
        postinumero cep pcode cp postnr psc""",
    "region": """state region province county bundesland departement provincia wojewodztwo provincie kanton canton
        prefecture stateprovince""",
    "country": """country countrycode countryname land pays pais paese kraj maa nation iso2 landcode laenderkennzeichen
        countryofresidence zeme""",
    "national_id": """ssn socialsecuritynumber nino nationalinsurancenumber nationalid nationalidnumber idnumber pesel
        dni nif nie curp cpf codicefiscale personnummer cprnummer bsn taxid steuerid socsecid personalid rodnecislo""",
    "consent": """consent marketingconsent optin emailoptin smsoptin marketing marketingoptin newsletter
        newsletteroptin subscribed gdpr gdprconsent einwilligung werbeeinwilligung consentement consentimiento
        consenso allowmarketing emailconsent marketingpermission zgodamarketingowa""",
}
MATCHED_CATEGORIES = """occupation job jobtitle profession beruf metier profesion birthplace placeofbirth geburtsort
    lieudenaissance lugardenacimiento luogodinascita birthcountry countryofbirth birthcity cityofbirth townofbirth
    nationality nationalitaet nationalite nacionalidad"""
"""Facts about a person that seldom change: evidence that two records are the same person."""

NAMESPACE_NAMES = {
    "crm_id": """customerid customernumber customerno customernr custid custno crmid clientnumber clientno contactid
        personid partyid subscriberid patientid kundennummer kundennr kundenid kundeid klantnummer klantid numeroclient
        idclient idcliente numerocliente codicecliente nrklienta idklienta cislozakaznika""",
    "loyalty_card": """loyaltyid loyaltycard loyaltynumber loyaltycardnumber loyaltyno cardnumber cardno membershipid
        membershipnumber membershipno memberid memberno membernumber rewardsid rewardsnumber clubcard kundenkarte
        bonuskarte cartefidelite numerofidelite tarjetafidelidad cartafedelta""",
    "account_id": """accountid accountno account userid useraccount username login loginid webid shopaccount
        shopaccountid shopid benutzerid benutzername""",
    "card_token": "cardtoken paymenttoken paymentcardtoken cardhash paymentcard cardfingerprint",
    "device": "deviceid device idfa aaid gaid advertisingid installationid androidid appinstanceid pushtoken",
    "cookie": "cookie cookieid visitorid anonymousid anonid browserid clientcookie ecid fpid gaclientid",
}
EVENT_WORDS = """order transaction event purchase receipt invoice ticket visit click message booking payment basket
    sale log hit interaction activity call bestellung bestell auftrag commande pedido ordine zamowienie bon beleg"""
ID_WORDS = "id key number no nr num ref reference uuid guid code nummer numero"
UPDATED_WORDS = """updated modified changed update lastupdate lastmodified lastchanged asof validfrom effective snapshot
    version geaendert geandert aktualisiert modification maj actualizado aggiornato modifiedat updatedat changedat
    lastupdated stand"""
HAPPENED_WORDS = """occurred ordered sold happened timestamp time datetime eventtime orderdate ordertime created
    purchased visited sent opened clicked received booked placed date datum zeit zeitpunkt ts fecha data"""
TYPE_NAMES = "type eventtype event eventname action activity activitytype"
CHANNEL_NAMES = "channel kanal canal medium canale"
PERSON_WORDS = {"customer", "client", "contact", "person", "member", "user", "recipient", "holder", "patient", "guest",
                "subscriber", "kunde", "kunden", "cliente", "klant", "cust", "buyer"}  # fmt: skip
EXACT_ONLY = {
    "name", "first", "last", "given", "family", "middle", "mail", "tel", "cell", "portable", "address", "state",
    "land", "nom", "nome", "nombre", "via", "cap", "cp", "str", "kon", "data", "ort", "account", "login", "device",
    "region", "nation", "marketing", "event", "type", "gate", "nie", "sex", "road", "line1", "street", "job",
    "username", "cookie", "stad", "zip", "city", "country", "idnumber", "date", "time", "handy", "naam", "navn",
    "namn", "birth", "geburt", "naissance", "nacimiento", "nascita",
}  # fmt: skip
NAME_PARTS = {"first", "last", "given", "family", "middle", "title", "prefix", "suffix", "initial", "initials", "salutation",
              *" ".join(FIELD_NAMES[each] for each in ("given_name", "middle_name", "family_name")).split()}  # fmt: skip
"""What follows the word `name` in front of a part of a name: `name.first`, but also `customer_name_title`."""
LOOSE = {"street", "zip", "city", "country", "sex", "mail", "tel", "cell"}
"""Words in EXACT_ONLY that may also follow words such as `billing` or `home`."""
NOT_A_PERSON = {"store", "shop", "product", "item", "page", "campaign", "file", "brand", "event", "ip", "mac", "web",
                "merchant", "branch", "segment", "tier", "order", "currency", "filiale", "produkt"}  # fmt: skip


@dataclass(frozen=True)
class NameMatch:
    """What a name says: a field or namespace, and how sure it is (0 to 1)."""

    meaning: str
    strength: float


def words(name: str) -> list[str]:
    """The words of a column name, lower case, without accents: CustomerE-Mail gives customer, e, mail."""
    return re.findall(r"[a-z]+|\d+", _plain(name))


def _plain(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("ß", "ss"))
    return unicodedata.normalize("NFKD", spaced).encode("ascii", "ignore").decode().lower()


def _lookup(table: dict[str, str]) -> dict[str, str]:
    return {word: meaning for meaning, listed in table.items() for word in listed.split()}


FIELDS = _lookup(FIELD_NAMES)
NAMESPACES = _lookup(NAMESPACE_NAMES)
MATCHED = set(MATCHED_CATEGORIES.split())


def field_of(name: str) -> NameMatch | None:
    """The field a column name means, or None."""
    parts = words(name)
    if "".join(parts) in MATCHED:
        return NameMatch("matched_category", 1.0)
    return _best(parts, FIELDS)


def namespace_of(name: str) -> NameMatch | None:
    """The identifier namespace a column name means, or None."""
    return _best(words(name), NAMESPACES)


def _best(parts: list[str], table: dict[str, str]) -> NameMatch | None:
    """The longest run of words that is known; the whole name counts most, then its end."""
    found: list[tuple[bool, int, float, str]] = []
    for start in range(len(parts)):
        for end in range(len(parts), start, -1):
            run = "".join(parts[start:end])
            strength = _strength(parts, start, end, run)
            if run in table and strength:
                found.append((strength == 1.0, len(run), strength, table[run]))
    if not found:
        return None
    *_, strength, meaning = max(found)
    return NameMatch(meaning, strength)


def _strength(parts: list[str], start: int, end: int, run: str) -> float:
    before, after = parts[:start], parts[end:]
    if not before and not after:
        return 1.0
    if FIELDS.get(run) == "full_name" and NAME_PARTS & {*after}:
        return 0.0
    owners = PERSON_WORDS | {"name"} if run in NAME_PARTS else PERSON_WORDS
    if run in EXACT_ONLY and not (set(before) <= owners and not after) and (run not in LOOSE or after):
        return 0.0
    if NOT_A_PERSON & {*before, *after}:
        return 0.0
    return 0.9 if not after else 0.75


def namespace_in(source: str, name: str) -> str | None:
    """The namespace that a column name means behind the name of its source: `card` of `loyalty`, `id` of `customers`."""
    for owner in (source, source.removesuffix("s")):
        found = namespace_of(f"{owner} {name}")
        if found and found.strength == 1.0:
            return found.meaning
    return None


def says(name: str, listed: str) -> bool:
    """Whether a name, or a word of it, is one of the listed words."""
    known = set(listed.split())
    parts = words(name)
    return bool(known & {*parts, "".join(parts)})


def names_event(name: str) -> bool:
    """Whether a name is that of an event's id: order_id, transaction no, eventId."""
    return says(name, EVENT_WORDS) and says(name, ID_WORDS)


def slug(name: str) -> str:
    """A name fit for a field: lower case, digits and underscores, starting with a letter."""
    parts = re.findall(r"[a-z0-9]+", _plain(name))
    return re.sub(r"^(?=\d)", "c_", "_".join(parts))[:50] or "column"
