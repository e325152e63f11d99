"""Plain words for what is on a photo: synonyms of COCO's 80 categories.

The list is this project's own. `objects_named` reads a caption the way CHAIR does (Rohrbach et al. 2018,
arXiv:1809.02156): each word or phrase that stands for a COCO category counts, the longest phrase first, so that
"hot dog" is no dog and "teddy bear" no bear.
"""

import functools
import re

PERSON = "person"

_SYNONYMS: dict[str, str] = {
    "person": "people man men woman women boy girl child children kid baby toddler lady ladies gentleman gentlemen guy "
    "adult teenager player ballplayer batter pitcher catcher umpire skier snowboarder surfer skateboarder rider "
    "cyclist biker "
    "pedestrian crowd audience spectator passenger driver chef cook waiter waitress worker officer policeman policemen "
    "policewoman soldier student teacher tourist friend family couple bride groom mother father son daughter human "
    "swimmer diver athlete farmer businessman businessmen",
    "bicycle": "bike cycle mountain_bike tricycle",
    "car": "automobile van minivan sedan suv taxi cab convertible limousine jeep hatchback sports_car station_wagon",
    "motorcycle": "motorbike motor_bike moped scooter motor_scooter dirt_bike",
    "airplane": "plane aeroplane aircraft jet airliner jetliner seaplane biplane",
    "bus": "school_bus minibus double_decker trolleybus",
    "train": "locomotive tram streetcar trolley subway_car railcar",
    "truck": "lorry pickup pickup_truck fire_truck fire_engine tow_truck semi",
    "boat": "ship sailboat canoe kayak ferry yacht rowboat speedboat motorboat gondola raft barge",
    "traffic light": "traffic_signal stoplight stop_light",
    "fire hydrant": "hydrant fireplug",
    "stop sign": "stopsign",
    "parking meter": "meter",
    "bench": "park_bench pew",
    "bird": "duck goose geese seagull gull pigeon parrot owl eagle hawk chicken rooster hen swan peacock sparrow crow "
    "flamingo ostrich penguin pelican heron stork robin finch",
    "cat": "kitten kitty tabby",
    "dog": "puppy puppies terrier retriever poodle spaniel hound bulldog labrador sheepdog",
    "horse": "pony ponies foal mare stallion colt",
    "sheep": "lamb ram ewe",
    "cow": "cattle calf calves bull ox oxen",
    "elephant": "",
    "bear": "grizzly polar_bear brown_bear black_bear",
    "zebra": "",
    "giraffe": "",
    "backpack": "rucksack knapsack back_pack",
    "umbrella": "parasol",
    "handbag": "hand_bag purse pocketbook",
    "tie": "necktie bow_tie",
    "suitcase": "luggage briefcase baggage",
    "frisbee": "flying_disc",
    "skis": "ski",
    "snowboard": "snow_board",
    "sports ball": "ball baseball basketball football soccer_ball tennis_ball volleyball softball",
    "kite": "",
    "baseball bat": "bat",
    "baseball glove": "glove mitt catcher's_mitt",
    "skateboard": "skate_board",
    "surfboard": "surf_board",
    "tennis racket": "racket racquet tennis_racquet",
    "bottle": "wine_bottle beer_bottle water_bottle flask",
    "wine glass": "wineglass wine_goblet goblet",
    "cup": "mug teacup coffee_cup",
    "fork": "",
    "knife": "knives blade cleaver",
    "spoon": "ladle tablespoon teaspoon",
    "bowl": "",
    "banana": "",
    "apple": "",
    "sandwich": "burger hamburger cheeseburger sub_sandwich",
    "orange": "tangerine clementine",
    "broccoli": "",
    "carrot": "",
    "hot dog": "hotdog",
    "pizza": "",
    "donut": "doughnut",
    "cake": "cupcake cheesecake birthday_cake",
    "chair": "armchair seat stool rocking_chair recliner",
    "couch": "sofa loveseat settee",
    "potted plant": "plant houseplant house_plant flowerpot",
    "bed": "bunk mattress",
    "dining table": "table kitchen_table dinner_table",
    "toilet": "urinal toilet_seat toilet_bowl",
    "tv": "television monitor television_set tv_set",
    "laptop": "computer laptop_computer notebook_computer",
    "mouse": "mice computer_mouse",
    "remote": "remote_control game_controller controller",
    "keyboard": "computer_keyboard",
    "cell phone": "phone cellphone mobile_phone smartphone telephone",
    "microwave": "microwave_oven",
    "oven": "stove",
    "toaster": "toaster_oven",
    "sink": "washbasin basin",
    "refrigerator": "fridge freezer",
    "book": "novel paperback",
    "clock": "clock_tower wristwatch",
    "vase": "",
    "scissors": "scissor shears",
    "teddy bear": "teddy stuffed_animal stuffed_bear plush_toy",
    "hair drier": "hair_dryer hairdryer blow_dryer",
    "toothbrush": "tooth_brush",
}

# Phrases that contain a category's word and are something else; they name none.
_NOT_OBJECTS = (
    "air_plant baseball_cap baseball_diamond baseball_field baseball_game baseball_hat baseball_team baseball_uniform "
    "basketball_court basketball_game bird_house book_shelf bus_stop bus_station car_park cd_player "
    "computer_desk couple_of dog_house flower_bed football_field football_game hot_plate orange_juice power_plant "
    "record_player seat_belt ski_lift ski_slope soccer_field soccer_game table_cloth table_tennis tennis_game "
    "toilet_paper train_station train_track truck_bed"
)

_PERSON_PHRASES = ("baseball player", "basketball player", "football player", "soccer player", "tennis player")

# "An orange cat" holds no orange: before another noun the word is a color.
_ORANGE_COLOR = re.compile(
    r"\borange (?!(?:and|or|in|on|with|at|is|are|next|sitting|to|from|of|that|which)\b)(?=[a-z])"
)

COCO_SYNONYMS: dict[str, tuple[str, ...]] = {
    category: (category, *(word.replace("_", " ") for word in words.split())) for category, words in _SYNONYMS.items()
}
"""Each COCO category with the plain words that stand for it, the category's own name first."""

COCO_CATEGORIES: tuple[str, ...] = tuple(COCO_SYNONYMS)
"""The 80 category names in COCO's order."""


def plural(word: str) -> str:
    """Return the regular English plural of a word or of a phrase's last word."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


@functools.cache
def _reader() -> tuple[re.Pattern[str], dict[str, str]]:
    phrases: dict[str, str] = {}
    for phrase in _NOT_OBJECTS.split():
        phrases[phrase.replace("_", " ")] = phrases[plural(phrase.replace("_", " "))] = ""
    for phrase in _PERSON_PHRASES:
        phrases[phrase] = phrases[plural(phrase)] = PERSON
    for category, words in COCO_SYNONYMS.items():
        for word in words:
            phrases[word] = phrases[plural(word)] = category
    longest_first = sorted(phrases, key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(re.escape(phrase) for phrase in longest_first) + r")\b"), phrases


def objects_named(caption: str) -> set[str]:
    """Return the COCO categories that a caption names by their name or a plain synonym."""
    pattern, phrases = _reader()
    text = _ORANGE_COLOR.sub("", caption.lower().replace("-", " "))
    found = (phrases[match] for match in pattern.findall(text))
    return {category for category in found if category}


def objects_pattern() -> re.Pattern[str]:
    """Return the pattern that finds the words and phrases of `objects_named` in a caption in lower case."""
    return _reader()[0]
