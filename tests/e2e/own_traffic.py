"""Prompts of a helpdesk that does not write English: German tickets, SQL, JSON from mails, and real paragraphs."""

from __future__ import annotations

import json
import random

from calibration.texts.packaged import packaged_calibration

_OPENINGS = ("Seit gestern Abend hat", "Nach dem Umzug in das neue Büro hat", "Wie schon im März hat", "Leider hat")
_DEVICES = ("der Drucker im dritten Stock", "das Kassensystem der Filiale", "unser Telefon", "der Scanner im Lager")
_FAULTS = (
    "keine Verbindung mehr.",
    "alle Einstellungen vergessen.",
    "den Dienst eingestellt.",
    "zwei Fehler gemeldet.",
)
_TRIED = ("Ein Neustart half nicht.", "Wir haben das Kabel getauscht.", "Die Anleitung sagt dazu nichts.", "")
_WISHES = ("Bitte um Rückruf bis Freitag.", "Wann kommt ein Techniker?", "Gibt es dafür ein Ersatzgerät?")
_REMARKS = (
    *("Der Vertrag läuft noch bis Juni.", "Die Rechnung ist bezahlt.", "Meine Kollegin kennt das Passwort nicht."),
    *("Am Dienstag war alles noch in Ordnung.", "Der Fehler tritt nur morgens auf.", "Das Licht blinkt rot."),
    *("Wir brauchen das Gerät für die Inventur.", "Der Schlüssel liegt beim Pförtner.", "Es eilt nicht sehr."),
    *("Ein Foto hängt an.", "Ihr Kollege war schon einmal hier.", "Das Modell ist vier Jahre alt."),
)
_TABLES = ("auftraege", "kunden", "lieferungen", "rechnungen", "artikel", "mahnungen", "lager")
_COLUMNS = ("betrag", "datum", "kunde_id", "ort", "menge", "status", "gewicht", "land", "frist", "rabatt")
_GOODS = ("Lampen", "Stühle", "Regale", "Bohrer", "Dichtungen", "Filter", "Schrauben", "Kabel", "Pumpen")
_TOWNS = ("Kassel", "Lübeck", "Graz", "Winterthur", "Bozen", "Gera", "Trier", "Passau")


def written_traffic(seed: int = 16) -> dict[str, list[str]]:
    """Return prompts by the route that they came in on; the first three are templates, the last was written by people.

    The same seed gives the same prompts.
    """
    chance = random.Random(seed)  # noqa: S311  (must be repeatable, not secret)
    return {
        "tickets": [_ticket(chance) for _ in range(300)],
        "reports": [_query(chance) for _ in range(200)],
        "orders": [_extraction(chance) for _ in range(200)],
        "letters": [text for kind, text in packaged_calibration() if kind == "german"],
    }


def _ticket(chance: random.Random) -> str:
    return (
        f"Ticket {chance.randrange(4000, 9000)}: {chance.choice(_OPENINGS)} {chance.choice(_DEVICES)} "
        f"{chance.choice(_FAULTS)} {chance.choice(_TRIED)} {chance.choice(_WISHES)} "
        f"{' '.join(chance.sample(_REMARKS, 4))}"
    )


def _query(chance: random.Random) -> str:
    one, other, third, fourth = chance.sample(_COLUMNS, 4)
    table, joined = chance.sample(_TABLES, 2)
    return (
        f"SELECT {one}, {other}, SUM({third}) AS summe_{third}\nFROM {table}\n"
        f"JOIN {joined} ON {joined}.{other} = {table}.{other}\n"
        f"WHERE {table}.{fourth} > {chance.randrange(10, 900)} AND {joined}.ort = '{chance.choice(_TOWNS)}'\n"
        f"GROUP BY {one}, {other}\nORDER BY summe_{third} DESC\nLIMIT {chance.randrange(5, 100)};"
    )


def _extraction(chance: random.Random) -> str:
    mail = {
        "absender": {"ort": chance.choice(_TOWNS), "kunde": chance.randrange(10_000, 99_999)},
        "posten": [
            {"artikel": goods, "menge": chance.randrange(2, 90), "preis": chance.randrange(100, 9000) / 100}
            for goods in chance.sample(_GOODS, 3)
        ],
        "bemerkung": " ".join(chance.sample(_REMARKS, 2)),
    }
    return json.dumps(mail, ensure_ascii=False, indent=1)
