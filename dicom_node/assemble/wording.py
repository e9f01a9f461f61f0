"""Words by which people name what a series shows, in the languages of scanners: each to its class.

Free text is matched against these words and never repeated: an answer names the class, not what somebody typed.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache

# Facet -> (class, words) in the order in which they are tried. A * stands for any letters, a space for any separators or none.
# Words in Latin letters stand alone (digits may touch them: "C7"); those of other scripts are found anywhere.
WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "body_part": (
        ("whole-body", "whole body|total body|ganzk*rper|corps entier|cuerpo entero|wb|全身"),
        ("trunk", "chest abd*|chest to pelvis|thor* abd*|abd* thor*|tap|cap|torso|trunk|body|rumpf|polytrauma|胸腹"),
        ("heart", "heart|card*|coronar*|cor cta|cta cor*|herz|coeur|corazon|calcium scor*|ca scor*|calc scor*|心脏|心臓|冠脉"),
        ("breast", "breast|breasts|mamma|mammo*|sein|seins|mama|乳"),
        ("chest", "chest|heart chest|thx|thorax|thora*|torax|lung|lungs|lunge*|pulm*|poumon*|hrct|rib|ribs|sternum|mediast*|胸|肺|груд|легк"),
        (
            "spine",
            "spine|[ctl] spine|[bhl]ws|*wirbel*|lumb*|sacr*|rachis*|columna*|vertebr*|脊|腰椎|颈椎|胸椎|позвон",
        ),
        (
            "head",
            "head|brain|skull|cran*|neuro*|cerebr*|enceph*|encef*|schadel*|schaedel*|kopf|*hirn*|crane|tete|cerveau|cabeza|testa|cct|orbit*|sinus*|nnh|"
            "temporal bone*|iac|pituit*|hypophys*|sella|facial|face|head neck|head and neck|头|颅|脑|頭|脳|голов",
        ),
        ("neck", "neck|laryn*|pharyn*|thyroid*|hals|cou|cuello|collo|carotid*|颈|甲状腺|頸|шея"),
        (
            "abdomen",
            "abd|abdo*|liver|hepat*|leber*|foie|higado|pancrea*|pankrea*|kidney*|renal|nier*|spleen|adrenal*|mrcp|kub|ctu|abd* pel*|*bauch|腹|肝|肾|"
            "живот|брюш",
        ),
        ("pelvis", "pelvi*|becken|bassin|prostat*|uter*|ovar*|rectum|bladder|hip|hips|huft*|hueft*|hanche*|cadera*|盆|前列腺|骨盤|таз"),
        (
            "upper-limb",
            "shoulder*|schulter*|epaule*|hombro*|elbow*|ellenbogen*|coude*|codo|wrist*|hand|hands|handgelenk*|poignet*|muneca|mano|finger*|thumb|"
            "forearm*|humerus|arm|clavic*|scapula|radius|ulna|upper extremity|extremity|肩|肘|腕|手部",
        ),
        (
            "lower-limb",
            "knee*|knie*|genou*|rodilla*|ankle*|*sprunggelenk*|osg|cheville*|tobillo*|foot|feet|fuss|pied*|pie|leg|legs|thigh|femur|tibia|fibula|"
            "calcaneus|toe|toes|lower extremity|extremity|膝|踝|足|腿",
        ),
    ),
    "plane": (
        ("axial", "ax|axial*|tra|trans|transv*|transax*|横|轴位"),
        ("coronal", "cor|coronal*|kor|koronar*|frontal|冠状"),
        ("sagittal", "sag|sagit*|矢状"),
    ),
    "laterality": (
        ("both", "bilat*|both|beide|beidseits|bds|双"),
        ("left", "left|lt|links|li|gauche|izq*|sinistr*|左"),
        ("right", "right|rt|rechts|re|droit|droite|derech*|destr*|右"),
    ),
    "projection": (
        ("lateral", "lat|later*|ll|rl|seitlich*|profil|侧位"),
        ("PA", "p a|postero ant*|后前位"),
        ("AP", "a p|antero post*|supine|bedside|portable|liegend|前后位"),
    ),
    "contrast": (
        (
            "none",
            "without|w o|non con*|non enh*|unenh*|nativ*|sans inj*|sans contraste|sin contraste|senza mdc|ohne km|plain|pre con*|pre gd|ncct|"
            "平扫|без",
        ),
        ("arterial", "arterial*|art|art phase|动脉期"),
        ("portal-venous", "portal*|porto*|pv|pvp|venous|venos*|ven|veineux|门脉|静脉期"),
        ("delayed", "delay*|late|spat*|spaet*|tardi*|equilib*|excret*|延迟"),
        (
            "given",
            "with con*|w con*|post con*|post gd|post gad*|post km|contrast|enhanced|ce|gd|gad|gado*|km|mdc|inj|injecte|con contraste|cta|"
            "c plus|plus c|plus gd|增强|造影",
        ),
    ),
    "sequence": (
        ("ADC", "adc|apparent diff*|eadc|表观"),
        ("DWI", "dwi|diff|diffusion*|dti|trace*|b [1-9]00|b [1-9]000|b 50|弥散|扩散"),
        ("perfusion", "perf*|dsc|dce|asl|rcbv|rcbf|pwi|灌注"),
        ("BOLD", "bold|fmri|rsfmri|resting state|rest state"),
        ("SWI", "swi|swi[23]d*|swan|swip|t2 star*|t2w star|gre t2|t2 gre|hemo*|suscept*|qsm|磁敏感"),
        ("MRA", "tof|mra|angio*|pc mra|inhance|venc"),
        ("T1", "t1 flair|t1w flair|flair t1"),
        ("FLAIR", "flair|dark fluid|da fl"),
        ("STIR", "stir|tirm"),
        ("T1", "t1|t1w|mprage|mp rage|mp2rage|bravo|spgr|fspgr|vibe|lava|thrive|tfl[23]d*|3d tfe"),
        ("T2", "t2|t2w|haste|ssfse|ciss|fiesta|trufi|true fisp|mrcp"),
        ("PD", "pd|pdw|pd fs|proton dens*|densit* prot*|dp|质子"),
    ),
    "kind": (
        ("localizer", "localizer*|localiser*|loc|scout*|topo|topogram*|scano*|surview*|survey|lokali*|reperage|3 plane|定位"),
        ("derived", "mpr|mip|minip|reformat*|reform*|subtract*|sub|vrt|rendering|recon 3d|3d recon|rekon*"),
    ),
}

# Facets of which the first class that is named is meant, such as FLAIR in "T2 FLAIR"; of others all that are named are left to choose from.
FIRST_ONLY = frozenset({"sequence", "kind", "contrast"})

# Where one class is named with another that is a part of it, or of which it is the rest, the first is meant.
_INSTEAD: Mapping[frozenset[str], str] = {
    frozenset({"chest", "abdomen"}): "trunk",
    frozenset({"chest", "pelvis"}): "trunk",
    frozenset({"chest", "abdomen", "pelvis"}): "trunk",
    frozenset({"abdomen", "pelvis"}): "abdomen",
    frozenset({"head", "neck"}): "head",
    frozenset({"heart", "chest"}): "heart",
    frozenset({"spine", "neck"}): "spine",
    frozenset({"spine", "chest"}): "spine",
    frozenset({"left", "right"}): "both",
}


def named(facet: str, text: str) -> frozenset[str]:
    """Return the classes of a facet that a text names."""
    plain = _plain(text)
    found = [name for name, pattern in _patterns(facet) if pattern.search(plain)]
    if facet in FIRST_ONLY:
        found = found[:1]
    return frozenset({_INSTEAD[together]} if (together := frozenset(found)) in _INSTEAD else together)


def named_in(facet: str, texts: Iterable[tuple[str, str]]) -> tuple[str, frozenset[str]]:
    """Return the first of some texts, by its keyword, that names classes of a facet, and these; an empty keyword if none does."""
    for keyword, text in texts:
        classes = named(facet, text)
        if classes:
            return keyword, classes
    return "", frozenset()


def _plain(text: str) -> str:
    """Return a text in small letters without accents, its words parted by spaces, also where a small letter meets a capital."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("+", " plus ").replace("*", " star ")
    bare = "".join(one for one in unicodedata.normalize("NFD", parted.casefold()) if not unicodedata.combining(one))
    return re.sub(r"[\W_]+", " ", bare)


@cache
def _patterns(facet: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile("|".join(map(_pattern, words.split("|"))))) for name, words in WORDS[facet])


def _pattern(word: str) -> str:
    """Return a regular expression for a word: it stands alone, unless it is of a script that does not part words."""
    if not word.isascii():
        return word.casefold()
    return f"(?<![a-z]){word.replace('*', '[a-z]*').replace(' ', ' ?')}(?![a-z])"
