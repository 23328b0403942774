"""All that the bot says, in every language it speaks."""

LANGUAGES = {"en": "English", "de": "Deutsch"}
DEFAULT = "en"

# By name and language; in braces what say() fills in.
TEXTS = {
    "start": {
        "en": "Hello {name}! Send me a photo or a short video with faces, and I send it back with the expression of "
        "every face.\n/help tells what else I can do and what I cannot, /privacy what I keep.",
        "de": "Hallo {name}! Schick mir ein Foto oder ein kurzes Video mit Gesichtern, und ich schicke es mit dem "
        "Ausdruck jedes Gesichts zurück.\n/help sagt, was ich sonst kann und was nicht, /privacy, was ich behalte.",
    },
    "help": {
        "en": "Send me a photo, an image as a file, an album, a short video, a video note or a GIF. It comes back with "
        "a box around every face and a line of text for each, from left to right; in a video the faces are numbered "
        "in the order in which they appear.\n\n"
        "“uncertain” means that no expression was clearly ahead.\n"
        "An expression is not an emotion: I read what a face shows, not what a person feels, and I can be wrong.\n\n"
        "Limits: files of up to {megabytes} MB, images of up to {megapixels} megapixels, videos of up to {seconds} s; "
        "{per_minute} pictures a minute, and a video counts as {video_cost}.\n\n"
        "/privacy – what I keep\n/forget – delete what I keep about you\n/language – English, Deutsch",
        "de": "Schick mir ein Foto, ein Bild als Datei, ein Album, ein kurzes Video, eine Videonachricht oder ein GIF. "
        "Es kommt mit einem Rahmen um jedes Gesicht zurück und mit einer Zeile Text zu jedem, von links nach rechts; "
        "in einem Video sind die Gesichter in der Reihenfolge nummeriert, in der sie erscheinen.\n\n"
        "„unsicher“ heißt, dass kein Ausdruck deutlich vorn lag.\n"
        "Ein Ausdruck ist kein Gefühl: Ich lese, was ein Gesicht zeigt, nicht, was ein Mensch fühlt, und ich kann "
        "mich irren.\n\n"
        "Grenzen: Dateien bis {megabytes} MB, Bilder bis {megapixels} Megapixel, Videos bis {seconds} s; {per_minute} "
        "Bilder in der Minute, und ein Video zählt wie {video_cost}.\n\n"
        "/privacy – was ich behalte\n/forget – löscht, was ich über dich behalte\n/language – English, Deutsch",
    },
    "privacy": {
        "en": "I keep your Telegram number, your language, when you first and last wrote, and how many messages you "
        "sent. Nothing else: your pictures and videos are deleted as soon as they are answered, and so is what was "
        "read in them. Telegram itself keeps our chat until you delete it.\n"
        "/forget deletes what I keep. If you write to me again, I keep it again.",
        "de": "Ich behalte deine Telegram-Nummer (nicht die des Telefons), deine Sprache, wann du zuerst und zuletzt "
        "geschrieben hast und wie viele Nachrichten es waren. Sonst nichts: Deine Bilder und Videos werden gelöscht, "
        "sobald sie beantwortet sind, ebenso, was darin gelesen wurde. Telegram selbst behält unseren Chat, bis du ihn "
        "löschst.\n/forget löscht, was ich behalte. Wenn du mir wieder schreibst, behalte ich es wieder.",
    },
    "forgotten": {
        "en": "Done: I have deleted what I kept about you.",
        "de": "Erledigt: Ich habe gelöscht, was ich über dich behalten hatte.",
    },
    "not_known": {
        "en": "There is nothing to delete: I keep nothing about you.",
        "de": "Es gibt nichts zu löschen: Ich behalte nichts über dich.",
    },
    "language": {
        "en": "I speak English with you. To change that:\n{choices}",
        "de": "Ich spreche Deutsch mit dir. Um das zu ändern:\n{choices}",
    },
    "language_of_telegram": {
        "en": "the language of your Telegram",
        "de": "die Sprache deines Telegram",
    },
    "hint": {
        "en": "I only understand pictures: send me a photo, an image as a file, or a short video. /help tells more.",
        "de": "Ich verstehe nur Bilder: Schick mir ein Foto, ein Bild als Datei oder ein kurzes Video. "
        "Mehr sagt /help.",
    },
    "face": {
        "en": "{number}. {label}, {percent}%{conditions}",
        "de": "{number}. {label}, {percent} %{conditions}",
    },
    "uncertain_face": {
        "en": "{number}. uncertain, perhaps {label} ({percent}%){conditions}",
        "de": "{number}. unsicher, vielleicht {label} ({percent} %){conditions}",
    },
    "face_in_video": {
        "en": "{number}. mostly {label} ({percent}% of the time)",
        "de": "{number}. meist {label} ({percent} % der Zeit)",
    },
    "uncertain_in_video": {
        "en": "{number}. mostly uncertain ({percent}% of the time)",
        "de": "{number}. meist unsicher ({percent} % der Zeit)",
    },
    "more_faces": {
        "en": "and {number} more, seen for a shorter time",
        "de": "und {number} weitere, kürzer zu sehen",
    },
    "tiny": {"en": "very small", "de": "sehr klein"},
    "turned": {"en": "turned away", "de": "abgewandt"},
    "edge": {"en": "cut off by the edge", "de": "vom Rand abgeschnitten"},
    "in_album": {
        "en": "Picture {number}:\n{text}",
        "de": "Bild {number}:\n{text}",
    },
    "no_face": {
        "en": "I found no face. Faces should be sharp, not too small, and turned to the camera.",
        "de": "Ich habe kein Gesicht gefunden. Gesichter sollten scharf sein, nicht zu klein und zur Kamera gewandt.",
    },
    "file_too_large": {
        "en": "That is too large: Telegram hands me files of up to {limit} MB. Send a smaller one.",
        "de": "Das ist zu groß: Telegram gibt mir Dateien bis {limit} MB. Schick eine kleinere.",
    },
    "image_too_large": {
        "en": "That is too large: I read images of up to {limit} megapixels. Scale it down, or send it as a photo.",
        "de": "Das ist zu groß: Ich lese Bilder bis {limit} Megapixel. Verkleinere es, oder schick es als Foto.",
    },
    "video_too_large": {
        "en": "That is too large: I read videos of up to {width}x{height} pixels. Send it in a smaller size.",
        "de": "Das ist zu groß: Ich lese Videos bis {width}x{height} Pixel. Schick es in einer kleineren Größe.",
    },
    "video_too_long": {
        "en": "That video is too long: I read up to {limit} s. Cut it and send the part you mean.",
        "de": "Das Video ist zu lang: Ich lese bis {limit} s. Schneide es und schick den Teil, um den es geht.",
    },
    "answer_too_large": {
        "en": "With its boxes the video became larger than the {limit} MB that I may send. Send a shorter one.",
        "de": "Mit den Rahmen wurde das Video größer als die {limit} MB, die ich senden darf. Schick ein kürzeres.",
    },
    "not_an_image": {
        "en": "That is not an image that I can read, or it is damaged. Send a JPEG, PNG, WebP or the like, "
        "and a HEIC as a photo, not as a file.",
        "de": "Das ist kein Bild, das ich lesen kann, oder es ist beschädigt. Schick ein JPEG, PNG, WebP "
        "oder Ähnliches, und ein HEIC als Foto, nicht als Datei.",
    },
    "not_a_video": {
        "en": "That is not a video that I can read, or it is damaged. Send an MP4 or the like.",
        "de": "Das ist kein Video, das ich lesen kann, oder es ist beschädigt. Schick ein MP4 oder Ähnliches.",
    },
    "busy": {
        "en": "That was a lot at once. Try again in {seconds} s; what comes before then I leave unanswered.",
        "de": "Das war viel auf einmal. Versuch es in {seconds} s wieder; was vorher kommt, lasse ich unbeantwortet.",
    },
    "stopping": {
        "en": "I am being restarted. Send that again in a minute.",
        "de": "Ich werde gerade neu gestartet. Schick das in einer Minute noch einmal.",
    },
    "fault": {
        "en": "That was my fault, not yours: something went wrong in here. Try again; if it stays so, tell "
        "whoever runs me the number {reference}.",
        "de": "Das war mein Fehler, nicht deiner: Bei mir ging etwas schief. Versuch es noch einmal; bleibt es so, "
        "nenne dem, der mich betreibt, die Nummer {reference}.",
    },
    "command_start": {"en": "say hello", "de": "sag hallo"},
    "command_help": {"en": "what I can do, and my limits", "de": "was ich kann, und meine Grenzen"},
    "command_privacy": {"en": "what I keep", "de": "was ich behalte"},
    "command_forget": {"en": "delete what I keep about you", "de": "löscht, was ich über dich behalte"},
    "command_language": {"en": "English, Deutsch", "de": "English, Deutsch"},
}

# Models' labels, FER2013's and FER+'s. English says them as they are drawn, and so is a label that is missing here.
LABELS = {
    "de": {
        "angry": "wütend",
        "anger": "wütend",
        "disgust": "Ekel",
        "fear": "Angst",
        "happy": "fröhlich",
        "happiness": "fröhlich",
        "sad": "traurig",
        "sadness": "traurig",
        "surprise": "überrascht",
        "neutral": "neutral",
        "contempt": "Verachtung",
    }
}


def say(language: str, name: str, /, **values: object) -> str:
    """A text of TEXTS in one of LANGUAGES, filled in."""
    return TEXTS[name][language].format(**values)


def label_in(language: str, label: str) -> str:
    return LABELS.get(language, {}).get(label, label)


def language_of(tag: str | None) -> str:
    """The one of LANGUAGES that an IETF tag such as "de-AT" means, or DEFAULT."""
    primary = (tag or "").split("-")[0].lower()
    return primary if primary in LANGUAGES else DEFAULT
