"""The words of the synthetic database: a vocabulary in which words belong to topics, and explanations that name both.

The most frequent tokens are function words, then come the words of the topics. The rest is made of syllables.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

FUNCTION_WORDS = """the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were
all her she there would their we him been has when who will no more if out so said what up its about than into them can only other time new
some could these two may first then do any like my now over such our man me even most made after also did many off before must well back
through years much where your way down should because long each just state those people too""".split()
PUNCTUATION = [",", ".", ":", ";", "!", "?", "(", ")", '"', "'", "-", "\\n", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
TOPICS = {
    "capital cities": "Paris Berlin Madrid Rome Lisbon Vienna Warsaw Athens Oslo Cairo Tokyo capital",
    "countries of Europe": "France Germany Spain Italy Portugal Austria Poland Greece Norway Sweden Hungary Ireland",
    "years and dates": "year century decade January March June October Monday Friday calendar date anniversary",
    "opposites": "hot cold large small open closed early late light dark high low",
    "French words": "le la les une est dans pour avec sur pas mais plus",
    "German words": "der die das und ist nicht mit auf ein eine von Stadt",
    "animals": "dog cat horse cow sheep lion tiger bird fish wolf bear rabbit",
    "weather": "rain snow wind storm cloud sun thunder fog hail frost breeze drought",
    "food": "bread cheese wine apple soup rice meat sugar butter salt dinner cook",
    "family": "mother father brother sister daughter son wife husband uncle aunt cousin parents",
    "medicine": "doctor patient nurse hospital disease fever surgery vaccine blood symptom therapy dose",
    "law": "court judge trial lawyer verdict guilty appeal statute jury crime prison sentence",
    "money": "bank price dollar euro market interest loan debt tax profit budget wages",
    "war": "army soldier battle weapon general attack siege treaty troops enemy navy victory",
    "music": "song violin piano rhythm melody orchestra guitar chord singer album concert opera",
    "football": "goal match league striker penalty referee stadium coach season keeper defender kick",
    "chemistry": "acid oxygen carbon molecule reaction catalyst solvent polymer ion salt electron bond",
    "physics": "energy force mass quantum particle wave gravity field photon velocity momentum entropy",
    "mathematics": "theorem proof integer matrix vector prime equation function graph sum limit set",
    "Python code": "def return import class self lambda yield None True elif assert print",
    "markup": "<div> </p> href= <a <br> class= style= <span> </li> <table> <h1> <img",
    "colours": "red blue green yellow black white purple orange grey brown pink violet",
    "parts of the body": "hand head foot eye heart arm leg face shoulder finger knee ear",
    "clothes": "coat shirt dress hat shoes gloves trousers scarf boots jacket collar sleeve",
    "houses": "door window roof kitchen wall floor stairs garden chimney room cellar attic",
    "travel": "train ship road station airport ticket passport luggage harbour bridge journey hotel",
    "religion": "church god prayer priest bible temple saint monk faith soul bishop sermon",
    "schools": "school teacher student lesson exam university pupil grammar college class degree homework",
    "elections": "vote election party minister parliament president candidate ballot campaign senate mayor poll",
    "rivers and mountains": "river mountain valley lake hill forest island coast desert stream peak glacier",
    "plants": "tree leaf root flower seed grass rose oak branch fruit moss pine",
    "feelings": "love fear anger joy grief hope shame pride envy sorrow delight courage",
    "numbers in words": "three four five six seven eight nine ten hundred thousand million dozen",
    "negation": "never nothing nobody neither nor none without refuse deny unable cannot hardly",
    "speech": "says asked replied whispered shouted answered told explained added claimed argued spoke",
    "comparison": "better worse larger smaller faster slower stronger weaker older younger taller shorter",
    "places in a sentence": "however therefore moreover although whereas meanwhile nevertheless thus instead besides hence otherwise",
    "shapes": "circle square triangle line sphere cube curve angle cone cylinder ellipse polygon",
    "computers": "server network software keyboard file memory processor database browser screen password compiler",
    "stars": "star planet moon orbit galaxy comet telescope asteroid Mars Venus Jupiter eclipse",
}
START, VOWEL, END = (
    "b c d f g h j k l m n p r s t v w z br cl dr gr pl st tr".split(),
    "a e i o u ai ea ou".split(),
    " n r s t l nd st".split(" "),
)
PATTERNS = (
    "words about {topic}, such as '{one}' and '{two}'",
    "fires on '{token}' in text about {topic}",
    "the token '{token}' where '{one}' came before it, mostly on {topic}",
    "{topic}: '{one}', '{two}' and the like",
    "the end of a phrase on {topic}, often followed by '{two}'",
    "'{token}' or '{one}' in a list of {topic}",
)


class Vocabulary(NamedTuple):
    """strings [n]: token 0 is <bos>, the others the more frequent the earlier. topic [n]: of each token. by_topic: the tokens sorted by topic;
    begin [n_topics + 1]: where each begins there."""

    strings: list
    topic: np.ndarray
    by_topic: np.ndarray
    begin: np.ndarray

    def __len__(self):
        return len(self.strings)


def vocabulary(n, seed):
    """A `Vocabulary` of n tokens, as many real words as there is room for."""
    rng = np.random.default_rng(seed)
    words = [(" " + word, number) for number, text in enumerate(TOPICS.values()) for word in text.split()]
    words = [words[index] for index in rng.permutation(len(words))]
    known = [("<bos>", 0), *((text, 0) for text in PUNCTUATION), *((" " + word, 0) for word in FUNCTION_WORDS)]
    topic_of = {}
    for string, topic in [*known, *words]:
        topic_of.setdefault(string, topic)
    while len(topic_of) < n:
        made = syllables(rng, n)
        topic_of |= {
            word: topic
            for word, topic in zip(made, rng.integers(0, len(TOPICS), n).tolist(), strict=True)
            if word not in topic_of
        }
    strings = list(topic_of)[:n]
    topic = np.array([topic_of[string] for string in strings])
    by_topic = np.argsort(topic, kind="stable")
    return Vocabulary(strings, topic, by_topic, np.searchsorted(topic[by_topic], np.arange(len(TOPICS) + 1)))


def syllables(rng, n):
    """n made-up words of one to three syllables, some of which go on with a word."""
    parts = [[choices[i] for i in rng.integers(0, len(choices), (3 * n))] for choices in (START, VOWEL, END)]
    single = ["".join(part) for part in zip(*parts, strict=True)]
    count, space = rng.integers(1, 4, n).tolist(), (rng.random(n) < 0.7).tolist()
    return [" " * space[i] + "".join(single[3 * i : 3 * i + count[i]]) for i in range(n)]


def explanations(vocabulary, token, topic, rng):
    """A text [n] for features that fire on `token` [n] and are about `topic` [n]."""
    words = [text.split() for text in TOPICS.values()]
    first = rng.integers(0, 12, len(token))
    second = (first + rng.integers(1, 11, len(token))) % 12
    frame = pl.DataFrame(
        {
            "topic": np.array(list(TOPICS))[topic],
            "one": [words[t][i] for t, i in zip(topic.tolist(), first.tolist(), strict=True)],
            "two": [words[t][i] for t, i in zip(topic.tolist(), second.tolist(), strict=True)],
            "token": [vocabulary.strings[t].strip() for t in token.tolist()],
            "pattern": rng.integers(0, len(PATTERNS), len(token)),
        }
    )
    texts = pl.lit(None, pl.String)
    for number, pattern in enumerate(PATTERNS):
        names = [part.split("}")[0] for part in pattern.split("{")[1:]]
        text = pl.format("".join(["{}" + part.split("}")[1] if "}" in part else part for part in pattern.split("{")]), *names)
        texts = pl.when(pl.col("pattern") == number).then(text).otherwise(texts)
    return frame.select(texts.alias("text"))["text"]
