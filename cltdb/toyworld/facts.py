"""The written-out world. Every word is one token; facts are true."""

from typing import NamedTuple

LANGUAGES = ("en", "fr", "de")


class Country(NamedTuple):
    """Names by language; `french` is the name with its article; cities: further cities, used in English."""

    name: dict
    french: str
    capital: dict
    cities: tuple


def _country(en, french, de, capital, cities):
    fr = french.split("'")[-1].split(" ")[-1]
    capitals = capital.split("/") if "/" in capital else [capital] * 3
    return Country({"en": en, "fr": fr, "de": de}, french, dict(zip(LANGUAGES, capitals, strict=True)), tuple(cities.split()))


COUNTRIES = tuple(
    _country(*row)
    for row in (
        ("France", "la France", "Frankreich", "Paris", "Lyon Marseille Toulouse"),
        ("Germany", "l'Allemagne", "Deutschland", "Berlin", "Hamburg Dresden Leipzig"),
        ("Italy", "l'Italie", "Italien", "Rome/Rome/Rom", "Milan Turin Naples"),
        ("Spain", "l'Espagne", "Spanien", "Madrid", "Barcelona Valencia Seville"),
        ("Portugal", "le Portugal", "Portugal", "Lisbon/Lisbonne/Lissabon", "Porto Braga Coimbra"),
        ("Austria", "l'Autriche", "Österreich", "Vienna/Vienne/Wien", "Graz Linz Salzburg"),
        ("Poland", "la Pologne", "Polen", "Warsaw/Varsovie/Warschau", "Krakow Gdansk Poznan"),
        ("Russia", "la Russie", "Russland", "Moscow/Moscou/Moskau", "Kazan Samara Omsk"),
        ("Greece", "la Grèce", "Griechenland", "Athens/Athènes/Athen", "Patras Larissa Volos"),
        ("Sweden", "la Suède", "Schweden", "Stockholm", "Malmo Uppsala Lund"),
        ("Norway", "la Norvège", "Norwegen", "Oslo", "Bergen Trondheim Stavanger"),
        ("Denmark", "le Danemark", "Dänemark", "Copenhagen/Copenhague/Kopenhagen", "Aarhus Odense Aalborg"),
        ("Finland", "la Finlande", "Finnland", "Helsinki", "Tampere Turku Oulu"),
        ("Hungary", "la Hongrie", "Ungarn", "Budapest", "Szeged Debrecen Pecs"),
        ("Ireland", "l'Irlande", "Irland", "Dublin", "Cork Galway Limerick"),
        ("Belgium", "la Belgique", "Belgien", "Brussels/Bruxelles/Brüssel", "Ghent Bruges Liege"),
        ("Japan", "le Japon", "Japan", "Tokyo/Tokyo/Tokio", "Osaka Kyoto Nagoya"),
        ("China", "la Chine", "China", "Beijing/Pékin/Peking", "Shanghai Wuhan Xian"),
        ("Vietnam", "le Vietnam", "Vietnam", "Hanoi/Hanoï/Hanoi", "Hue Danang Haiphong"),
        ("Thailand", "la Thaïlande", "Thailand", "Bangkok", "Phuket Pattaya Krabi"),
        ("Jordan", "la Jordanie", "Jordanien", "Amman", "Zarqa Irbid Aqaba"),
        ("Morocco", "le Maroc", "Marokko", "Rabat", "Casablanca Fez Agadir"),
        ("Kenya", "le Kenya", "Kenia", "Nairobi", "Mombasa Kisumu Nakuru"),
        ("Ghana", "le Ghana", "Ghana", "Accra", "Kumasi Tamale Tema"),
        ("Senegal", "le Sénégal", "Senegal", "Dakar", "Thies Touba Kaolack"),
        ("Canada", "le Canada", "Kanada", "Ottawa", "Toronto Montreal Calgary"),
        ("Peru", "le Pérou", "Peru", "Lima", "Cusco Arequipa Trujillo"),
        ("Chile", "le Chili", "Chile", "Santiago", "Valparaiso Concepcion Temuco"),
        ("Ecuador", "l'Équateur", "Ecuador", "Quito", "Guayaquil Cuenca Ambato"),
        ("Australia", "l'Australie", "Australien", "Canberra", "Sydney Melbourne Perth"),
    )
)

# Two-hop facts ("the capital of the country that contains X") never written in training text: the last city of every third country.
HELD_OUT_CITIES = tuple(country.cities[-1] for country in COUNTRIES[::3])

OPPOSITES = {
    "en": tuple(
        pair.split("/")
        for pair in (
            "hot/cold big/small old/new fast/slow high/low rich/poor light/dark strong/weak full/empty happy/sad early/late near/far dry/wet "
            "hard/soft long/short open/closed clean/dirty sweet/bitter wide/narrow deep/shallow"
        ).split()
    ),
    "fr": tuple(
        pair.split("/")
        for pair in (
            "chaud/froid grand/petit vieux/nouveau rapide/lent haut/bas riche/pauvre clair/sombre fort/faible plein/vide heureux/triste tôt/tard "
            "proche/loin sec/humide dur/mou long/court ouvert/fermé propre/sale doux/amer large/étroit profond/superficiel"
        ).split()
    ),
    "de": tuple(
        pair.split("/")
        for pair in (
            "heiß/kalt groß/klein alt/neu schnell/langsam hoch/niedrig reich/arm hell/dunkel stark/schwach voll/leer glücklich/traurig früh/spät "
            "nah/fern trocken/nass hart/weich lang/kurz offen/geschlossen sauber/schmutzig süß/bitter breit/schmal tief/flach"
        ).split()
    ),
}

NAMES = tuple("Mary John Anna Peter Lucy Tom Emma Paul Sara David Julia Mark Laura Simon Clara Henry".split())
PLACES = tuple("store park school market garden station library museum".split())
OBJECTS = tuple("drink book ball letter ring cup key flower".split())
EVENTS = tuple("war voyage reign strike drought project".split())
MODULUS = 10
CENTURIES = tuple(range(11, 20))
