"""The nouns and predicates of the drawn worlds: what a thing may be called, and its grammar.

Written for the tests alone; hnc_ds has lists of its own. Where people could call one thing by
either of two words, both are here, as certain names or as names that could be argued for.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """What a thing really is."""

    name: str
    group: str
    names: frozenset[str]
    """Singular names that are true of it: a puppy is a dog and an animal."""
    arguable: frozenset[str]
    """Names that are arguable for it: a desk may pass for a table."""


def words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _kinds(text: str) -> dict[str, Kind]:
    kinds = {}
    for line in text.strip().splitlines():
        name, group, names, arguable = (part.strip() for part in line.split("|"))
        kinds[name] = Kind(
            name, group, frozenset({name, *words(names)}), frozenset(words(arguable))
        )
    return kinds


KINDS = _kinds("""
    man        | people     | person, guy        |
    woman      | people     | person, lady       |
    boy        | people     | person, child, kid |
    girl       | people     | person, child, kid |
    crowd      | crowds     |                    | person
    dog        | animals    | animal             |
    puppy      | animals    | dog, animal        |
    cat        | animals    | animal             |
    horse      | animals    | animal             |
    cow        | animals    | animal             |
    zebra      | animals    | animal             |
    sheep      | animals    | animal             |
    bird       | animals    | animal             |
    car        | vehicles   | vehicle            |
    taxi       | vehicles   | car, vehicle       |
    bus        | vehicles   | vehicle            |
    truck      | vehicles   | vehicle            |
    motorcycle | cycles     | vehicle            | bike
    bicycle    | cycles     | bike, vehicle      |
    chair      | seats      | seat               |
    stool      | seats      | seat               | chair
    bench      | seats      | seat               |
    couch      | seats      | sofa               | seat
    bed        | seats      |                    |
    table      | tables     |                    | desk
    desk       | tables     |                    | table
    shelf      | tables     |                    |
    cup        | containers |                    | mug
    mug        | containers |                    | cup
    glass      | containers | glasses            | cup
    bowl       | containers |                    | dish
    bottle     | containers |                    |
    vase       | containers |                    |
    box        | containers |                    |
    basket     | containers |                    |
    bag        | containers |                    |
    backpack   | containers | bag                |
    plate      | things     |                    | dish
    book       | things     |                    |
    cell phone | things     | phone              |
    umbrella   | things     |                    |
    kite       | things     |                    |
    ball       | things     |                    |
    laptop     | things     | computer           |
    tv         | things     | television         |
    lamp       | things     |                    | light
    clock      | things     |                    |
    picture    | things     |                    | painting
    skateboard | boards     |                    | board
    surfboard  | boards     |                    | board
    shirt      | clothing   |                    | t-shirt
    t-shirt    | clothing   | shirt              |
    jacket     | clothing   |                    | coat
    coat       | clothing   |                    | jacket
    dress      | clothing   |                    |
    uniform    | clothing   |                    | shirt, jacket
    hat        | clothing   |                    | cap
    cap        | clothing   | hat                |
    helmet     | clothing   |                    | hat
    scarf      | clothing   |                    |
    pants      | clothing   |                    |
    jeans      | clothing   | pants              |
    glasses    | clothing   |                    | sunglasses
    sunglasses | clothing   | glasses            |
    shoe       | clothing   |                    |
    building   | structures |                    | house
    house      | structures | building           |
    fence      | structures |                    |
    pole       | structures |                    | post
    sign       | structures |                    |
    stop sign  | structures | sign               |
    street light | structures |                  | light, pole
    door       | structures |                    |
    wall       | backdrops  |                    |
    tree       | plants     |                    | plant
    palm tree  | plants     | tree               | plant
    bush       | plants     |                    | plant
    flower     | plants     | plant              |
    cloud      | skies      |                    |
    grass      | grounds    |                    |
    snow       | grounds    |                    |
    sand       | grounds    |                    |
    street     | grounds    |                    | road
    road       | grounds    |                    | street
    field      | grounds    |                    |
    sky        | skies      |                    |
    water      | grounds    |                    | lake
    lake       | grounds    | water              |
    sidewalk   | grounds    |                    | path
    frisbee    | things     |                    |
    camera     | things     |                    |
    newspaper  | things     | paper              |
    bat        | things     | baseball bat       |
    racket     | things     | tennis racket      |
    leash      | things     |                    |
    blanket    | covers     |                    | sheet
    tablecloth | covers     | cloth              |
    towel      | covers     |                    | cloth
    boat       | boats      | vehicle            |
    ship       | boats      | vehicle            | boat
    elephant   | animals    | animal             |
    giraffe    | animals    | animal             |
    duck       | animals    | bird, animal       |
    banana     | food       | fruit              |
    apple      | food       | fruit              |
    orange     | food       | fruit              |
    pizza      | food       |                    |
    cake       | food       |                    |
    sandwich   | food       |                    |
    donut      | food       |                    |
    bread      | food       |                    |
    head       | parts      |                    |
    hand       | parts      |                    |
    tail       | parts      |                    |
    wheel      | parts      |                    |
""")

COMMON = ("man", "woman", "dog", "cup", "car", "chair", "shirt", "tree", "bag", "sign", "cat")
"""Half of the things are of these kinds, so that there are namesakes."""

PLURAL_ONLY = {"pants", "jeans", "sunglasses", "glasses"}
"""'glasses' are worn, or they are several things to drink from."""
MASS = {"grass", "snow", "sand", "bread", "fruit", "water", "paper", "sky", "cloth"}
UNCOUNTED_GROUPS = {"grounds", "backdrops", "parts", "crowds", "skies"}
"""Not boxed one by one: there are more of them than anybody annotates."""

_IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "child": "children", "sheep": "sheep",
    "shelf": "shelves", "scarf": "scarves", "puppy": "puppies", "lady": "ladies",
}  # fmt: skip


def plural(name: str) -> str:
    """'bus' -> 'buses'."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


class Form(NamedTuple):
    """What a written name stands for."""

    lemma: str
    plural: bool
    """Whether it takes 'are'."""


def _forms() -> dict[str, Form]:
    forms: dict[str, Form] = {}
    for kind in KINDS.values():
        for name in sorted(kind.names | kind.arguable):
            if name in PLURAL_ONLY:
                forms[name] = Form(name, True)
                continue
            forms.setdefault(plural(name), Form(name, True))
            forms[name] = Form(name, False)
    return forms


FORMS = _forms()
"""Written name -> its singular and number; 'sheep' does not show its number."""

SPELLED = {"TV": "tv", "TVs": "tvs"}
"""Written with capitals."""

NUMBERS = words("zero, one, two, three, four, five, six, seven, eight, nine, ten")

ONE_OF_A_SORT = {"sky"}
"""Mass nouns with an article after another word: 'a blue sky'."""

SOUNDS_LIKE_A = ("uniform",)
"""'a uniform', though it starts with a vowel's letter."""


SIDES = words("to the left of, to the right of, above, below, in front of, behind")
SOFT = words(
    "near, next to, beside, by, with, at, around, close to, alongside, outside, outside of, over, "
    "looking at, watching, facing, across from, on the side of, touching, observing, staring at, "
    "smiling at, looking toward, pointing at, photographing, waiting for, approaching, along, "
    "on the front of, on the back of, on the edge of, on the other side of, surrounded by, "
    "surrounding, reflected in, seen through, hidden by, decorated with, using, leaning over, "
    "sniffing, smelling, guiding, herding, helping, hanging over, growing near, past, toward, "
    "towards, through, from, off, out of, away from, for, to, against, into, onto, down, up, "
    "across, longer than, shorter than, taller than, higher than"
)
"""True or not is a matter of opinion, or of what cannot be seen: never clearly false."""
CONTACT = words(
    "on, on top of, atop, in, inside, under, underneath, beneath, wearing, worn on, worn around, "
    "holding, holding onto, carrying, riding, riding on, riding in, eating, filled with, full of, "
    "covering, covered by, covered in, covered with, attached to, connected to, tied to, "
    "tied around, chained to, wrapped in, wrapped around, mounted on, printed on, painted on, "
    "drawn on, leaning on, leaning against, hanging from, topped with, growing in, growing on, "
    "perched on, crossing, driving, reading, cutting, drinking, typing on, talking on, hitting, "
    "throwing, catching, petting, feeding, licking, biting, kissing, swinging, flying, containing, "
    "plugged into, stuck in, stuck on, resting on, piled on, stacked on, floating on, floating in, "
    "swimming in, flying in, grazing on, grazing in, washing, cleaning, pouring, opening, closing, "
    "boarding, entering, leaving, exiting, climbing, sewn on, mixed with, draped over, set on, "
    "skating on, skiing on, surfing on, surfing in, jumping on, served on, displayed on, "
    "getting on, getting off, dragging, towing, tying, brushing, slicing, cooking, grabbing, "
    "picking up, tossing, playing, blowing out, chewing, chasing, reaching for"
)
DEEDS = words(
    "walking with, talking to, hugging, pulling, pushing, pulled by, pushed by, kicking, "
    "playing with, swinging at, following, followed by, leading, talking with, holding hands with, "
    "standing with, sitting with, posing with"
)
VERBS = words(
    "sitting, standing, lying, walking, running, sleeping, kneeling, crouching, parked, hanging, "
    "growing, flying, floating, swimming, grazing, resting, driving, skiing, skating, surfing, "
    "jumping, playing, perched, mounted, leaning, stacked, waiting, wading, displayed, posing, "
    "traveling, balancing, riding, hung, placed, docked, kept, set, working, eating"
)
"""What comes before a place: 'sitting on'."""
PLACES = words(
    "on, on top of, atop, in, inside, under, underneath, beneath, near, next to, beside, by, "
    "behind, in front of, above, below, over, at, around, outside, outside of, close to, "
    "alongside, along, on the side of, on the front of, on the back of, "
    "on the edge of, on the other side of, "
    "past, toward, towards, through, from, off, out of, away from, for, to, against, into, "
    "onto, down, "
    "up, across, with"
)
STANCES = {
    "sitting": "sitting", "kneeling": "sitting", "crouching": "sitting", "standing": "standing",
    "walking": "standing", "running": "standing", "jumping": "standing", "grazing": "standing",
    "skating": "standing", "wading": "standing", "lying": "lying", "sleeping": "lying",
}  # fmt: skip
"""Posture of a body, as far as a verb implies it."""
_MEANWHILE = {
    "standing": "running, swimming, flying",
    "sitting": "swimming, flying, skiing",
    "lying": "skiing, flying, driving",
    "walking": "kneeling, crouching, swimming, flying, driving, skating, perched, riding, sitting, "
    "lying, sleeping",
    "perched": "lying, walking, running, wading, jumping, flying, swimming, grazing",
    "swimming": "standing, walking, running, flying, kneeling, crouching, grazing, perched, "
    "skiing, driving, riding, skating, sleeping",
    "flying": "standing, sitting, lying, sleeping, walking, running, grazing, perched, wading, "
    "kneeling, crouching, resting, leaning, stacked, parked",
    "printed": "standing, sitting, lying, stacked, floating, mounted, leaning, parked, hanging, "
    "resting, piled, walking",
    "painted": "standing, sitting, lying, stacked, floating, mounted, leaning, parked, hanging, "
    "resting, piled, walking",
    "hanging": "lying, stacked, parked, floating, driving, standing, sitting",
    "parked": "driving, traveling, flying, growing, mounted, stacked, riding",
    "growing": "stacked, mounted, parked, served",
    "mounted": "lying, stacked, floating, leaning, resting",
    "stacked": "floating, growing",
    "floating": "mounted, leaning, walking, running, standing",
    "leaning": "mounted, stacked",
    "driving": "jumping, skating, kneeling, crouching",
    "sleeping": "eating, drinking, reading, playing, talking",
}
NOT_MEANWHILE = {frozenset({one, other}) for one in _MEANWHILE for other in words(_MEANWHILE[one])}
"""Pairs of verbs that exclude each other at a time."""
MUTUAL = {"walking with", "talking to", "hugging", "playing with"}
SIZES = {"larger than": True, "bigger than": True, "smaller than": False}
"""Whether the first one is the larger one."""
PREDICATES = {
    *SIDES, *SOFT, *CONTACT, *DEEDS, *SIZES,
    *(f"{verb} {place}" for verb in VERBS for place in PLACES),
}  # fmt: skip
LONG_TAIL = words(
    "covering, covered by, leaning on, leaning against, attached to, mounted on, hanging from, "
    "growing in, growing on, perched on, grazing in, grazing on, swimming in, floating in, "
    "flying in, driving on, driving down, walking down, crossing, using, reading, drinking, "
    "cutting, throwing, catching, kicking, hitting, swinging, driving, petting, feeding, chasing, "
    "licking, tied to, wrapped around, printed on, painted on, filled with, full of, topped with, "
    "standing next to, sitting at, standing behind, talking on, holding onto, larger than, "
    "smaller than, resting on, stacked on, parked in, sitting in, lying in, standing in, "
    "walking in, sleeping on, running on, worn around, standing near, sitting near, parked near"
)
"""Predicates that annotators seldom use; each of the drawn ones is annotated where it is true."""
INVERSE = {
    "to the left of": "to the right of", "above": "below", "in front of": "behind",
    "pulling": "pulled by", "pushing": "pushed by", "following": "followed by",
    "wearing": "worn on", "covering": "covered by", "larger than": "smaller than",
}  # fmt: skip
INVERSE |= {b: a for a, b in INVERSE.items()}
