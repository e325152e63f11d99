"""Plain words for what is on a photo: synonyms of COCO's 80 categories, and parents of ImageNet's 1000 classes.

Both lists are this project's own. `objects_named` reads a caption the way CHAIR does (Rohrbach et al. 2018,
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


# Words too broad to be close: they say nothing that a photo's class does not share with dozens of others.
_BROAD = frozenset(
    [
        "animal",
        "vehicle",
        "instrument",
        "building",
        "furniture",
        "machine",
        "tool",
        "weapon",
        "clothes",
        "food",
        "fruit",
        "vegetable",
        "drink",
        "plant",
        "toy",
        "jewelry",
        "water",
        "light",
        "glass",
        "person",
    ]
)

# Ranges include both ends. A class has every word whose ranges hold it; the first is its closest plain parent.
_PARENTS: dict[str, str] = {
    "shark": "2-4",
    "ray": "5-6",
    "fish": "0-6 389-397",
    "chicken": "7-8",
    "owl": "24",
    "duck": "97-98",
    "goose": "99",
    "eagle": "22",
    "parrot": "87-90",
    "penguin": "145",
    "bird": "7-24 80-100 127-146",
    "salamander": "25-29",
    "frog": "30-32",
    "turtle": "33-37",
    "lizard": "38-48",
    "crocodile": "49-50",
    "dinosaur": "51",
    "snake": "52-68",
    "spider": "72-77",
    "kangaroo": "104",
    "koala": "105",
    "bear": "294-297",
    "jellyfish": "107",
    "coral": "108-109 973",
    "snail": "112-113 117",
    "slug": "114-115",
    "worm": "110-111",
    "crab": "118-121 125",
    "lobster": "122-124",
    "whale": "147-148",
    "seal": "149-150",
    "dog": "151-268 273-275",
    "wolf": "269-274",
    "fox": "277-280",
    "cat": "281-287",
    "lion": "291",
    "tiger": "292",
    "leopard": "288-290 293",
    "big cat": "286-293",
    "mongoose": "298-299",
    "sea urchin": "328",
    "beetle": "300-307",
    "fly": "308",
    "bee": "309",
    "butterfly": "321-326",
    "dragonfly": "319-320",
    "insect": "300-326",
    "starfish": "327",
    "rabbit": "330-332",
    "squirrel": "335-336",
    "beaver": "337",
    "hamster": "333 338",
    "rodent": "333-338",
    "horse": "339",
    "zebra": "340",
    "pig": "341-343",
    "hippo": "344",
    "cow": "345-347",
    "sheep": "348-350",
    "goat": "348-350",
    "antelope": "351-353",
    "camel": "354-355",
    "weasel": "356-362",
    "ape": "365-369",
    "monkey": "365-384",
    "elephant": "101 385-386",
    "panda": "387-388",
    "animal": "102-106 276 298-299 333-338 340-364 387-388",
    "guitar": "402 546",
    "piano": "579 881",
    "drum": "541 822",
    "violin": "486 889",
    "flute": "558 683 699",
    "trumpet": "513 566 875",
    "saxophone": "776",
    "instrument": "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 "
    "889",
    "airplane": "404 726 895 908",
    "ship": "403 510 628 724 780",
    "boat": "403 472 510 554 576 625 628 694 724 780 814 833 871 914 484",
    "bus": "654 779 874",
    "train": "466 547 565 705 820 829",
    "truck": "407 555 569 586 675 717 734 803 864 867",
    "van": "407 656 675 734",
    "car": "407 436 468 511 573 575 581 609 627 656 661 751 817",
    "bicycle": "444 671 870 880",
    "motorcycle": "665 670",
    "vehicle": "403-405 407 436 450 466 468 511 537 547 555 561 565 569 573 575 586 595 603 609 612 621 627 654 656 "
    "660-661 665 670-671 675 690 705 717 730 734 751 757 779 802-803 817 820 829 847 856 864 866-867 870 874 880",
    "tractor": "595 730 856 866",
    "tank": "847",
    "balloon": "405 417",
    "cart": "428 603 612 690 791",
    "wheel": "479 535 694 739",
    "house": "410 425 449 448 500 580 660 853 858 915",
    "barn": "425",
    "church": "442 497 663",
    "castle": "483 698",
    "mosque": "668",
    "temple": "832",
    "tower": "437 900",
    "building": "410 425 442 449 483 497 498 580 634 660 663 668 698 727 743 762 832 873 884 900 624",
    "bridge": "821 839 888",
    "dock": "536 718",
    "fence": "489 716 912",
    "wall": "421 825",
    "statue": "458 682 708 863",
    "shop": "415 424 454 467 509 582 788 860 865",
    "store": "415 424 454 467 509 582 788 860 865",
    "stage": "819 854",
    "fountain": "562",
    "sign": "919 916 922",
    "traffic light": "920",
    "light": "607 619 818 846 862 920",
    "lamp": "619 846",
    "candle": "470",
    "clock": "409 530 531 604 826 835 892",
    "watch": "531 826",
    "phone": "487 528 707",
    "mailbox": "637",
    "computer": "527 590 620 681 662 916",
    "laptop": "620 681",
    "keyboard": "508 810 878",
    "mouse": "673",
    "screen": "664 782",
    "television": "548 598 664 851",
    "monitor": "527 664 782",
    "radio": "482 485 754 848",
    "camera": "622 732 759",
    "remote control": "761 613",
    "printer": "713 742",
    "machine": "476 480 571 686 739 740 786 800 886 897 713 882",
    "microwave": "651",
    "oven": "766 827",
    "stove": "827",
    "toaster": "859 891",
    "refrigerator": "760",
    "dishwasher": "534 897",
    "sink": "896",
    "bathtub": "435 876",
    "toilet": "861 999",
    "chair": "423 559 765 857",
    "bench": "703",
    "couch": "831",
    "bed": "431 516 520 564",
    "pillow": "721",
    "table": "526 532 736",
    "desk": "526 527",
    "shelf": "453 729",
    "cabinet": "493 495 548 553 648 894",
    "furniture": "423 431 453 493 495 516 520 526 532 548 553 559 564 703 736 765 831 846 857 894",
    "door": "789 799",
    "window": "904-905",
    "curtain": "794 854",
    "bottle": "440 680 737 898 907 720 711 899 901",
    "glass": "441 503 572",
    "cup": "441 504 647 968 969 967",
    "bowl": "659 809 925-926",
    "vase": "883 725",
    "plate": "923 868",
    "pot": "469 505 521 544 738 849 909 567",
    "pan": "567 909",
    "spoon": "618 910 813",
    "knife": "499 623 777",
    "can": "412 653 503",
    "bag": "414 636 728 748 797 692",
    "handbag": "748 636",
    "backpack": "414",
    "basket": "588 790",
    "box": "478 492 519 692 709 771",
    "barrel": "427 756",
    "bucket": "463",
    "book": "917 921 624 681",
    "paper": "549 700 918 999 921-922",
    "pen": "418 563 749",
    "ball": "429-430 522 574 722 768 805 852 890",
    "baseball": "429 981",
    "racket": "752",
    "ski": "795",
    "tennis": "752 852",
    "gun": "413 471 763-764",
    "weapon": "413 471 499 597 657 744 763-764 777",
    "tool": "462 473 477 512 561 571 583 587 596 606 623 657 677 710 714 730-731 740 783-784 792 818",
    "hammer": "587",
    "ax": "596",
    "shovel": "792",
    "umbrella": "879",
    "hat": "439 452 515 518 560 667 715 793 808 433",
    "helmet": "518 560 715",
    "mask": "570 643 796 691",
    "glasses": "836-837",
    "shoe": "502 514 630 770 774",
    "boot": "514",
    "sock": "496 806",
    "glove": "658",
    "tie": "451 457 906",
    "robe": "399-400",
    "skirt": "655 689 601",
    "dress": "399 578 601 614",
    "coat": "474 501 568 617 735 869",
    "shirt": "610 841",
    "vest": "465",
    "suit": "834",
    "uniform": "652 400",
    "pants": "608 697 529",
    "swimsuit": "445 638-639 842",
    "bra": "459",
    "clothes": "399-400 411 443 445 451 457 459 465 474 501 529 552 568 578 601 608 610 614 617 638-639 652 655 658 "
    "689 697 735 775 824 834 841-842 869 887 906 911",
    "jewelry": "464 584 679",
    "towel": "434 533 700",
    "rug": "539 741",
    "blanket": "750",
    "rope": "616",
    "chain": "488 490 679",
    "net": "669",
    "tent": "672 915",
    "flag": "557",
    "heater": "753 811",
    "teddy bear": "850",
    "toy": "398 417 605 611 646 719 723 850 865 870 843",
    "ice cream": "928-929",
    "cake": "927",
    "bread": "930-932 961",
    "burger": "933",
    "sandwich": "933",
    "hot dog": "934",
    "pizza": "963",
    "pasta": "959",
    "soup": "925-926",
    "meat": "962 964",
    "broccoli": "937",
    "vegetable": "935-947",
    "mushroom": "947 991-997",
    "apple": "948",
    "orange": "950",
    "lemon": "951",
    "banana": "954",
    "fruit": "948-957",
    "corn": "987 998",
    "flower": "984-986",
    "plant": "580 738 984-990",
    "nut": "988 990",
    "wine": "907 966",
    "coffee": "504-505 550 967",
    "drink": "440 966-967 969",
    "food": "924-965",
    "cliff": "972",
    "mountain": "970 972 979-980",
    "hill": "972 979",
    "volcano": "980",
    "beach": "460 976-978",
    "ocean": "460 973 977-978",
    "lake": "525 975",
    "water": "525 536 562 718 971 974-978",
    "field": "958 984 987",
    "baseball player": "981",
    "man": "982-983 981",
    "person": "981-983 724",
    "diver": "983",
}


def _indices(ranges: str) -> set[int]:
    found: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@functools.cache
def imagenet_parents(index: int, broad: bool = False) -> tuple[str, ...]:
    """Return the plain words that are close parents of ImageNet class `index` (0–999), the closest first.

    With `broad`, words such as "animal" or "furniture" follow. The index order of ImageNet's 1000 classes is taxonomic
    for animals, so that most of their parents are ranges. Classes without a plain parent give an empty tuple.
    """
    if not 0 <= index < 1000:
        raise ValueError(f"ImageNet has the classes 0 to 999, not {index}.")
    words = [word for word, ranges in _PARENTS.items() if index in _indices(ranges)]
    close = tuple(word for word in words if word not in _BROAD)
    return close + tuple(word for word in words if word in _BROAD) if broad else close


def names_class(caption: str, index: int, name: str) -> bool:
    """Say whether a caption names ImageNet class `index` by its `name` or by a close parent, in singular or plural."""
    text = caption.lower().replace("-", " ")
    for word in (name.lower().replace("-", " "), *imagenet_parents(index)):
        if re.search(rf"\b({re.escape(word)}|{re.escape(plural(word))})\b", text):
            return True
    return False


def objects_pattern() -> re.Pattern[str]:
    """Return the pattern that finds the words and phrases of `objects_named` in a caption in lower case."""
    return _reader()[0]
