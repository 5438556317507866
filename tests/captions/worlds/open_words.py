"""What is known of words of graphs without a world: names, attributes, predicates.

Written for the tests alone, for by_graph.py. It holds what refutes and what follows, as freely as
a careful reader would: hnc_ds, which must be careful, should not prove more than this does.
"""

from functools import lru_cache

from tests.captions.worlds.lexicon import words

# ---- names

_IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "mice": "mouse", "leaves": "leaf", "shelves": "shelf",
    "knives": "knife", "scarves": "scarf", "hooves": "hoof", "calves": "calf", "wolves": "wolf",
    "loaves": "loaf", "buses": "bus", "glasses": "glass", "lenses": "lens", "shoes": "shoe",
    "toes": "toe", "ties": "tie", "pies": "pie", "cookies": "cookie", "movies": "movie",
    "hoodies": "hoodie", "taxis": "taxi", "skis": "ski", "bikinis": "bikini", "canoes": "canoe",
    "police": "police", "cattle": "cattle", "houses": "house", "horses": "horse",
    "brownies": "brownie", "beanies": "beanie", "axes": "axe", "halves": "half",
    "cherries": "cherry", "mustaches": "mustache", "radishes": "radish", "axles": "axle",
}  # fmt: skip
_SAME = {"sheep", "fish", "deer", "bison", "moose", "aircraft", "series", "shrimp", "salmon"}
_NO_SINGULAR = set(words(
    "pants, jeans, shorts, trousers, leggings, sunglasses, goggles, scissors, clothes, pajamas, "
    "headphones, tights, overalls, binoculars, tongs, snow pants, sweatpants, eyeglasses, "
    "groceries, earphones, stairs, swim trunks, khakis, slacks, suspenders, bleachers"
))  # fmt: skip
_ENDS_IN_S = set(words("bus, gas, lens, canvas, christmas, tennis, news, cactus, asparagus"))


@lru_cache(maxsize=1 << 14)
def one_of(name: str) -> str:
    """The singular of a name, perhaps itself: 'wine glasses' -> 'wine glass'."""
    before, space, word = name.rpartition(" ")
    return f"{before}{space}{_one_of(name, word)}"


def _one_of(name: str, word: str) -> str:
    if name in _NO_SINGULAR or word in _NO_SINGULAR | _SAME | _ENDS_IN_S:
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    for many in ("men", "women", "people", "children"):
        if word.endswith(many):
            return word.removesuffix(many) + _IRREGULAR[many]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2:
        return word[:-1]
    return word


@lru_cache(maxsize=1 << 14)
def many_of(name: str) -> str:
    """The plural of a name in the singular; itself where there is none."""
    before, space, word = name.rpartition(" ")
    return f"{before}{space}{_many_of(name, word)}"


_MANY = {one: many for many, one in _IRREGULAR.items()}
_OES = {"potato", "tomato", "mango", "hero", "buffalo"}


def _many_of(name: str, word: str) -> str:
    if name in _NO_SINGULAR or word in _NO_SINGULAR | _SAME:
        return word
    if word in _MANY:
        return _MANY[word]
    for one in ("man", "woman", "person", "child"):
        if word.endswith(one) and word not in ("human", "german", "ottoman"):
            return word.removesuffix(one) + _MANY[one]
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    if word.endswith(("s", "x", "z", "ch", "sh")) and not word.endswith("stomach"):
        return word + "es"
    return word + ("es" if word in _OES else "s")


def is_always_plural(name: str) -> bool:
    """Whether a name has no singular that names one whole thing: 'jeans'."""
    return name in _NO_SINGULAR or name.rsplit(" ", 1)[-1] in _NO_SINGULAR


def _lines(text: str) -> list[str]:
    """Its lines; one that ends with a comma continues."""
    joined = text.strip().replace(",\n", ", ").splitlines()
    return [" ".join(line.split()) for line in joined]


def _sets(text: str) -> list[frozenset[str]]:
    return [frozenset(words(line)) for line in _lines(text)]


_MEN = frozenset(words("man, boy, guy, gentleman, father, son, cowboy, policeman, fireman, groom"))
_WOMEN = frozenset(words("woman, girl, lady, mother, daughter, bride, waitress"))
_BABIES = frozenset(words("baby, toddler"))
_PARTED = (
    (_MEN, _WOMEN),
    (_BABIES, (_MEN | _WOMEN) - {"boy", "girl", "guy", "son", "daughter"}),
    (_BABIES, frozenset({"guy"})),
)
"""Pairs that exclude each other."""
PEOPLE = _MEN | _WOMEN | frozenset(words(
    "person, people, human, child, kid, baby, toddler, player, baseball player, tennis player, "
    "soccer player, skier, snowboarder, surfer, skateboarder, skater, rider, driver, worker, "
    "umpire, catcher, batter, pitcher, spectator, fan, pedestrian, crowd, audience, family, "
    "couple, group, student, officer, police officer, police, soldier, chef, cook, passenger, "
    "cyclist, biker, motorcyclist, swimmer, customer, waiter, vendor, tourist, friend, adult, "
    "jockey, performer, athlete, referee, coach, team, shopper, photographer, pilot, farmer, "
    "visitor, guest, employee, bartender, model, artist, doctor, nurse, teacher, guard, sailor"
))  # fmt: skip
_ANIMALS = _sets("""
    dog, puppy, pet
    cat, kitten, pet
    horse, pony, foal
    cow, bull, calf, cattle, ox, bison, buffalo
    sheep, lamb, ram, goat
    bird, duck, duckling, goose, seagull, gull, pigeon, chicken, hen, rooster, swan, parrot, owl,
      eagle, crow, penguin, ostrich, peacock, flamingo, turkey
    elephant
    giraffe
    zebra
    bear, polar bear, teddy bear, panda, panda bear, cub
    monkey, ape, gorilla
    deer, antelope, elk, moose, gazelle
    fish, shark, dolphin, whale
    lion, tiger, leopard, cheetah
    rabbit, bunny
    pig
    donkey, mule
    bug, bee, butterfly, insect, spider, dragonfly, beetle, fly
""")
ANIMALS = frozenset(
    {name for one in _ANIMALS for name in one}
    | set(words("animal, camel, rhino, hippo, snake, turtle, squirrel, frog, herd, flock"))
)
_COULD_BE = _sets("""
    car, taxi, cab, suv, van, jeep, minivan, sedan, police car, vehicle
    truck, pickup, pickup truck, fire truck, food truck, vehicle
    bus, school bus, double decker, vehicle
    train, train car, locomotive, engine, tram, subway, vehicle
    airplane, plane, jet, aircraft, helicopter, vehicle
    boat, ship, canoe, kayak, ferry, sailboat, raft, yacht, vehicle
    motorcycle, motorbike, bike, moped, scooter, vehicle
    bicycle, bike, cycle, vehicle
    cart, carriage, wagon, trailer, stroller, vehicle
    shirt, t-shirt, jersey, blouse, top, sweater, sweatshirt, tank top, polo shirt, dress shirt,
      undershirt, uniform, clothes, outfit, tee shirt
    jacket, coat, vest, hoodie, blazer, suit, robe, uniform, clothes, outfit, raincoat, life jacket
    pants, jeans, trousers, leggings, shorts, slacks, uniform, clothes, outfit, snow pants,
      sweatpants
    dress, gown, skirt, robe, clothes, outfit
    hat, cap, helmet, beanie, visor, hood, cowboy hat, baseball cap, bandana, headband
    shoe, sneaker, boot, sandal, flip flop, heel, slipper, cleat, footwear
    sunglasses, goggles, eyeglasses
    bag, backpack, purse, handbag, suitcase, luggage, sack, briefcase, pouch, shopping bag
    chair, seat, stool, armchair, bench, office chair, recliner, folding chair, furniture, couch,
      sofa, bar stool
    couch, sofa, loveseat, seat, furniture, bench, futon
    table, desk, counter, countertop, coffee table, dining table, end table, nightstand, stand,
      side table, picnic table, furniture, tabletop, dining room table, island
    shelf, bookshelf, bookcase, cabinet, cupboard, drawer, dresser, closet, furniture
    bed, mattress, bunk bed, furniture
    tv, television, monitor, screen, computer monitor, display, computer, laptop
    phone, cell phone, telephone, smartphone, device
    cup, mug, glass, coffee cup, coffee mug, drinking glass, wine glass, beverage, drink
    bowl, dish, plate, pan, tray, platter, saucer, container, pot
    bottle, jar, container, water bottle, wine bottle, beer bottle
    box, crate, container, basket, bin, bucket, case, carton, package, can
    can, trash can, garbage can, bin, trash bin, bucket
    pot, vase, planter, flower pot, kettle, jar, teapot
    fork, knife, spoon, utensil, silverware, spatula, chopstick
    tree, bush, plant, shrub, palm tree, pine tree, forest, hedge, tree trunk, trunk
    leaf, leaves, branch, tree branch, foliage, plant, tree
    flower, rose, bouquet, blossom, plant, daisy, tulip, lily
    grass, field, lawn, ground, weed, park, yard, pasture, meadow, hay, land, hill, hillside
    road, street, sidewalk, pavement, ground, path, parking lot, asphalt, highway, lane, walkway,
      crosswalk, driveway, runway, tarmac
    sand, beach, dirt, ground, soil, mud, shore, gravel
    snow, ground, ice
    snow, slope, hill
    water, ocean, sea, lake, river, pond, wave, pool, stream, puddle, river water
    sky, cloud, air, background
    mountain, hill, hillside, cliff, rock, slope
    rock, stone, boulder, brick, pebble, gravel
    building, house, tower, church, store, shop, skyscraper, barn, hotel, apartment, restaurant,
      castle, structure, home, shed, station, hut, garage, city, clock tower, cabin, temple
    sign, street sign, stop sign, traffic sign, poster, banner, billboard, logo, label, sticker,
      board, symbol, parking sign
    picture, painting, photo, photograph, poster, frame, picture frame, artwork, art, drawing,
      portrait, image
    light, lamp, street light, light fixture, traffic light, chandelier, light bulb, street lamp,
      headlight
    pole, post, light pole, street light, column, pillar, lamp post, telephone pole, fence post,
      flag pole, power pole, sign post, stick
    fence, wall, gate, railing, rail, barrier, guard rail
    rug, carpet, mat, floor, ground, tile
    window, glass, windshield, mirror, pane
    door, doorway, gate
    curtain, drape, blind, shade, shower curtain
    blanket, sheet, comforter, bedspread, quilt, cloth, tablecloth, cover
    towel, cloth, napkin
    pillow, cushion, pillowcase
    book, magazine, notebook, newspaper, paper, menu
    paper, note, card, napkin, tissue, paper towel, toilet paper, envelope, document
    oven, stove, microwave, appliance, toaster, microwave oven, stove top
    refrigerator, fridge, freezer, appliance
    sink, bathtub, tub, basin, toilet
    toy, doll, stuffed animal, teddy bear, figurine, statue, sculpture, stuffed bear, figure,
      bear, animal
    ball, baseball, basketball, football, soccer ball, tennis ball
    bat, baseball bat, racket, tennis racket, paddle
    board, skateboard, surfboard, snowboard, ski
    kite, balloon, parachute
    hair, beard, fur, mane, mustache
    letter, number, word, writing, sign, logo, graffiti, text, character
    vegetable, carrot, tomato, broccoli, lettuce, onion, pepper, mushroom, potato, bean, spinach,
      celery, cucumber, pea, corn, food, salad, topping, produce, cabbage
    fruit, apple, banana, orange, lemon, lime, grape, strawberry, berry, pineapple, cherry, peach,
      pear, melon, watermelon, food, produce, mango
    cake, cupcake, cookie, dessert, pie, donut, pastry, muffin, food, ice cream, brownie,
      chocolate, candy, snack
    bread, bun, toast, sandwich, burger, hamburger, hot dog, pizza, meal, food, pizza slice,
      bagel, roll, croissant, snack
    meat, sausage, chicken, bacon, ham, beef, steak, pepperoni, topping, food, fish, shrimp
    food, rice, pasta, noodle, egg, cheese, soup, meal, dish, breakfast, lunch, dinner, snack,
      fry, french fry, cereal
    sauce, ketchup, mustard, dip, dressing, condiment, gravy, syrup
    coffee, tea, water, drink, beverage, wine, beer, juice, soda, milk, liquid

    hand, finger, fist, arm, thumb
    foot, leg
    foot, shoe
    foot, hoof, paw
    wheel, tire
    train track, track, railroad, rail
    platform, sidewalk, floor, stage
    device, ipod
    device, camera
    device, remote, controller, remote control
    device, tablet
    person, mannequin, statue, doll
""")
_OF = {
    name: frozenset(i for i, one in enumerate((*_ANIMALS, *_COULD_BE)) if name in one)
    for one in (*_ANIMALS, *_COULD_BE)
    for name in one
}


@lru_cache(maxsize=1 << 17)
def could_be(name: str, other: str) -> bool:
    """Whether a thing that goes by one name (in the singular) could go by another one."""
    if name == other or name.endswith(" " + other) or other.endswith(" " + name):
        return True
    if {name, other} <= PEOPLE:
        return not any(
            (name in one and other in two) or (name in two and other in one) for one, two in _PARTED
        )
    if "animal" in (name, other) and {name, other} <= ANIMALS:
        return True
    return not _OF.get(name, frozenset()).isdisjoint(_OF.get(other, frozenset()))


UNBOUNDED = frozenset(words(
    "sky, ground, grass, field, floor, road, street, sidewalk, pavement, snow, beach, sand, dirt, "
    "soil, mud, gravel, air, background, parking lot, lawn, land, wall, ceiling, water, ocean, "
    "sea, room, tile, crosswalk, runway, path, walkway, court, carpet, cloud, tree, bush, leaf, "
    "plant, hill, mountain, forest, river, lake, pond, track, train track, railroad, yard, park, "
    "pasture, meadow, garden, hillside, shadow, light, smoke, wave, crowd, kitchen, bathroom, "
    "bedroom, city, intersection, highway, platform, ice, shore, rope, leash, string, kite, line, "
    "foliage, branch, stadium, store, restaurant, building, tarmac, asphalt, desert, harbor, sun"
))  # fmt: skip
"""Extends beyond its box, or is held from afar."""

# ---- attributes


def _near(text: str) -> set[frozenset[str]]:
    """'white: cream, beige': pairs that are arguable of one thing."""
    rows = [line.split(": ") for line in _lines(text)]
    return {frozenset({head, other}) for head, rest in rows for other in words(rest)}


_NEAR_COLOURS = _near("""
    white: cream, beige, silver, gray, light blue, tan, blond, ivory, off white
    black: dark blue, navy, dark brown, gray, brown, dark gray, dark green, brunette
    gray: silver, light blue, green, tan, beige, khaki, blue, light gray, dark gray, brown, blond
    brown: tan, beige, dark brown, light brown, khaki, gold, red, orange, brunette, maroon, blond
    blond: tan, light brown, yellow, gold, beige, white, orange, brown, cream
    red: maroon, pink, orange, light brown, dark brown
    orange: yellow, gold, light brown, tan, pink, blond
    yellow: gold, cream, green, beige, tan, blond
    tan: beige, cream, khaki, gold, light brown
    beige: cream, khaki, light brown
    cream: khaki
    purple: pink, blue, maroon, navy, dark blue
    pink: maroon
    blue: light blue, dark blue, navy, teal
    light blue: teal
    dark blue: navy, teal
    green: teal, khaki, dark green, light green
    light brown: gold, khaki, dark brown, brunette
    dark brown: brunette, maroon
    silver: light gray
""")
COLOURS = frozenset(name for pair in _NEAR_COLOURS for name in pair)
SECOND_COLOUR = frozenset(words(
    "striped, plaid, spotted, dotted, checkered, floral, patterned, multicolored, colorful, "
    "black and white, camouflage, printed, painted, mixed, tabby, speckled, calico, rusty, "
    "reflective, decorated, stained, shiny, flowered, rainbow colored, assorted"
))  # fmt: skip
"""Attributes of things with more than one colour."""

_OPPOSITES = [
    tuple(frozenset(words(side)) for side in line.split("|"))
    for line in """
    large, big, huge, giant, enormous, massive, oversized | small, little, tiny, miniature
    tall, long | short
    thick | thin
    wide | narrow
    deep | shallow
    old, elderly, antique, vintage, weathered, worn | young, new, modern, baby
    rough | smooth
    soft | hard
    clean | dirty, dusty, muddy, murky, stained
    wet | dry
    neat, tidy, organized, made | messy, cluttered, unmade
    empty, unoccupied, vacant | full, crowded, packed, half full, occupied
    full | half full
    open, opened | closed, shut
    on, turned on, lit, illuminated, glowing, lighted | off, turned off, unlit
    dark | bright, light
    straight | curved, bent, crooked, curly, wavy
    round, circular, oval | square, rectangular, triangular
    square, rectangular, octagonal | triangular
    square, rectangular | octagonal
    vertical | horizontal
    leafy, lush | leafless, bare
    paved, asphalt | unpaved, gravel
    ripe | unripe
    peeled | unpeeled
    raw, uncooked | cooked, baked, boiled, fried, grilled, roasted, steamed, toasted
    long sleeved | short sleeved, sleeveless
    short sleeved | sleeveless
    clear, cloudless, sunny | cloudy, overcast
    calm, still | choppy, wavy, rough
    happy, laughing, smiling | sad, angry, unhappy, crying
    male | female
    real | fake, artificial
    blond | brunette
    blond, brunette, black, brown, red | bald
    fat, chubby | thin, skinny, slim
    standing | sitting, seated, lying, lying down, sleeping
    walking, running | sitting, seated, lying, lying down, sleeping, kneeling, crouching, squatting
    sitting, seated | lying, lying down
    crouching, kneeling, squatting | lying, lying down
    parked | moving, driving
    striped | dotted, spotted, speckled, floral, flowered, plain, solid, plaid, checkered
    dotted, spotted, speckled | floral, flowered, plain, solid, plaid, checkered
    plaid, checkered | floral, flowered, plain, solid
    floral, flowered | plain, solid
    sliced, chopped, cut, halved | whole, uncut
    sharp | dull, blunt
    hot | cold
    up | down
    shaggy, hairy, furry | bald, hairless
    heavy | light
    low | high, tall
    dark colored | light colored
    fat | skinny
    thick | skinny
    adult | baby
    tight | loose
    pointy | rounded
    dense | sparse, patchy
    mowed, manicured | overgrown
    tiled | carpeted
    clear, cloudless | foggy, hazy
    lighted | unlit
    crouched | lying, lying down, walking, running
""".strip().splitlines()
]  # fmt: skip
_NEAR_MATERIALS = _near("""
    wood: bamboo, hardwood, wicker, cardboard, paper, straw
    metal: aluminum, brass, bronze, chrome, copper, iron, stainless steel, steel, tin, glass,
      plastic
    steel: stainless steel, iron, chrome
    bronze: brass, copper
    glass: crystal, ceramic, porcelain, plastic
    plastic: rubber, vinyl, styrofoam, leather, paper, ceramic, porcelain
    brick: stone, cobblestone, concrete, clay, rock
    stone: concrete, marble, granite, rock, cobblestone, clay, ceramic
    concrete: marble, granite, rock, cobblestone, asphalt
    ceramic: clay, porcelain, marble, china
    leather: rubber, vinyl
    rubber: vinyl
    cloth: cotton, fabric, silk, wool, denim
    cotton: fabric, denim, wool
    fabric: silk, wool, denim
    wicker: straw, bamboo, rattan
    straw: bamboo
    cardboard: paper
    styrofoam: paper
    marble: porcelain, granite
    gravel: dirt, stone, asphalt
""")
MATERIALS = frozenset(name for pair in _NEAR_MATERIALS for name in pair)
ATTRIBUTES = COLOURS | SECOND_COLOUR | {a for sides in _OPPOSITES for one in sides for a in one}
"""Those that something is known about, but for materials."""
SAME_ATTRIBUTE = {
    "wooden": "wood", "woolen": "wool", "grey": "gray", "lying": "lying down", "blonde": "blond",
    "long-sleeved": "long sleeved", "short-sleeved": "short sleeved", "metallic": "metal",
    "cement": "concrete", "cream colored": "cream", "gold colored": "gold",
    "golden": "gold", "colourful": "colorful",
}  # fmt: skip


@lru_cache(maxsize=1 << 15)
def exclude(attribute: str, other: str) -> bool:
    """Whether a thing that has one attribute cannot well have the other one."""
    if attribute == other:
        return False
    if {attribute, other} <= COLOURS:
        return frozenset((attribute, other)) not in _NEAR_COLOURS
    if {attribute, other} <= MATERIALS:
        return frozenset((attribute, other)) not in _NEAR_MATERIALS
    return any(
        (attribute in sides[0] and other in sides[1])
        or (attribute in sides[1] and other in sides[0])
        for sides in _OPPOSITES
    )


# ---- predicates

_VERBS_OF_PLACE = frozenset(words(
    "sitting, standing, lying, sleeping, resting, parked, hanging, hung, walking, running, riding, "
    "growing, mounted, perched, stacked, piled, floating, flying, swimming, grazing, driving, "
    "skiing, skating, displayed, printed, painted, drawn, sewn, stuck, served, sprinkled, "
    "scattered, kept, playing, jumping, kneeling, wading, balancing, traveling, placed, docked, "
    "posing, crouching, reflected, worn, working, eating, surfing, reflecting, cooked, draped"
))  # fmt: skip
_PLACES = words(
    "on, on top of, in, inside, under, underneath, beneath, near, next to, beside, by, behind, "
    "in front of, above, over, at, with, against, along, alongside, around, outside, from, off, "
    "out of, down, up, across, through, past, toward, towards, into, to, for, onto, away from, "
    "close to, below, atop"
)
PREDICATES = frozenset(f"{verb} {place}" for verb in _VERBS_OF_PLACE for place in _PLACES)
"""Every verb of place with every place."""
_FOLLOWS = {
    "on top of": "on", "atop": "on", "onto": "on", "riding": "on", "riding on": "riding",
    "inside": "in", "inside of": "in", "underneath": "under", "beneath": "under", "under": "below",
    "over": "above", "beside": "next to", "alongside": "next to", "by": "next to",
    "next to": "near", "close to": "near", "carrying": "holding", "holding onto": "holding",
    "worn on": "on", "worn around": "around", "hugging": "touching", "petting": "touching",
    "kissing": "touching", "licking": "touching", "biting": "touching", "leaning on": "touching",
    "leaning against": "touching", "covered in": "covered by", "covered with": "covered by",
    "full of": "filled with", "covering": "on", "filled with": "containing",
    "staring at": "looking at", "watching": "looking at", "observing": "looking at",
    "outside of": "outside", "bigger than": "larger than", "chewing": "eating",
    "walking towards": "walking toward", "wearing": "touching", "holding": "touching",
}  # fmt: skip
"""What follows from a predicate; 'by', 'beside' and 'next to' are synonyms, for example."""
_SAY_THE_SAME = _sets("""
    next to, beside, by, alongside
    near, close to
    under, underneath, beneath
    covered by, covered in, covered with
    full of, filled with
    larger than, bigger than
    outside, outside of
    walking toward, walking towards
    in, inside
    on, on top of, atop
    above, over
    below, under
    holding, carrying, holding onto
    looking at, watching, staring at, observing
""")
_BACK = {
    "to the left of": "to the right of", "above": "below", "in front of": "behind",
    "covering": "covered by", "pulling": "pulled by", "pushing": "pushed by",
    "following": "followed by", "surrounding": "surrounded by", "larger than": "smaller than",
    "taller than": "shorter than", "wearing": "worn on", "containing": "in", "near": "near",
    "next to": "next to", "touching": "touching", "longer than": "shorter than",
    "walking with": "walking with", "playing with": "playing with", "talking to": "talking to",
    "with": "with", "hugging": "hugging", "kissing": "kissing", "attached to": "attached to",
    "connected to": "connected to", "leading": "followed by", "hanging over": "below",
    "chasing": "followed by", "towing": "pulled by", "dragging": "pulled by",
}  # fmt: skip
_BACK = {b: a for a, b in reversed(_BACK.items())} | _BACK


@lru_cache(maxsize=1 << 14)
def place_in(predicate: str) -> str:
    """'on' of 'sitting on'; '' of a predicate that is no verb of place."""
    verb, _, place = predicate.partition(" ")
    return place if verb in _VERBS_OF_PLACE else ""


@lru_cache(maxsize=1 << 14)
def follows(predicate: str, loosely: bool = False) -> frozenset[str]:
    """All that holds between the same two things, itself included.

    Args:
        predicate: What is known.
        loosely: Also what somebody else could have said in its place.
    """
    found: set[str] = set()
    pending = [predicate]
    while pending:
        one = pending.pop()
        if one in found or not one:
            continue
        found.add(one)
        pending += [place_in(one), _FOLLOWS.get(one, "")]
        # 'in' and 'inside' are the same only loosely: one follows from the other.
        same = _SAY_THE_SAME if loosely else _SAY_THE_SAME[:8]
        pending += [other for row in same if one in row for other in row]
    return frozenset(found)


@lru_cache(maxsize=1 << 14)
def follows_back(predicate: str, loosely: bool = False) -> frozenset[str]:
    """All that holds between them the other way round."""
    return frozenset(
        name
        for one in follows(predicate, loosely)
        if one in _BACK
        for name in follows(_BACK[one], loosely)
    )


_ONLY_ONE_OF = _sets("""
    to the left of, to the right of
    above, below
    in front of, behind
    in front of, inside
    behind, inside
    on, under
    in, outside
    in, under
    on, inside
    wearing, holding, riding, eating, kicking, throwing, petting, reading, driving, cutting,
      pulling, pushing
    wearing, carrying
    wearing, looking at
    carrying, riding, sitting on, standing on, lying on
    holding, standing on
    holding, sitting on
    holding, lying on
    holding, under
    carrying, under
    wearing, on top of
    wearing, in
    entering, leaving, exiting
    getting on, getting off
    walking up, walking down
    walking toward, walking away from
    larger than, smaller than
    taller than, shorter than
    longer than, shorter than
    opening, closing
    on, hanging above
    touching, across from
    covering, covered by
    surrounding, surrounded by
    walking on, standing on, sitting on, lying on, riding
    standing on, sitting on, lying on, kneeling on
    walking in, sitting in, lying in
    standing in, sitting in, lying in
    standing by, sitting by, lying by
    on, hanging from
    attached to, on top of
    throwing, catching, hitting, holding, kicking
    flying, holding, riding
    grazing on, lying on, sitting on
    parked on, driving on
    parked in, driving in
    sitting, standing, lying
    washing, eating, drinking
    on, below
    above, under
    in, above
    in, below
    inside, to the left of
    inside, to the right of
""")
ONE_WAY = frozenset(words(
    "to the left of, to the right of, above, below, in front of, behind, on, in, wearing, riding, "
    "driving, eating, drinking, reading, holding, carrying, covering, covered by, pulling, "
    "pulled by, pushing, pushed by, chasing, surrounding, surrounded by, larger than, "
    "smaller than, taller than, shorter than, longer than, hanging from, filled with, "
    "containing, under, over, "
    "inside, worn on, cutting, flying, throwing, hitting, kicking, catching, swinging, using, "
    "feeding, printed on, parked on, mounted on, topped with, reflected in, floating on, "
    "growing on, crossing, entering, plugged into, wrapped around, playing, petting, herding"
))  # fmt: skip
"""Not so of two things both ways round."""
ONE_BEARER = frozenset(words(
    "wearing, riding, holding, carrying, eating, driving, worn on, reading, swinging, throwing, "
    "flying, catching, cutting, using, drinking, kicking, hitting, playing, sitting on"
))  # fmt: skip
"""What one of two does with a thing the other one does not."""
TOUCHING = frozenset(words(
    "on, in, wearing, riding, eating, driving, holding, carrying, covering, covered by, touching, "
    "filled with, hanging from, worn on, cutting, hitting, kicking, petting, leaning on, "
    "leaning against, wrapped around, attached to, topped with, printed on, swinging, "
    "of, plugged into, inside, drinking, biting, licking, sniffing, hugging, kissing, using"
))  # fmt: skip
STATED = ONE_WAY | ONE_BEARER | TOUCHING | {p for row in _ONLY_ONE_OF for p in row} | {*_BACK}
"""Predicates that something is known about."""
STANCES = (
    frozenset({"sitting", "kneeling"}),
    frozenset({"standing", "walking", "running", "jumping", "skating"}),
    frozenset({"lying", "sleeping"}),
    frozenset({"swimming", "wading"}),
    frozenset({"flying"}),
)


@lru_cache(maxsize=1 << 15)
def rules_out(known: str, claimed: str) -> bool:
    """Whether what is known between two things leaves no room for what is claimed."""
    one, other = follows(known), follows(claimed)
    if claimed in one:
        return False
    return any(
        a != b and {a, b} <= row for row in _ONLY_ONE_OF for a in one & row for b in other & row
    ) or _stances_differ(known, claimed)


def _stances_differ(known: str, claimed: str) -> bool:
    verbs = [predicate.partition(" ")[0] for predicate in (known, claimed)]
    stances = [next((s for s in STANCES if verb in s), None) for verb in verbs]
    return None not in stances and stances[0] != stances[1]
