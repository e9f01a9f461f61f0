"""Laws of attribute matching: what is meant is never filtered out by SQL, whatever the keys and values; patterns and ranges mean what they say."""

from datetime import date
from fnmatch import fnmatchcase

from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table, Text, create_engine, insert, select

from dicom_node.store.match import JOINED, fold_name, matches, prefilter, written

KEYWORDS = (
    *("PatientName", "PatientID", "StudyDate", "StudyTime", "StudyDescription", "StudyInstanceUID", "ModalitiesInStudy", "SOPClassesInStudy"),
    *("AccessionNumber", "PatientSex", "ReferringPhysicianName", "StudyComments"),
)
TABLE = Table("entry", MetaData(), *(Column(keyword, Text, nullable=False) for keyword in KEYWORDS))
COLUMNS = {keyword: TABLE.c[keyword] for keyword in KEYWORDS}
ENGINE = create_engine("sqlite://")
TABLE.create(ENGINE)

SIGNS = st.sampled_from([*"aAbB%_/\\*?^= 01.-:ÄäßİıK山が", "e\u0301", "ﬁ", "\U0001f600"])
TEXTS = st.lists(SIGNS, max_size=8).map("".join) | st.sampled_from(["a" * 63, "a" * 64 + "b", "*" + "a" * 64 + "b", "a" * 40 + "*" + "a" * 30])
DAYS = st.dates(min_value=date(1000, 1, 1))
DATES = DAYS.map("{:%Y%m%d}".format) | DAYS.map("{:%Y.%m.%d}".format) | st.sampled_from(["2024", "20241301", "x"])
TIMES = st.builds(lambda at, size: f"{at:%H%M%S.%f}"[:size], st.times(), st.sampled_from([2, 4, 6, 8, 13])) | st.just("10:15")
UIDS = st.sampled_from(["1.2", "1.2.3", "1.2.3.4"])


def of_keyword(keyword: str) -> st.SearchStrategy[str]:
    if keyword.endswith("Date"):
        return DATES | TEXTS
    if keyword.endswith("Time"):
        return TIMES | TEXTS
    return UIDS | TEXTS if "UID" in keyword or "Classes" in keyword else TEXTS


@st.composite
def entities(draw: st.DrawFn) -> dict[str, object]:
    """Return attributes as the ledger has them: some missing, some empty, some of several values."""
    return {
        keyword: draw(st.lists(of_keyword(keyword), min_size=1, max_size=3) if keyword in JOINED else of_keyword(keyword) | several(keyword))
        for keyword in draw(st.sets(st.sampled_from(KEYWORDS)))
    }


def several(keyword: str) -> st.SearchStrategy[list[str]]:
    return st.lists(of_keyword(keyword), max_size=2)


@st.composite
def asked(draw: st.DrawFn) -> tuple[dict[str, object], dict[str, object]]:
    """Return an entity, and keys that are drawn freely or made of its values."""
    entity = draw(entities())
    keys: dict[str, object] = {}
    for keyword in draw(st.sets(st.sampled_from(KEYWORDS), max_size=3)):
        said = entity.get(keyword, "")
        own = str(said[0] if isinstance(said, list) and said else said)
        keys[keyword] = draw(
            of_keyword(keyword)
            | several(keyword)
            | st.sampled_from([own, own.upper(), own[:3] + "*", "*" + own[3:], own.replace("a", "?"), f"-{own}", f"{own}-", f"{own}-{own}"])
        )
    return entity, keys


@given(asked())
@example(({"StudyTime": "10"}, {"StudyTime": "103000"}))
@example(({"PatientName": "A=b^c"}, {"PatientName": "B^*"}))
@example(({"StudyDescription": ["a", "b"]}, {"StudyDescription": "b"}))
def test_sql_never_lets_through_too_little(pair):
    """The prefilter passes every row whose entity the keys mean."""
    entity, keys = pair
    with ENGINE.connect() as connection:
        connection.execute(insert(TABLE).values({keyword: written(keyword, entity.get(keyword)) for keyword in KEYWORDS}))
        passed = connection.execute(select(TABLE).where(*prefilter(keys, COLUMNS))).first() is not None
        connection.rollback()
    assert passed or not matches(keys, entity)


@given(asked())
def test_an_entity_matches_what_it_says_itself(pair):
    """Each of its values as a key, and no key at all."""
    entity, _ = pair
    assert matches({}, entity)
    for keyword, value in entity.items():
        for one in value if isinstance(value, list) else [value]:
            assert "\\" in one or matches({keyword: one}, entity)  # the header's reader parts values at their backslashes


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_means_what_the_shell_means_by_it(pattern, text):
    """`*` any number of characters, `?` one (C.2.2.2.4)."""
    if text and pattern.strip("*"):
        assert matches({"StudyDescription": pattern}, {"StudyDescription": text}) is fnmatchcase(text, pattern)


@given(DAYS, DAYS, DAYS)
def test_a_range_of_dates_has_its_ends_in_it(first, last, day):
    """C.2.2.2.5."""
    key = f"{first:%Y%m%d}-{last:%Y%m%d}"
    assert matches({"StudyDate": key}, {"StudyDate": f"{day:%Y%m%d}"}) is (first <= day <= last)


@given(st.times(), st.times(), st.times())
def test_a_range_of_times_has_its_ends_in_it(first, last, at):
    """Of full precision, as they are ordered in a day."""
    first, last, at = (f"{one:%H%M%S.%f}" for one in (first, last, at))
    assert matches({"StudyTime": f"{first}-{last}"}, {"StudyTime": at}) is (first <= at <= last)


@given(st.text(max_size=12).filter(lambda text: not set(text) & set("*?\\-") and fold_name(text)))
def test_a_name_is_the_same_in_capitals(name):
    """Case is no difference, and nothing at the end is none either."""
    assert matches({"PatientName": name}, {"PatientName": f"{name}^^"}) or "=" in name
    assert fold_name(f" {name} ") == fold_name(name)
