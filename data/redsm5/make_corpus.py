"""Write the SYNTHETIC stand-in corpus in the schema of ReDSM5.

    python data/redsm5/make_corpus.py [--out DIR]

Every sentence is put together here from material written for this script.  No sentence of a
real post is in it, and nothing of the real, gated ReDSM5.  The script uses the standard library
and a fixed seed only, so that two runs write the same bytes.

How a sentence comes about
--------------------------
* A *phrase* says a symptom in the base form (``lie awake until dawn``) and can be rendered for
  any person, tense and polarity (see :class:`Phrase`).
* A *frame* sets that phrase into a scope (see :data:`FRAMES`).  Frames come in pairs with nearly
  the same words: one side leaves the symptom true of the writer at present (status 1), the
  other side takes it away (status 0): denied, only imagined, someone else's, over, or explained
  by a harmless cause.
* The sixth kind of status 0, *off criterion*, is a true complaint of another symptom than the
  one it is annotated with.

So the label follows from who, when, whether and which, and not from single words.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SEED = 20131
N_POSTS = 1484
N_ANNOTATIONS = 1547
MIN_SENTENCES, MAX_SENTENCES = 3, 12
MIN_WORDS, MAX_WORDS = 5, 35
MAX_SYMPTOMS_PER_POST = 4
FILLER_TRIES = 20

#: Chances: of a lead-in, an afterthought, short forms, an all lower-case post, an opening and a
#: closing line; and of a scoped frame where a bare assertion could stand.
P_PREFIX, P_SUFFIX, P_SHORT, P_LOWER, P_OPENER, P_CLOSER = 0.2, 0.1, 0.7, 0.08, 0.4, 0.4
P_SCOPED = 0.15

#: Distinct posts annotated per symptom, whatever the status.
POSTS_PER_SYMPTOM: dict[str, int] = {
    "DEPRESSED_MOOD": 328,
    "ANHEDONIA": 124,
    "APPETITE_CHANGE": 44,
    "SLEEP_ISSUES": 102,
    "PSYCHOMOTOR": 35,
    "FATIGUE": 124,
    "WORTHLESSNESS": 311,
    "COGNITIVE_ISSUES": 59,
    "SUICIDAL_THOUGHTS": 165,
    "SPECIAL_CASE": 92,
}
SYMPTOMS: tuple[str, ...] = tuple(POSTS_PER_SYMPTOM)
N_PLAIN_POSTS = 392

#: Share of status 1 within each symptom.
POSITIVE_SHARE = 0.51

#: Symptoms too close to tell apart fairly: never set against each other.
CLOSE: tuple[frozenset[str], ...] = tuple(
    frozenset(pair.split("/"))
    for pair in (
        "DEPRESSED_MOOD/ANHEDONIA",
        "DEPRESSED_MOOD/WORTHLESSNESS",
        "DEPRESSED_MOOD/SUICIDAL_THOUGHTS",
        "DEPRESSED_MOOD/SPECIAL_CASE",
        "DEPRESSED_MOOD/FATIGUE",
        "WORTHLESSNESS/SUICIDAL_THOUGHTS",
        "WORTHLESSNESS/SPECIAL_CASE",
        "SLEEP_ISSUES/FATIGUE",
        "PSYCHOMOTOR/FATIGUE",
        "PSYCHOMOTOR/COGNITIVE_ISSUES",
        "PSYCHOMOTOR/SPECIAL_CASE",
        "ANHEDONIA/FATIGUE",
        "ANHEDONIA/SUICIDAL_THOUGHTS",
        "ANHEDONIA/WORTHLESSNESS",
        "APPETITE_CHANGE/SPECIAL_CASE",
    )
)

# --------------------------------------------------------------------------------------------
# Phrases.  Notation: "verb rest" is said of the person; "subject | verb rest" has a subject of
# its own ("|+" if plural).  A leading "-" means that the symptom is the *denial* of the phrase.
# {I} {my} {me} {self} stand for the person, [verb] is a further verb that agrees with it.
# --------------------------------------------------------------------------------------------
PHRASES: dict[str, tuple[str, ...]] = {
    "DEPRESSED_MOOD": (
        "feel low from the moment {I} [wake] up",
        "feel hollow inside",
        "be sad without a reason",
        "feel miserable",
        "walk around under a grey cloud",
        "carry a heavy sadness",
        "feel empty even in company",
        "be down in the dumps",
        "feel hopeless about the future",
        "feel hopeless about everything",
        "feel gloomy at the breakfast table",
        "sink into a dark mood",
        "feel blue on the way to work",
        "be deeply unhappy",
        "ache with sadness",
        "drag a sadness around",
        "feel grey inside",
        "live in a permanent November",
        "feel wretched",
        "feel desolate in {my} own home",
        "put on a smile over a lot of sadness",
        "hide {my} sadness behind jokes",
        "be in a black mood",
        "feel crushed by sadness",
        "feel despondent",
        "be heavy-hearted",
        "feel forlorn at the dinner table",
        "have a lump of sadness in {my} chest",
        "feel as if the colour had gone out of the world",
        "expect only bad things from life",
        "be dispirited",
        "have a stone where {my} heart should be",
        "feel bleak about what is coming",
        "be stuck in a pit of gloom",
        "feel down even when things go well",
        "feel sad for no reason {I} can name",
        "be in low spirits",
        "feel like the lights are off inside {me}",
        "feel sorrow in every room of the house",
        "be gloomy from morning to evening",
        "feel utterly without hope",
        "wake up sad and [go] to bed sad",
        "feel dark inside",
        "be depressed",
        "feel depressed",
        "mope about the flat",
        "-feel hopeful",
        "-feel cheerful",
        "-feel happy",
        "-see a light at the end of the tunnel",
        "-smile and [mean] it",
        "-have hope for the coming year",
        "-believe that things will get better",
        "-have bright hours",
        "-feel light at heart",
        "{my} mood | be low",
        "{my} mood | sit at rock bottom",
        "{my} heart | feel heavy",
        "{my} days |+ feel joyless",
        "{my} days |+ look grey from end to end",
        "{my} world | feel dark",
        "{my} future | look black to {me}",
        "{my} inner weather | be rain",
        "the world | look grey to {me}",
        "sadness | follow {me} around",
        "a dark cloud | hang over {me}",
        "despair | wash over {me}",
        "gloom | settle on {me}",
        "melancholy | weigh {me} down",
        "sorrow | sit on {my} chest",
        "hopelessness | fill {my} mornings",
        "misery | colour everything {I} [do]",
        "emptiness | swallow {my} afternoons",
    ),
    "ANHEDONIA": (
        "-enjoy {my} guitar",
        "-enjoy the games {I} [play]",
        "-enjoy time with friends",
        "-look forward to the weekend",
        "-look forward to holidays",
        "-care about {my} garden",
        "-take pleasure in cooking for people",
        "-get a kick out of football",
        "-find joy in music",
        "-want to pick up {my} camera",
        "-laugh at the shows {I} [follow]",
        "-have fun at band practice",
        "-get excited about trips",
        "-touch {my} paints",
        "-feel pleasure on a sunny day",
        "-enjoy being touched",
        "-have an interest in {my} stamp collection",
        "be bored by things {I} once loved",
        "be indifferent to the choir",
        "be indifferent to birthdays",
        "find hobbies pointless",
        "go through games night like a robot",
        "drop one hobby after another",
        "leave the piano shut",
        "let {my} bike rust for lack of interest",
        "skip band practice for lack of interest",
        "shrug at good news",
        "feel flat at concerts",
        "sit through good films without interest",
        "turn down every invitation for lack of interest",
        "be past caring about the team {I} [support]",
        "{my} hobbies |+ bore {me}",
        "{my} guitar | gather dust for lack of interest",
        "{my} passion for climbing | be dead",
        "{my} joy in reading | be gone",
        "{my} interest in painting | be gone",
        "{my} love of dancing | be extinct",
        "music | leave {me} cold",
        "football | leave {me} cold",
        "sex | leave {me} indifferent",
        "holidays |+ leave {me} cold",
        "parties |+ seem pointless to {me}",
        "everything fun | feel like a chore to {me}",
        "-sunsets |+ move {me}",
        "-music | give {me} pleasure",
        "-{my} old hobbies |+ tempt {me}",
        "-{my} favourite series | interest {me}",
        "-baking | bring {me} joy",
    ),
    "APPETITE_CHANGE": (
        "-feel hungry",
        "-finish a plate",
        "-manage more than a few bites",
        "-have an appetite",
        "-want breakfast, lunch or dinner",
        "-eat properly",
        "skip meals",
        "forget to eat",
        "push food around {my} plate",
        "overeat",
        "stuff {self} with sweets",
        "eat without stopping",
        "raid the fridge at odd hours",
        "lose weight without trying",
        "gain weight without wanting to",
        "outgrow {my} jeans",
        "need new holes in {my} belt",
        "live on crackers",
        "pick at {my} food",
        "eat far too much",
        "eat far too little",
        "gag at the sight of dinner",
        "crave sugar around the clock",
        "go whole days without food",
        "leave {my} lunch untouched",
        "binge on crisps",
        "empty the biscuit tin in one go",
        "{my} appetite | be gone",
        "{my} appetite | be out of control",
        "{my} clothes |+ hang off {me}",
        "{my} weight | keep dropping",
        "{my} weight | creep up",
        "{my} jeans |+ slip off {my} hips",
        "food | taste like cardboard to {me}",
        "hunger | desert {me}",
        "-food | appeal to {me}",
        "-{my} stomach | ask for food",
    ),
    "SLEEP_ISSUES": (
        "lie awake until dawn",
        "wake at four and [stare] at the ceiling",
        "toss and [turn] in bed",
        "sleep twelve hours and more",
        "oversleep",
        "sleep through {my} alarms",
        "nap half the day",
        "wake up every hour",
        "have insomnia",
        "count the hours until the alarm",
        "watch the clock all night",
        "get by on three hours of sleep",
        "wake far too early",
        "sleep far too much",
        "spend the night wide awake on the sofa",
        "see the sunrise from a sleepless bed",
        "need sleeping tablets",
        "struggle to fall asleep",
        "sleep in fits and starts",
        "wake from the slightest sound",
        "sleep badly",
        "sleep until the afternoon",
        "hear every hour strike at night",
        "roam the flat at night",
        "get two hours of sleep",
        "dread bedtime because sleep will not come",
        "-sleep through the night",
        "-get to sleep before three",
        "-stay asleep",
        "-get a decent night's sleep",
        "-sleep well",
        "-can switch off at bedtime",
        "-can drop off",
        "-can fall asleep",
        "{my} nights |+ be sleepless",
        "{my} sleep | be broken",
        "{my} sleep | be a mess",
        "{my} nights |+ drag on without sleep",
        "{my} brain | keep {me} awake",
        "sleep | escape {me}",
        "sleep | refuse to come to {me}",
        "-sleep | come to {me}",
    ),
    "PSYCHOMOTOR": (
        "pace up and down the hallway",
        "fidget with everything in reach",
        "talk so slowly that people finish {my} sentences",
        "move as if through syrup",
        "speak in slow motion",
        "wring {my} hands",
        "tap {my} foot without stopping",
        "rock back and forth in {my} chair",
        "walk at half the speed of everyone else",
        "take minutes to answer a simple question aloud",
        "move like an old robot",
        "shuffle instead of walking",
        "jump up from the table every minute",
        "circle the kitchen table",
        "feel slowed down in every movement",
        "sit motionless on the edge of the bed",
        "need ages to button {my} shirt",
        "be restless in every limb",
        "be visibly slowed down",
        "squirm in every chair",
        "drum {my} fingers on everything",
        "-can sit still",
        "-can keep {my} hands still",
        "-can stay in {my} seat",
        "-move at a normal speed",
        "{my} legs |+ jiggle under the desk",
        "{my} movements |+ be slow",
        "{my} speech | be slow",
        "{my} knees |+ bounce under the table",
        "{my} gestures |+ lag behind",
        "{my} walk | be slow and stiff",
        "{my} words |+ come out at a crawl",
        "-{my} hands |+ rest",
        "-{my} body | settle down",
    ),
    "FATIGUE": (
        "be exhausted",
        "run on empty",
        "feel drained",
        "be worn out by noon",
        "be too tired to shower",
        "feel like a flat battery",
        "have lead in {my} legs",
        "be wiped out after the smallest chore",
        "collapse on the sofa after work",
        "lack the strength to lift {my} bag",
        "need to sit down after the dishes",
        "tire out at the smallest task",
        "be tired to the bone",
        "run out of steam by ten",
        "feel weary",
        "need a rest after brushing {my} teeth",
        "be spent before the day begins",
        "drag {self} through the day",
        "be shattered",
        "be knackered",
        "be low on energy",
        "feel weak and weary",
        "need all {my} strength to get dressed",
        "get worn out from reading the post",
        "be drained after one phone call",
        "feel tired in every bone",
        "lack the energy to cook",
        "feel dog-tired at {my} desk",
        "-have energy for the stairs",
        "-have the energy to tidy up",
        "-have the strength to carry shopping",
        "-recover {my} strength over a weekend",
        "-feel rested",
        "-can get through a day without resting",
        "{my} energy | be gone",
        "{my} battery | be empty",
        "{my} arms |+ feel like lead",
        "{my} limbs |+ feel heavy",
        "{my} tank | be empty",
        "tiredness | flatten {me}",
        "exhaustion | pin {me} to the couch",
        "every chore | wear {me} out",
        "fatigue | hold {me} down",
        "a short walk | drain {me}",
        "-rest | bring {my} energy back",
    ),
    "WORTHLESSNESS": (
        "feel worthless",
        "hate {self}",
        "blame {self} for everything",
        "feel like a burden to {my} family",
        "feel guilty about small mistakes",
        "be a failure in {my} own eyes",
        "see a loser in the mirror",
        "call {self} useless",
        "feel like a waste of space",
        "be ashamed of who {I} [be]",
        "feel inferior to everyone",
        "beat {self} up over old mistakes",
        "apologise for existing",
        "feel like a disappointment to {my} parents",
        "think {I} [ruin] everything",
        "feel undeserving of love",
        "find {self} disgusting",
        "feel like a fraud",
        "despise {self}",
        "keep count of {my} failures",
        "feel like a bad parent",
        "think of {self} as rubbish",
        "carry guilt for things long forgiven",
        "feel guilty for taking up people's time",
        "feel small and useless",
        "judge {self} without mercy",
        "believe {I} [deserve] every bad thing",
        "feel unlovable",
        "rate {self} below everyone",
        "punish {self} in thought for every slip",
        "feel like dead weight",
        "feel guilty about being ill",
        "consider {self} a mistake",
        "feel like the weak link in the team",
        "put {self} down",
        "feel like garbage",
        "blame {self} for the divorce",
        "feel guilty toward {my} kids",
        "think {I} [be] a stupid person",
        "feel like a let-down",
        "loathe the face in the mirror",
        "feel ashamed in front of {my} colleagues",
        "doubt {my} own worth",
        "feel guilty for laughing",
        "feel like a nuisance to {my} friends",
        "hold {self} responsible for the whole mess",
        "regard {self} as a burden",
        "think {I} [fail] everyone",
        "-like {self}",
        "-believe {I} [deserve] kindness",
        "-think {I} [be] worth the effort",
        "-feel good enough",
        "-respect {self}",
        "-forgive {self}",
        "-feel worthy of {my} friends",
        "-consider {self} a decent person",
        "-feel valuable",
        "-see a good person in the mirror",
        "{my} self-esteem | be gone",
        "{my} self-worth | be in ruins",
        "{my} inner critic | call {me} pathetic",
        "{my} conscience | torment {me} over trifles",
        "{my} confidence in {self} | be shot",
        "guilt | eat {me} up",
        "guilt | gnaw at {me}",
        "shame | burn in {me}",
        "self-hatred | fill {me}",
        "self-blame | run {my} day",
        "a voice in {my} head | say {I} [be] useless",
        "every mistake | prove {my} worthlessness to {me}",
    ),
    "COGNITIVE_ISSUES": (
        "lose the thread mid-sentence",
        "read the same line five times",
        "forget what {I} [walk] in for",
        "stare at emails without taking them in",
        "be unable to make decisions",
        "zone out in meetings",
        "dither over the simplest choices",
        "forget appointments",
        "mix up names",
        "blank out during conversations",
        "struggle to focus",
        "make careless mistakes in every report",
        "have brain fog",
        "lose track of simple sums",
        "put off every decision",
        "get stuck on simple forms",
        "need three tries to take in a text message",
        "agonise over which bread to buy",
        "-can concentrate on a page",
        "-can decide what to wear",
        "-can follow a film",
        "-can hold a thought",
        "-can think straight",
        "-remember what was said a minute ago",
        "-follow the plot of a sitcom",
        "-retain what {I} [read]",
        "{my} head | be full of cotton wool",
        "{my} mind | go blank",
        "{my} thoughts |+ be foggy",
        "{my} attention | wander after a minute",
        "{my} memory | be like a sieve",
        "{my} concentration | be shot",
        "{my} focus | be gone",
        "{my} brain | feel foggy",
        "small decisions |+ paralyse {me}",
        "-words |+ stick in {my} memory",
        "-numbers |+ make sense to {me}",
    ),
    "SUICIDAL_THOUGHTS": (
        "think about suicide",
        "wish {I} were dead",
        "want to die",
        "have thoughts of ending {my} life",
        "hope not to wake up in the morning",
        "wish {I} could disappear for good",
        "think everyone would be better off without {me}",
        "feel that life is not worth living",
        "think about death",
        "want {my} life to be over",
        "imagine {my} own funeral",
        "have suicidal thoughts",
        "long for it all to end",
        "consider ending it all",
        "think of not being here any longer",
        "wish {I} had never been born",
        "play with the thought of dying",
        "write goodbye letters in {my} head",
        "feel ready to be gone for good",
        "pray not to wake up",
        "see death as a way out",
        "be sick of being alive",
        "want to stop existing",
        "fantasise about being dead",
        "feel done with life",
        "feel drawn to death",
        "think the world would be fine without {me} in it",
        "-want to be alive",
        "-want to go on living",
        "-see a reason to live",
        "-want to wake up tomorrow",
        "-care whether {I} [live]",
        "-want to be here next year",
        "-cling to life",
        "{my} thoughts |+ turn to suicide",
        "{my} mind | return to dying",
        "{my} will to live | be gone",
        "suicide | cross {my} mind",
        "thoughts of death |+ visit {me}",
        "thoughts of ending it |+ follow {me}",
        "the wish to die | haunt {me}",
        "the thought of dying | comfort {me}",
        "death | look like a relief to {me}",
        "-life | seem worth living to {me}",
    ),
    "SPECIAL_CASE": (
        "cry in the shower",
        "burst into tears at the checkout",
        "sob in the car",
        "weep at adverts",
        "cry in toilet cubicles",
        "cry without a warning",
        "choke up on the phone",
        "break down in tears at work",
        "have headaches without a cause",
        "get stomach cramps before work",
        "have chest pains that the doctor cannot explain",
        "have flashbacks to the accident",
        "relive the accident",
        "carry a childhood trauma around",
        "get panic attacks",
        "flinch at loud noises since the accident",
        "snap at everyone",
        "lose {my} temper over crumbs",
        "explode at small things",
        "drink too much wine",
        "grind {my} teeth",
        "avoid the street where it happened",
        "have a knot in {my} stomach",
        "get dizzy spells",
        "suffer from back pain without a finding",
        "have nightmares about the attack",
        "-get over what happened in {my} childhood",
        "-can hold back tears",
        "-can shake off the accident",
        "{my} head | throb without a cause",
        "{my} back | ache without a cause",
        "{my} chest | feel tight",
        "{my} heart | race for no reason",
        "{my} eyes |+ fill with tears",
        "{my} jaw | hurt from clenching",
        "{my} stomach | cramp before every call",
        "{my} childhood trauma | weigh on {me}",
        "tears |+ overcome {me} in public",
        "memories of the crash |+ haunt {me}",
        "panic | grip {me}",
        "rage | boil up in {me}",
        "the accident | play over in {my} head",
    ),
}

#: Harmless causes, as noun phrases, by symptom.
BENIGN: dict[str, tuple[str, ...]] = {
    "DEPRESSED_MOOD": (
        "the film we saw",
        "the endless rain",
        "the lost final",
        "the weaning off the steroids",
        "the dog's operation",
        "the goodbye party",
        "the sad novel I am reading",
        "the flu",
        "the cancelled holiday",
        "the dark time of year",
        "the hangover",
        "the homesickness",
    ),
    "ANHEDONIA": (
        "the flu",
        "the deadline",
        "the exam week",
        "the heat wave",
        "the sprained wrist",
        "the new tablets for my allergy",
        "the overtime",
        "the tax return",
        "the bad cold",
    ),
    "APPETITE_CHANGE": (
        "the stomach bug",
        "the marathon training",
        "the dentist's work",
        "the pregnancy",
        "the antibiotics",
        "the heat wave",
        "the cortisone",
        "the growth spurt",
        "the bad cold",
    ),
    "SLEEP_ISSUES": (
        "the new baby",
        "the jet lag",
        "the night shifts",
        "the building site next door",
        "the heat wave",
        "the neighbour's parties",
        "the late coffee",
        "the puppy",
        "the bad cold",
    ),
    "PSYCHOMOTOR": (
        "the plaster cast",
        "the pulled muscle",
        "the strong coffee",
        "the hard chairs",
        "the new asthma spray",
        "the waiting for the exam mark",
        "the stiff knee",
        "the new shoes",
    ),
    "FATIGUE": (
        "the flu",
        "the marathon training",
        "the night shifts",
        "the new baby",
        "the house move",
        "the low iron",
        "the hay fever tablets",
        "the double shifts",
        "the harvest",
        "the jab",
    ),
    "WORTHLESSNESS": (
        "the lost match",
        "the chess rating",
        "the missed deadline",
        "the failed driving test",
        "the broken vase",
        "the forgotten birthday",
        "the first week in the new job",
        "the bad mark",
        "the spilled paint",
        "the row about the dishes",
        "the burnt cake",
        "the parking ticket",
    ),
    "COGNITIVE_ISSUES": (
        "the noisy office",
        "the cough syrup",
        "the new baby",
        "the exam week",
        "the jet lag",
        "the mild concussion",
        "the heat wave",
        "the three jobs at once",
        "the flu",
    ),
    "SUICIDAL_THOUGHTS": (
        "the crime novel I am writing",
        "the ethics seminar",
        "the documentary",
        "the philosophy essay",
        "the war poems",
        "the funeral scene in our play",
        "the hospice training",
        "the family history project",
        "the museum exhibition",
    ),
    "SPECIAL_CASE": (
        "the onions",
        "the hay fever",
        "the new glasses",
        "the wedding speeches",
        "the flu",
        "the hormone tablets",
        "the long drive",
        "the spicy food",
        "the heat wave",
    ),
}

#: Phrases about death that a harmless cause can explain.
BENIGN_DEATH: tuple[str, ...] = (
    "think about death",
    "think about dying",
    "talk about death",
    "dwell on death",
    "read about suicide until late",
    "wonder what dying is like",
    "imagine {my} own funeral",
    "brood over the end of life",
    "{my} thoughts |+ turn to death",
    "{my} mind | return to dying",
    "suicide | cross {my} mind",
    "thoughts of death |+ visit {me}",
    "death | be on {my} mind",
    "death | creep into {my} thoughts",
)

# --------------------------------------------------------------------------------------------
# Frames.  Slots: {P} the writer has it, {D} the writer does not, {PP} {DP} the same in the past;
# {p3} {d3} {pp3} for another person {x} ({he} {him} {his}); {W} {W3} as a relative clause;
# {Q} {QD} {q3} {qd3} the same for another symptom; {b} harmless cause; {ev} event; {per} period;
# {ok} being well; {cond} an open condition; {n} a number; {t} a time word; {who} a reader.
# --------------------------------------------------------------------------------------------
KINDS: tuple[str, ...] = ("negated", "hypothetical", "third", "past", "benign", "off")

#: kind -> pairs of (status 1 side, status 0 side).
FRAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "third": (
        ("{x} is {ok}; I am the one {W}", "I am {ok}; {x} is the one {W3}"),
        ("{x} says {he} is {ok}, and I say {P}", "I say I am {ok}, and {x} says {p3}"),
        ("{d3}, whereas {P}", "{D}, whereas {p3}"),
        ("I told {x} that {P}", "{x} told me that {p3}"),
    ),
    "past": (
        ("before {ev} I was {ok}, and now {P}", "before {ev} {PP}, and now I am {ok}"),
        (
            "it used to be that I was {ok}, but these days {P}",
            "it used to be that {PP}, but these days I am {ok}",
        ),
        (
            "in {per} I was {ok}; today the trouble is that {P}",
            "in {per} the trouble was that {PP}; today I am {ok}",
        ),
        ("{DP} in {per}, now {P} all the time", "{PP} in {per}, now {D} at all"),
        ("in {per} {QP}, and nowadays {P}", "in {per} {PP}, and nowadays {Q}"),
    ),
    "negated": (
        ("{QD}, but {P}", "{D}, but {Q}"),
        ("not that {Q}; the problem is that {P}", "not that {P}; the problem is that {Q}"),
        ("no, I am not {ok}: {P}", "no, I am {ok}: {D}"),
        (
            "the doctor knows that I am not {ok}, because {P}",
            "the doctor knows that I am {ok}, because {D}",
        ),
        ("there is not a single day when {D}", "there is not a single day when {P}"),
        ("I would be lying if I said that {D}", "I would be lying if I said that {P}"),
        ("sad to say, {t} {P}", "glad to say, {t} {D}"),
    ),
    "hypothetical": (
        (
            "if {cond} it might be that I am {ok}, but as it is {P}",
            "if {cond} it might be that {P}, but as it is I am {ok}",
        ),
        ("maybe some day I am {ok}, but for now {P}", "maybe some day {P}, but for now I am {ok}"),
        (
            "it could be that I am {ok} by next year, but at present {P}",
            "it could be that {P} by next year, but at present I am {ok}",
        ),
        (
            "I can imagine that I am {ok}, yet the truth is that {P}",
            "I can imagine that {P}, yet the truth is that I am {ok}",
        ),
    ),
    "benign": (
        ("with {b} I am {ok}, but without that {P}", "with {b} {P}, but without that I am {ok}"),
        (
            "during {b} I am {ok}, but on normal days {P}",
            "during {b} {P}, but on normal days I am {ok}",
        ),
        (
            "{P}, and if the doctor blames {b}, I do not agree",
            "{P}, and if the doctor blames {b}, I do agree",
        ),
        (
            "my doctor puts it down to {b}, and I do not agree: {P}",
            "my doctor puts it down to {b}, and I agree, although {P}",
        ),
        ("{P}, and it is not because of {b}", "{P}, but it is because of {b}"),
    ),
}

#: Bare assertions.  With the right symptom they are status 1, with another one off criterion.
PLAIN_FRAMES: tuple[str, ...] = (
    "{P}",
    "{t} {P}",
    "{t} {P}",
    "the truth is that {P}",
    "I have to admit that {P}",
    "for {n} weeks it has been like this: {P}",
    "{P}, and I do not know what to do about it",
    "{P}, and {x} has begun to notice",
    "{P}, even when {x} is around",
    "{P}, even though {ev} went well",
    "the thing is, {P}",
    "I am {age} and {P}",
    "{ev} came and went, and {P}",
    "what I have not told {x} is that {P}",
    "it sounds silly, but {P}",
    "{P}, no matter what I try",
    "can anyone relate when I say that {P}",
    "{P}; there, I have said it",
    "{P}, and the worst of it is that I hide it from {x}",
    "{t} it is plain to see that {P}",
)

PREFIXES: tuple[str, ...] = (
    "honestly, ",
    "well, ",
    "to be fair, ",
    "for what it's worth, ",
    "long story short, ",
    "okay, ",
    "right, ",
    "so, ",
    "anyway, ",
    "look, ",
    "as I said, ",
    "in short, ",
    "since someone will ask: ",
    "not sure where to put this: ",
    "small update: ",
    "on the train home it hit me: ",
    "to answer the question: ",
    "writing this on my break: ",
    "I will keep it short: ",
    "edit, because it was unclear: ",
    "first things first: ",
    "no filter today: ",
    "it took me a while to type this: ",
    "some background: ",
    "for the record, ",
    "as things stand, ",
    "plainly put, ",
    "second try at this post: ",
)
SUFFIXES: tuple[str, ...] = (
    ", for what it's worth",
    ", if that makes sense",
    ", just so you know",
    ", in case it matters",
    ", as I wrote last time",
    ", and I leave it at that",
    " (sorry for the typos)",
    ", to put it simply",
    ", as far as I can tell",
    ", and that is the short version",
    " (I hope that is clear)",
    ", to answer the first comment",
    ", no more and no less",
)

#: Other people: (noun phrase, "f" or "m").
PEOPLE: tuple[tuple[str, str], ...] = (
    ("my sister", "f"),
    ("my brother", "m"),
    ("my mother", "f"),
    ("my dad", "m"),
    ("my flatmate", "m"),
    ("my wife", "f"),
    ("my husband", "m"),
    ("my boyfriend", "m"),
    ("my girlfriend", "f"),
    ("my best friend", "f"),
    ("my cousin", "m"),
    ("my aunt", "f"),
    ("my uncle", "m"),
    ("our neighbour", "f"),
    ("my boss", "f"),
    ("my desk mate", "m"),
    ("my roommate", "f"),
    ("my grandmother", "f"),
    ("my grandfather", "m"),
    ("my ex", "m"),
    ("a guy at work", "m"),
    ("a woman from my class", "f"),
    ("my old school friend", "m"),
    ("my twin", "f"),
    ("my stepdad", "m"),
    ("my son", "m"),
    ("my daughter", "f"),
    ("my lab partner", "f"),
    ("my running buddy", "m"),
    ("my niece", "f"),
    ("my nephew", "m"),
    ("my mother-in-law", "f"),
    ("the new colleague", "m"),
    ("my landlady", "f"),
    ("my bandmate", "m"),
    ("my half-sister", "f"),
    ("my godfather", "m"),
    ("my study mate", "f"),
    ("Anna", "f"),
    ("Tom", "m"),
    ("Priya", "f"),
    ("Marek", "m"),
    ("Lucy", "f"),
    ("Diego", "m"),
)
FICTION: tuple[tuple[str, str], ...] = (
    ("the detective", "m"),
    ("the widow", "f"),
    ("the young pianist", "f"),
    ("the captain", "m"),
    ("the lighthouse keeper", "m"),
    ("the nurse on the island", "f"),
    ("the lonely baker", "m"),
    ("the retired spy", "f"),
    ("the girl with the red coat", "f"),
    ("the night porter", "m"),
    ("the old teacher", "m"),
    ("the swimmer", "f"),
    ("the exiled king", "m"),
)
EVENTS: tuple[str, ...] = (
    "the move",
    "the divorce",
    "the layoff",
    "my final exam",
    "the operation",
    "the breakup",
    "the lockdown",
    "the funeral",
    "our wedding",
    "the new job",
    "the birth of my son",
    "graduation",
    "the big argument",
    "the promotion",
    "the holiday",
    "the trial",
    "the year abroad",
    "retirement",
    "the house sale",
    "my thirtieth birthday",
    "the reunion",
    "the transfer",
    "the thesis",
    "the renovation",
)
PERIODS: tuple[str, ...] = (
    "my twenties",
    "high school",
    "college",
    "the first year here",
    "my last job",
    "2019",
    "the army",
    "boarding school",
    "the old flat",
    "the winter before last",
    "primary school",
    "the days of my apprenticeship",
    "spring",
    "the year after school",
    "my first marriage",
)
OK: tuple[str, ...] = (
    "all right",
    "fine",
    "okay",
    "doing well",
    "well",
    "in good shape",
    "doing great",
    "in a good place",
    "healthy",
    "free of it",
    "better",
    "in good health",
)
CONDITIONS: tuple[str, ...] = (
    "the landlord writes back",
    "the shift plan changes",
    "the transfer goes through",
    "the visa arrives",
    "the firm moves north",
    "the course starts late",
    "the loan is signed",
    "the test is repeated",
    "the flat gets sold",
    "the family visits",
    "school starts again",
    "the weather turns",
    "the boss leaves",
    "the project closes",
)
TIMES: tuple[str, ...] = (
    "these days",
    "lately",
    "most days",
    "this month",
    "since spring",
    "at the moment",
    "all week",
    "right now",
    "nowadays",
    "day in, day out,",
    "again and again",
    "more often than not,",
    "by now",
    "this autumn",
    "as of late",
    "every single day",
)
NUMBERS: tuple[str, ...] = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "a few",
    "several",
)
AGES: tuple[str, ...] = tuple(str(age) for age in range(19, 58))
READERS: tuple[str, ...] = (
    "the nurse",
    "my GP",
    "the pharmacist",
    "the school counsellor",
    "a doctor friend",
    "the locum",
    "the clinic",
    "the therapist",
)

# --------------------------------------------------------------------------------------------
# Everyday filler for the rest of a post: topic -> templates over the pools below.
# --------------------------------------------------------------------------------------------
POOLS: dict[str, tuple[str, ...]] = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "city": (
        "Leeds",
        "Porto",
        "Ohio",
        "Bristol",
        "Toronto",
        "Graz",
        "Denver",
        "Cork",
        "Lyon",
        "Austin",
        "Perth",
        "Malmo",
        "Glasgow",
        "Tampa",
        "Ghent",
        "Boise",
    ),
    "person": tuple(name for name, _ in PEOPLE),
    "number": NUMBERS,
    "age": AGES,
    "job": (
        "a warehouse",
        "a bakery",
        "a call centre",
        "an insurance office",
        "a garden centre",
        "a small print shop",
        "a hospital kitchen",
        "a bike shop",
        "a hotel",
        "a school library",
        "a tax office",
        "a bus depot",
    ),
    "task": (
        "the stock list",
        "the budget",
        "the rota",
        "the slides",
        "the audit",
        "the invoices",
        "the handover",
        "the newsletter",
        "the mailing list",
        "the returns desk",
    ),
    "subject": (
        "statistics",
        "chemistry",
        "law",
        "nursing",
        "history",
        "accounting",
        "biology",
        "linguistics",
        "geology",
        "architecture",
        "Spanish",
        "economics",
    ),
    "pet": ("cat", "dog", "rabbit", "parrot", "hamster", "old tortoise", "greyhound", "kitten"),
    "food": (
        "lentil soup",
        "pancakes",
        "a tray bake",
        "noodles",
        "a curry",
        "banana bread",
        "a big salad",
        "dumplings",
        "an omelette",
        "chilli",
        "apple pie",
        "risotto",
    ),
    "place": (
        "the library",
        "the park",
        "the harbour",
        "the market",
        "the pool",
        "the launderette",
        "the garden centre",
        "the cinema",
        "the station",
        "the town hall",
        "the corner shop",
    ),
    "weather": (
        "rain",
        "sun",
        "fog",
        "wind",
        "sleet",
        "drizzle",
        "frost",
        "thunder",
        "warm air",
        "snow",
    ),
    "thing": (
        "the washing machine",
        "the boiler",
        "my laptop",
        "the router",
        "the back door",
        "the car",
        "my old phone",
        "the printer",
        "the shower head",
        "the kettle",
        "the bike",
    ),
    "state": (
        "broke",
        "got fixed",
        "made a strange noise",
        "was replaced",
        "stopped and started again",
        "leaked",
        "lost a screw",
        "was recalled",
        "cost more than planned",
        "behaved itself",
    ),
    "hobby": (
        "pottery",
        "chess club",
        "a running group",
        "knitting",
        "a film club",
        "badminton",
        "a cooking class",
        "the allotment",
        "volunteering",
        "a pub quiz",
        "yoga",
        "birdwatching",
    ),
    "show": (
        "a cooking show",
        "a nature series",
        "the match",
        "a quiz show",
        "an old western",
        "a baking contest",
        "a documentary on trains",
        "a cartoon",
        "the news",
        "a heist film",
    ),
    "doctor": (
        "the GP",
        "the new therapist",
        "the counsellor",
        "the clinic",
        "the nurse",
        "the psychiatrist",
        "the health centre",
        "the campus service",
    ),
    "method": (
        "journaling",
        "light therapy",
        "group sessions",
        "a sleep diary",
        "breathing exercises",
        "a mood app",
        "cold showers",
        "long walks",
        "behavioural therapy",
        "a peer helpline",
        "magnesium",
        "a gratitude list",
    ),
    "ask": (
        "how long it took",
        "what it cost",
        "how you found it",
        "whether it was worth it",
        "what the first session is like",
        "which one you picked",
        "how you kept it up",
        "what your family said",
    ),
    "adj": (
        "quiet",
        "crowded",
        "long",
        "odd",
        "busy",
        "ordinary",
        "slow",
        "loud",
        "mixed",
        "short",
    ),
    "hour": (
        "at six",
        "at noon",
        "before eight",
        "around nine",
        "after lunch",
        "at half past four",
        "before dinner",
        "just after ten",
        "at closing time",
        "during the break",
    ),
    "money": (
        "the rent",
        "the heating bill",
        "the deposit",
        "the insurance",
        "the train pass",
        "the phone bill",
        "the car tax",
        "the loan",
        "the vet's bill",
    ),
}

FILLER: dict[str, tuple[str, ...]] = {
    "work": (
        "I work in {job} in {city}, mostly {hour} on {day}.",
        "My shift on {day} starts {hour} and nobody told {person}.",
        "They gave me {task} on {day}, and {person} had to step in.",
        "My contract with {job} runs for {number} more months.",
        "The meeting about {task} was {adj} and ended {hour}.",
        "Our manager wants {task} done by {day}, {hour} if possible.",
        "There are {number} of us doing {task} since {person} changed teams.",
        "The bus from {city} was late on {day} and I clocked in {hour}.",
        "I applied to {job} in {city} {number} weeks ago.",
        "We ate {food} at work on {day} because {person} was leaving for {city}.",
        "{person} swapped shifts with me, so I do {task} {hour} on {day}.",
        "Before this I spent {number} years with {job} near {city}.",
    ),
    "study": (
        "I study {subject} in {city} and share a flat with {number} others.",
        "The {subject} exam is on {day}, {hour}, in the large hall.",
        "I have {number} essays in {subject} due after {day}.",
        "{person} takes {subject} too and lends me notes on {day}.",
        "The tutor for {subject} moved our slot to {day}.",
        "My {subject} group met in {place} on {day}.",
        "I swapped {subject} for a course that meets {hour} on {day}.",
        "{person} quit {subject} after {number} terms and moved to {city}.",
        "I read my {subject} notes at {place} {hour} on {day}.",
        "The {subject} trip to {city} is on {day} and {number} of us signed up.",
        "The lecture on {day} was {adj}, like most of {subject}.",
    ),
    "home": (
        "{thing} {state} on {day}, so that was my evening.",
        "On {day} {thing} {state} and {person} came by to look.",
        "I paid {money} on {day} and have {number} bills left.",
        "{money} went up again, and {person} says {city} is cheaper.",
        "We moved from {city} to a flat near {place} {number} months ago.",
        "My {pet} sat on the windowsill and watched the {weather} on {day}.",
        "I made {food} on {day} and gave half to {person}.",
        "The landlord wants {money} by {day}, {hour}, in cash.",
        "{person} is lending me {number} boxes for the move to {city} on {day}.",
        "The {pet} hid under the sofa when {thing} made a noise on {day}, {hour}.",
        "The {pet} had its check-up {hour} on {day}.",
        "We had {weather} here on {day} and {weather2} the next morning.",
    ),
    "family": (
        "{person} called {hour} on {day} from {city}.",
        "{person} is {age} this year and lives in {city}.",
        "On {day} we all met near {place} for {food}.",
        "{person} borrowed {thing2} on {day} and brought it back {hour}.",
        "I visited {person} in {city}, the train took {number} hours.",
        "{person} wants {food} for the party in {city} on {day}.",
        "The last letter from {person} came on {day} and smelled of {food}.",
        "{person} has {number} siblings, most of them near {city}.",
        "{person} sends me photos of the {pet} every {day}.",
        "{person} and I watched {show} together on {day}.",
        "There were {number} of us at the table on {day}, with {food} for everyone.",
    ),
    "leisure": (
        "There is {hobby} near {place} on {day}, {hour}.",
        "{person} signed us up for {hobby} starting on {day}.",
        "On {day} there was {show} on while {person} made {food}.",
        "I walked past {place} {hour} on {day}, in the {weather}.",
        "{place} in {city} was {adj} on {day}.",
        "They have {number} spots left in {hobby} on {day}.",
        "{person} took the {pet} to {place} on {day}.",
        "I have {number} books from {place} to give back by {day}, {hour}.",
        "We went for {food} near {place} on {day}, {person} paid.",
        "{person} got {number} tickets for {show} in {city}.",
        "A friend in {city} swears by {hobby} on {day}.",
    ),
    "care": (
        "I have an appointment with {doctor} on {day}, {hour}.",
        "Has anyone here tried {method} through {doctor}, and can you say {ask}?",
        "{doctor} suggested {method} and gave me a leaflet {hour} on {day}.",
        "The waiting list with {doctor} in {city} is {number} months long.",
        "{person} tried {method} in {city} for {number} weeks.",
        "If you have done {method}, tell me {ask}.",
        "I filled in the papers for {doctor} on {day} at {place}.",
        "{person} drove me to {doctor} on {day}.",
        "My insurance covers {number} sessions of {method} with {doctor}.",
    ),
}
OPENERS: tuple[str, ...] = (
    "Hi all, {age} here, writing from {city}.",
    "First post here, I am {age} and live near {city}.",
    "Hello from {city}, it is {day} and there is {weather} outside.",
    "Long-time reader from {city}, posting {hour} on {day}.",
    "Throwaway account, because {person} knows my main one and lives in {city}.",
    "I am {age}, from {city}, and I work in {job}.",
    "It is {day}, {hour}, and I have {number} minutes to write this.",
    "Some of you may remember my post about {thing} and {person} from {day}.",
    "I typed this {hour} in {place}, so excuse the {adj} style.",
)
CLOSERS: tuple[str, ...] = (
    "Thanks for reading, I will check back on {day} {hour}.",
    "Any thoughts on {method} are welcome before {day}.",
    "Tell me {ask} if you know {method}.",
    "I will post an update after {day}, when {person} is back.",
    "Greetings from {city}, and say hello to your {pet}.",
    "That is all for now, {food} is waiting and so is {person}.",
    "If you are near {city} and know {doctor}, write to me.",
    "I will read the replies {hour} on {day} at {place}.",
)

# --------------------------------------------------------------------------------------------
# Grammar
# --------------------------------------------------------------------------------------------
#: base -> (third person singular, past)
IRREGULAR: dict[str, tuple[str, str]] = {
    "feel": ("feels", "felt"),
    "wake": ("wakes", "woke"),
    "sink": ("sinks", "sank"),
    "put": ("puts", "put"),
    "hide": ("hides", "hid"),
    "have": ("has", "had"),
    "go": ("goes", "went"),
    "do": ("does", "did"),
    "see": ("sees", "saw"),
    "sit": ("sits", "sat"),
    "hang": ("hangs", "hung"),
    "take": ("takes", "took"),
    "get": ("gets", "got"),
    "find": ("finds", "found"),
    "let": ("lets", "let"),
    "leave": ("leaves", "left"),
    "give": ("gives", "gave"),
    "bring": ("brings", "brought"),
    "forget": ("forgets", "forgot"),
    "overeat": ("overeats", "overate"),
    "eat": ("eats", "ate"),
    "lose": ("loses", "lost"),
    "outgrow": ("outgrows", "outgrew"),
    "keep": ("keeps", "kept"),
    "creep": ("creeps", "crept"),
    "lie": ("lies", "lay"),
    "sleep": ("sleeps", "slept"),
    "oversleep": ("oversleeps", "overslept"),
    "spend": ("spends", "spent"),
    "hear": ("hears", "heard"),
    "come": ("comes", "came"),
    "speak": ("speaks", "spoke"),
    "wring": ("wrings", "wrung"),
    "run": ("runs", "ran"),
    "wear": ("wears", "wore"),
    "hold": ("holds", "held"),
    "beat": ("beats", "beat"),
    "think": ("thinks", "thought"),
    "say": ("says", "said"),
    "forgive": ("forgives", "forgave"),
    "read": ("reads", "read"),
    "make": ("makes", "made"),
    "stick": ("sticks", "stuck"),
    "write": ("writes", "wrote"),
    "cling": ("clings", "clung"),
    "weep": ("weeps", "wept"),
    "break": ("breaks", "broke"),
    "drink": ("drinks", "drank"),
    "grind": ("grinds", "ground"),
    "shake": ("shakes", "shook"),
    "hurt": ("hurts", "hurt"),
    "overcome": ("overcomes", "overcame"),
    "burst": ("bursts", "burst"),
    "stand": ("stands", "stood"),
    "mean": ("means", "meant"),
}
#: Regular verbs that double their last letter.
DOUBLING = frozenset({"nap", "skip", "drop", "tap", "sob", "snap", "grip", "shrug"})
PRONOUNS: dict[str, dict[str, str]] = {
    "me": {"I": "I", "my": "my", "me": "me", "self": "myself"},
    "f": {"I": "she", "my": "her", "me": "her", "self": "herself"},
    "m": {"I": "he", "my": "his", "me": "him", "self": "himself"},
}


def third_singular(verb: str) -> str:
    """Return the third person singular present of a verb other than *be* and *can*."""
    if verb in IRREGULAR:
        return IRREGULAR[verb][0]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    return verb + "s"


def past(verb: str) -> str:
    """Return the simple past of a verb other than *be* and *can*."""
    if verb in IRREGULAR:
        return IRREGULAR[verb][1]
    if verb in DOUBLING:
        return verb + verb[-1] + "ed"
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"


def finite(verb: str, agreement: str, *, was: bool, negated: bool) -> str:
    """Return the finite form of ``verb``; ``agreement`` is "1" (I), "3" (he) or "p" (they)."""
    if verb == "be":
        form = {"1": "was", "3": "was", "p": "were"} if was else {"1": "am", "3": "is", "p": "are"}
        return form[agreement] + (" not" if negated else "")
    if verb == "can":
        if was:
            return "could not" if negated else "could"
        return "cannot" if negated else "can"
    if negated:
        helper = "did" if was else ("does" if agreement == "3" else "do")
        return f"{helper} not {verb}"
    if was:
        return past(verb)
    return third_singular(verb) if agreement == "3" else verb


@dataclass(frozen=True)
class Phrase:
    """A symptom phrase that can be said of any person, in two tenses and both polarities."""

    subject: str  # "" when the person is the subject
    plural: bool
    verb: str
    rest: str
    inverted: bool  # the symptom is the denial of the phrase

    @classmethod
    def parse(cls, source: str) -> Phrase:
        """Read the notation that :data:`PHRASES` is written in."""
        inverted = source.startswith("-")
        body = source.removeprefix("-")
        subject, bar, predicate = body.partition("|")
        if not bar:
            subject, predicate = "", body
        plural = predicate.startswith("+")
        verb, _, rest = predicate.removeprefix("+").strip().partition(" ")
        return cls(subject.strip(), plural, verb, rest, inverted)

    @property
    def relative_ok(self) -> bool:
        """Whether the phrase can follow "the one" as a relative clause."""
        return not self.subject or self.subject.startswith("{my} ")

    def _fill(self, text: str, who: str, *, was: bool) -> str:
        agreement = "1" if who == "me" else "3"

        def inner(match: re.Match[str]) -> str:
            return finite(match.group(1), agreement, was=was, negated=False)

        return re.sub(r"\[(\w+)\]", inner, text).format(**PRONOUNS[who])

    def _predicate(self, who: str, agreement: str, *, has_it: bool, was: bool) -> str:
        verb = finite(self.verb, agreement, was=was, negated=has_it == self.inverted)
        return f"{verb} {self._fill(self.rest, who, was=was)}".strip()

    def clause(self, who: str, *, has_it: bool, was: bool = False, noun: str = "") -> str:
        """Say that the person has the symptom (or not).  ``noun`` names a third person."""
        if not self.subject:
            name = noun or PRONOUNS[who]["I"]
            agreement = "1" if who == "me" else "3"
            return f"{name} {self._predicate(who, agreement, has_it=has_it, was=was)}"
        subject = self._fill(self.subject, who, was=was)
        predicate = self._predicate(who, "p" if self.plural else "3", has_it=has_it, was=was)
        return f"{subject} {predicate}"

    def relative(self, who: str) -> str:
        """Say the symptom as a relative clause: "who lies awake", "whose sleep is broken"."""
        if not self.subject:
            return "who " + self._predicate(who, "3", has_it=True, was=False)
        subject = self.subject.removeprefix("{my} ")
        agreement = "p" if self.plural else "3"
        predicate = self._predicate(who, agreement, has_it=True, was=False)
        return f"whose {self._fill(subject, who, was=False)} {predicate}"


# --------------------------------------------------------------------------------------------
# Sentences
# --------------------------------------------------------------------------------------------
CONTRACTIONS: tuple[tuple[str, str], ...] = (
    (r"\b(do|does|did|is|are|was|were|has|had|would|need) not\b", r"\1n't"),
    (r"\bcannot\b", "can't"),
    (r"\bcould not\b", "couldn't"),
    (r"\bI am (?=\w)", "I'm "),
    (r"\bI have (?=(said|begun|not|to admit)\b)", "I've "),
    (r"\bI would (?=be\b)", "I'd "),
    (r"^It is (?=\w)", "It's "),
)


def contract(text: str) -> str:
    """Use the short forms of everyday writing."""
    for pattern, short in CONTRACTIONS:
        text = re.sub(pattern, short, text)
    return text.replace("I've to admit", "I have to admit")


def capitalise(text: str) -> str:
    """Raise the first letter only."""
    return text[:1].upper() + text[1:]


def normal(text: str) -> str:
    """Return the form under which two sentences count as the same."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def close(one: str, other: str) -> bool:
    """Whether two symptoms are the same or too close to be set against each other."""
    return one == other or frozenset((one, other)) in CLOSE


@dataclass
class Deck:
    """Deals the items of a list evenly: each once, in random order, then all over again."""

    items: Sequence[object]
    rng: random.Random
    hand: list[int] = field(default_factory=list)

    def deal(self) -> object:
        """Return the next item."""
        if not self.hand:
            self.hand = list(range(len(self.items)))
            self.rng.shuffle(self.hand)
        return self.items[self.hand.pop()]


@dataclass(frozen=True)
class Made:
    """A labelled sentence."""

    text: str
    explanation: str


NAMES: dict[str, str] = {
    "DEPRESSED_MOOD": "low mood",
    "ANHEDONIA": "a loss of interest or pleasure",
    "APPETITE_CHANGE": "a change of appetite or weight",
    "SLEEP_ISSUES": "a sleep problem",
    "PSYCHOMOTOR": "slowed or restless movement",
    "FATIGUE": "a lack of energy",
    "WORTHLESSNESS": "worthlessness or guilt",
    "COGNITIVE_ISSUES": "trouble with thinking or deciding",
    "SUICIDAL_THOUGHTS": "thoughts of death or suicide",
    "SPECIAL_CASE": "a complaint outside the nine criteria",
}
REASONS: dict[str, tuple[str, ...]] = {
    "present": (
        "The writer reports {name} of their own, at present.",
        "First person and current: {name}.",
        "Whatever else the sentence mentions, it leaves {name} standing for the writer now.",
    ),
    "negated": (
        "The writer denies {name}.",
        "Read as a whole, the sentence says that the writer does not have {name}.",
    ),
    "hypothetical": (
        "{name} is only imagined or feared here, not reported.",
        "An open possibility, not a present state: {name}.",
    ),
    "third": (
        "It is another person who has {name}, not the writer.",
        "{name} is told of someone else.",
    ),
    "past": (
        "The writer had {name} in the past and it is over.",
        "{name} belongs to an earlier time that has ended.",
    ),
    "benign": (
        "A harmless passing cause accounts for {name}.",
        "{name} is put down to an everyday cause, so the criterion is not met.",
    ),
    "off": (
        "A present complaint of the writer, but of {other}, not of {name}.",
        "The sentence is about {other}; {name} is not in it.",
    ),
}


class SentenceMaker:
    """Makes labelled sentences, no two the same."""

    def __init__(self, rng: random.Random, taken: set[str]) -> None:
        """Draw from ``rng`` and add each sentence's normal form to ``taken``."""
        self.rng = rng
        self.taken = taken
        self.phrases = {
            name: Deck([Phrase.parse(source) for source in sources], rng)
            for name, sources in PHRASES.items()
        }
        self.benign_death = Deck([Phrase.parse(source) for source in BENIGN_DEATH], rng)
        self.frames = {
            (kind, side): Deck([pair[1 - side] for pair in pairs], rng)
            for kind, pairs in FRAMES.items()
            for side in (0, 1)
        }
        self.plain = {side: Deck(PLAIN_FRAMES, rng) for side in (0, 1)}
        self.kinds: dict[tuple[str, int], Deck] = {
            (name, side): Deck(KINDS, rng) for name in SYMPTOMS for side in (0, 1)
        }
        self.away = [name for name in SYMPTOMS for _ in range(POSTS_PER_SYMPTOM[name])]

    def other_symptom(self, symptom: str, avoid: frozenset[str]) -> str:
        """Draw a symptom well apart from ``symptom`` and not in ``avoid``, by its frequency."""
        while True:
            other = self.rng.choice(self.away)
            if not close(symptom, other) and other not in avoid:
                return other

    def _phrase(self, symptom: str, frame: str) -> Phrase:
        deck = self.phrases[symptom]
        if symptom == "SUICIDAL_THOUGHTS" and "{b}" in frame:
            deck = self.benign_death
        while True:
            phrase = deck.deal()
            assert isinstance(phrase, Phrase)
            if phrase.relative_ok or "{W" not in frame:
                return phrase

    def _render(self, frame: str, symptom: str, avoid: frozenset[str]) -> str:
        rng = self.rng
        phrase = self._phrase(symptom, frame)
        noun, sex = rng.choice(FICTION if "{f}" in frame else PEOPLE)
        slots = {
            "P": phrase.clause("me", has_it=True),
            "D": phrase.clause("me", has_it=False),
            "PP": phrase.clause("me", has_it=True, was=True),
            "DP": phrase.clause("me", has_it=False, was=True),
            "W": phrase.relative("me") if phrase.relative_ok else "",
            "W3": phrase.relative(sex) if phrase.relative_ok else "",
            "x": noun,
            "f": noun,
            "he": PRONOUNS[sex]["I"],
            "him": PRONOUNS[sex]["me"],
            "b": rng.choice(BENIGN[symptom]),
            "ev": rng.choice(EVENTS),
            "per": rng.choice(PERIODS),
            "ok": rng.choice(OK),
            "cond": rng.choice(CONDITIONS),
            "n": rng.choice(NUMBERS),
            "t": rng.choice(TIMES),
            "age": rng.choice(AGES),
            "who": rng.choice(READERS),
        }
        named = "{x}" in frame or "{f}" in frame
        slots["p3"] = phrase.clause(sex, has_it=True, noun="" if named else noun)
        slots["d3"] = phrase.clause(sex, has_it=False, noun="" if named else noun)
        if "{Q" in frame or "{q" in frame:
            other = self._phrase(self.other_symptom(symptom, avoid), frame)
            slots["Q"] = other.clause("me", has_it=True)
            slots["QD"] = other.clause("me", has_it=False)
            slots["QP"] = other.clause("me", has_it=True, was=True)
            slots["q3"] = other.clause(sex, has_it=True, noun="" if named else noun)
        return frame.format(**slots)

    def _finish(self, body: str) -> str:
        rng = self.rng
        if rng.random() < P_PREFIX:
            body = rng.choice(PREFIXES) + body
        if rng.random() < P_SUFFIX:
            body += rng.choice(SUFFIXES)
        text = capitalise(body) + ("?" if body.startswith("can anyone") else ".")
        return contract(text) if rng.random() < P_SHORT else text

    def make(self, symptom: str, status: int, avoid: frozenset[str]) -> Made:
        """Make a sentence annotated with ``symptom`` and ``status``.

        ``avoid`` holds the symptoms of the post, which no side remark may contradict.
        """
        rng = self.rng
        kind = str(self.kinds[symptom, status].deal())
        while True:
            about = symptom
            if kind == "off":
                if status == 0:
                    about = self.other_symptom(symptom, avoid)
                frame = str(self.plain[status].deal())
                if rng.random() < P_SCOPED:
                    borrowed = rng.choice([name for name in KINDS if name != "off"])
                    frame = rng.choice(FRAMES[borrowed])[0]
                    if "{Q" in frame or "{q" in frame:
                        continue
            else:
                frame = str(self.frames[kind, status].deal())
            text = self._finish(self._render(frame, about, avoid))
            if not MIN_WORDS <= len(text.split()) <= MAX_WORDS or normal(text) in self.taken:
                continue
            self.taken.add(normal(text))
            reason = rng.choice(REASONS["present" if status else kind])
            reason = reason.format(name=NAMES[symptom], other=NAMES[about])
            return Made(text, capitalise(reason))


class FillerMaker:
    """Makes everyday sentences around the labelled ones, no two the same."""

    def __init__(self, rng: random.Random, taken: set[str]) -> None:
        """Draw from ``rng`` and add each sentence's normal form to ``taken``."""
        self.rng = rng
        self.taken = taken

    def make(self, templates: list[str]) -> str:
        """Fill one of the templates so that the sentence is new, and use that template up."""
        self.rng.shuffle(templates)
        while True:
            template = templates.pop()
            for _ in range(FILLER_TRIES):
                slots = {name: self.rng.choice(pool) for name, pool in POOLS.items()}
                slots["weather2"] = self.rng.choice(POOLS["weather"])
                slots["thing2"] = self.rng.choice(("my bike", "the drill", "a ladder", "the car"))
                text = capitalise(template.format(**slots))
                if normal(text) not in self.taken:
                    self.taken.add(normal(text))
                    return text


# --------------------------------------------------------------------------------------------
# Posts
# --------------------------------------------------------------------------------------------
def plan_posts(rng: random.Random) -> list[list[tuple[str, int]]]:
    """Lay out (symptom, status) per post so that all the counts come out exactly."""
    n_annotated = N_POSTS - N_PLAIN_POSTS
    tokens = [name for name in SYMPTOMS for _ in range(POSTS_PER_SYMPTOM[name])]
    rng.shuffle(tokens)
    posts = [[token] for token in tokens[:n_annotated]]
    for token in tokens[n_annotated:]:
        while True:
            post = rng.choice(posts)
            if token not in post and len(post) < MAX_SYMPTOMS_PER_POST:
                post.append(token)
                break
    pairs = [(number, name) for number, post in enumerate(posts) for name in post]
    repeats = set(rng.sample(pairs, N_ANNOTATIONS - len(pairs)))

    plan: list[list[tuple[str, int]]] = [[] for _ in posts]
    for name in SYMPTOMS:
        mine = [pair for pair in pairs if pair[1] == name]
        rng.shuffle(mine)
        total = len(mine) + sum(pair in repeats for pair in mine)
        left = round(POSITIVE_SHARE * total)
        for pair in mine:
            weight = 2 if pair in repeats else 1
            status = int(left >= weight)
            left -= weight * status
            plan[pair[0]] += [(name, status)] * weight
    return plan + [[] for _ in range(N_PLAIN_POSTS)]


def build() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Build all posts and annotations as rows."""
    rng = random.Random(SEED)  # noqa: S311 - text, not secrets
    taken: set[str] = set()
    sentences = SentenceMaker(rng, taken)
    filler = FillerMaker(random.Random(SEED + 1), taken)  # noqa: S311 - likewise
    plan = plan_posts(rng)
    rng.shuffle(plan)
    posts: list[dict[str, str]] = []
    annotations: list[dict[str, str]] = []
    topics = sorted(FILLER)
    for number, wanted in enumerate(plan):
        post_id = f"syn_{number + 1:04d}"
        rng.shuffle(wanted)
        avoid = frozenset(name for name, _ in wanted)
        items: list[tuple[str, tuple[str, int] | None, str]] = []
        for name, status in wanted:
            made = sentences.make(name, status, avoid)
            items.append((made.text, (name, status), made.explanation))
        low = max(MIN_SENTENCES - len(items), 1)
        n_filler = min(low + min(rng.randrange(8), rng.randrange(8)), MAX_SENTENCES - len(items))
        templates = [line for topic in rng.sample(topics, 3) for line in FILLER[topic]]
        opens = n_filler >= MIN_SENTENCES and rng.random() < P_OPENER
        closes = n_filler >= MIN_SENTENCES and rng.random() < P_CLOSER
        for _ in range(n_filler - opens - closes):
            spot = rng.randint(0, len(items))
            items.insert(spot, (filler.make(templates), None, ""))
        if opens:
            items.insert(0, (filler.make(list(OPENERS)), None, ""))
        if closes:
            items.append((filler.make(list(CLOSERS)), None, ""))
        lower = rng.random() < P_LOWER
        texts = [item[0].lower() if lower else item[0] for item in items]
        posts.append({"post_id": post_id, "text": " ".join(texts)})
        for index, (text, item) in enumerate(zip(texts, items, strict=True)):
            if item[1] is None:
                continue
            annotations.append(
                {
                    "post_id": post_id,
                    "sentence_id": f"{post_id}_{index}",
                    "sentence_text": text,
                    "DSM5_symptom": item[1][0],
                    "status": str(item[1][1]),
                    "explanation": item[2],
                }
            )
    return posts, annotations


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as UTF-8 CSV with Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write the two CSV files."""
    parser = argparse.ArgumentParser(description="Write the synthetic corpus.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    posts, annotations = build()
    write_csv(out / "redsm5_posts.csv", posts)
    write_csv(out / "redsm5_annotations.csv", annotations)
    print(f"{len(posts)} posts, {len(annotations)} annotations -> {out}")


if __name__ == "__main__":
    main()
