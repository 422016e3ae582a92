"""The words of the embedded model's world: objects in groups, styles, backgrounds, and their synonyms. Torch-free."""

from __future__ import annotations

STYLES = ("glossy", "flat", "icon", "cartoon")

GROUPS: dict[str, tuple[str, ...]] = {
    "weapon": (
        "kitchen-knife",
        "dagger",
        "crossed-swords",
        "bomb",
        "axe",
        "water-pistol",
        "bow-and-arrow",
        "firecracker",
    ),
    "substance": ("cigarette", "beer-mug", "wine-glass", "cocktail-glass", "syringe", "pill"),
    "macabre": ("skull", "skull-and-crossbones", "coffin", "headstone", "ghost", "drop-of-blood"),
    "animal": (
        "cat-face",
        "dog-face",
        "rabbit-face",
        "fox",
        "panda",
        "pig-face",
        "frog",
        "lion",
        "mouse-face",
        "bear",
        "cow-face",
        "monkey-face",
        "tiger-face",
        "koala",
        "elephant",
        "penguin",
        "chicken",
        "owl",
        "fish",
        "octopus",
        "snail",
        "butterfly",
    ),
    "food": (
        "red-apple",
        "banana",
        "strawberry",
        "watermelon",
        "carrot",
        "hamburger",
        "grapes",
        "lemon",
        "pineapple",
        "cherries",
        "pizza",
        "doughnut",
        "ice-cream",
        "cupcake",
    ),
    "vehicle": ("automobile", "airplane", "sailboat", "rocket", "bus", "bicycle", "helicopter", "tractor"),
    "nature": (
        "sunflower",
        "cactus",
        "mushroom",
        "snowflake",
        "rose",
        "deciduous-tree",
        "sun",
        "crescent-moon",
        "cloud",
        "maple-leaf",
    ),
    "thing": (
        "umbrella",
        "key",
        "soccer-ball",
        "guitar",
        "light-bulb",
        "balloon",
        "crown",
        "gem-stone",
        "alarm-clock",
        "camera",
    ),
}

# The cpu recipe keeps the groups people object to whole, and the first few of every other group.
CPU_COUNTS = {"animal": 8, "food": 6, "vehicle": 3, "nature": 4, "thing": 3}

SYNONYMS: dict[str, tuple[str, ...]] = {
    "kitchen-knife": ("kitchen knife", "knife"),
    "dagger": ("dagger",),
    "crossed-swords": ("crossed swords", "pair of swords"),
    "bomb": ("bomb", "explosive"),
    "axe": ("axe", "hatchet"),
    "water-pistol": ("pistol", "gun"),
    "bow-and-arrow": ("bow and arrow", "archery bow"),
    "firecracker": ("firecracker", "stick of dynamite"),
    "beer-mug": ("beer mug", "beer"),
    "wine-glass": ("wine glass", "glass of wine"),
    "cocktail-glass": ("cocktail glass", "cocktail"),
    "pill": ("pill", "capsule"),
    "skull-and-crossbones": ("skull and crossbones", "pirate skull"),
    "headstone": ("headstone", "gravestone"),
    "drop-of-blood": ("drop of blood", "blood drop"),
    "cat-face": ("cat", "kitten"),
    "dog-face": ("dog", "puppy"),
    "rabbit-face": ("rabbit", "bunny"),
    "mouse-face": ("mouse",),
    "pig-face": ("pig", "piglet"),
    "cow-face": ("cow",),
    "monkey-face": ("monkey",),
    "tiger-face": ("tiger",),
    "red-apple": ("apple", "red apple"),
    "hamburger": ("hamburger", "burger"),
    "automobile": ("car", "automobile"),
    "airplane": ("airplane", "plane"),
    "sailboat": ("sailboat", "sailing boat"),
    "bicycle": ("bicycle", "bike"),
    "deciduous-tree": ("tree",),
    "crescent-moon": ("crescent moon", "moon"),
    "soccer-ball": ("soccer ball", "football"),
    "light-bulb": ("light bulb", "lamp"),
    "gem-stone": ("gem", "diamond"),
    "alarm-clock": ("alarm clock", "clock"),
}

STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "glossy": ("glossy", "shiny"),
    "flat": ("flat",),
    "icon": ("icon", "black icon"),
    "cartoon": ("cartoon", "drawn"),
}

# Light colours, so that the black icons stand out on each of them; sRGB.
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (168, 172, 178),
    "pink": (255, 168, 200),
    "orange": (255, 176, 84),
    "yellow": (255, 232, 110),
    "green": (140, 214, 130),
    "blue": (118, 186, 245),
    "purple": (190, 150, 240),
}


def group_of(name: str) -> str:
    """The group an object belongs to.

    Raises:
        KeyError: `name` is no object of the world.
    """
    for group, names in GROUPS.items():
        if name in names:
            return group
    raise KeyError(name)


def words_for(name: str) -> tuple[str, ...]:
    """How captions call an object or a style; the first is its usual name."""
    return SYNONYMS.get(name) or STYLE_WORDS.get(name) or (name.replace("-", " "),)


def all_objects() -> tuple[str, ...]:
    """The 84 objects, group by group; sprite sheets are in this order."""
    return tuple(name for names in GROUPS.values() for name in names)


def cpu_objects() -> tuple[str, ...]:
    """The 44 objects of the cpu recipe."""
    return tuple(name for group, names in GROUPS.items() for name in names[: CPU_COUNTS.get(group, len(names))])
