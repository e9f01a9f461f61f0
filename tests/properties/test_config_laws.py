"""Laws of words and rules: what is written is what is read, and no order of arrival changes a judgement."""

import json
import tomllib
from string import ascii_letters, digits, printable

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.config import Condition, NodeConfig
from dicom_node.domain import AE, Instance, Study, derived_uid, is_ae_title, is_uid, job_identity

# ------------------------------------------------------------------------------------------------------ words that are used

numbers = st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3)))
words = st.text(ascii_letters + digits + " ^_-", min_size=1, max_size=8).filter(str.strip)
scalars = st.one_of(words, numbers)
values = st.one_of(st.none(), scalars, st.lists(st.one_of(st.none(), scalars), max_size=4))
titles = st.text(printable[:95].replace("\\", ""), min_size=1, max_size=16).filter(is_ae_title).map(str.strip)
hosts = st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,5})?", fullmatch=True))
addresses = st.builds(AE, titles, hosts, st.integers(1, 65535))


@st.composite
def conditions(draw):
    """A condition as somebody may write it."""
    if draw(st.booleans()):
        return draw(scalars)
    low, high = sorted((draw(numbers), draw(numbers)))
    may = {"any": st.lists(scalars, min_size=1, max_size=3), "none": st.lists(scalars, min_size=1, max_size=3), "absent": st.booleans()}
    may |= {"min": st.just(low), "max": st.just(high), "contains": words, "matches": st.sampled_from(["^lung", "a|b", "[0-9]+"])}
    return draw(st.fixed_dictionaries({}, optional=may).filter(bool))


@st.composite
def sites(draw):
    """A node.toml that can run, as what TOML makes of it."""
    remotes = {
        f"remote{number}": {"ae": str(ae), "may": sorted(draw(st.sets(st.sampled_from(["send", "receive", "query"]))) | {"receive", "send"})}
        for number, ae in enumerate(draw(st.lists(addresses, unique=True, max_size=3)))
    }
    models = {f"model-{number}": {"folder": f"models/{number}"} for number in range(draw(st.integers(1, 3)))}
    some = st.lists(st.sampled_from(sorted(models)), min_size=1, max_size=2)
    keywords = st.sampled_from(["Modality", "SliceThickness", "BodyPartExamined", "StationName"])
    rules = [
        {
            "name": f"rule {number}",
            "when": draw(st.dictionaries(keywords, conditions(), max_size=3)),
            "analyse": draw(some),
            "deliver": sorted(remotes)[: draw(st.integers(0, 2))],
            "priority": draw(st.sampled_from(["HIGH", "MEDIUM", "LOW"])),
        }
        for number in range(draw(st.integers(0, 3)))
    ]
    node = {"ae_title": draw(titles), "port": draw(st.integers(0, 65535)), "host": draw(st.sampled_from(["127.0.0.1", "::1"]))}
    return {"node": node, "remotes": remotes, "models": models, "rules": rules}


# ------------------------------------------------------------------------------------------------------------ configuration


@given(sites())
def test_a_configuration_is_read_back_from_what_it_writes(site):
    """NodeConfig → JSON → NodeConfig, and through TOML, is the same configuration."""
    config = NodeConfig.model_validate(tomllib.loads(toml(site)))
    assert config == NodeConfig.model_validate(site)
    assert NodeConfig.model_validate_json(config.model_dump_json()) == config
    assert NodeConfig.model_validate(config.model_dump()) == config
    assert NodeConfig.model_validate(tomllib.loads(toml(config.model_dump(mode="json", exclude_none=True)))) == config


@given(sites(), st.lists(values, min_size=1, max_size=4))
def test_a_configuration_that_was_written_and_read_judges_alike(site, several):
    """Equal is not enough: a condition must not mean something else because its empty keys were written out."""
    config = NodeConfig.model_validate(site)
    again = NodeConfig.model_validate_json(config.model_dump_json())
    for before, after in zip(config.rules, again.rules, strict=True):
        for keyword, condition in before.when.items():
            assert [condition.objection(keyword, value) for value in several] == [after.when[keyword].objection(keyword, value) for value in several]


# --------------------------------------------------------------------------------------------------------------- conditions


def met(condition, value):
    return not Condition.model_validate(condition if isinstance(condition, dict) else {"equals": condition}).objection("K", value)


@given(conditions(), values, st.randoms(use_true_random=False))
def test_the_order_of_an_attributes_values_does_not_matter(condition, value, random):
    """An attribute with several values is a set to a rule."""
    if isinstance(value, list):
        shuffled = random.sample(value, len(value))
        assert met(condition, value) == met(condition, shuffled)
        assert met(condition, value) == met(condition, [*value, None, "", " "])


@given(conditions(), st.sampled_from([None, "", "  ", [], [None], ["", None]]))
def test_a_missing_attribute_meets_nothing_but_absent_and_none_alone(condition, missing):
    """Its meaning is defined, and the same however it is missing."""
    expected = isinstance(condition, dict) and (condition.get("absent") is True or set(condition) == {"none"})
    assert met(condition, missing) == expected


@given(conditions(), conditions(), values)
def test_asking_for_more_is_never_met_by_less(one, other, value):
    """What meets two conditions together meets each; `absent` apart, which allows."""
    if not (isinstance(one, dict) and isinstance(other, dict)) or set(one) & set(other) or "absent" in {*one, *other}:
        return
    low, high = (one | other).get("min"), (one | other).get("max")
    if low is not None and high is not None and low > high:
        return
    both = met(one | other, value)
    present = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
    if present:
        assert both == (met(one, value) and met(other, value))
    else:
        assert not both


@given(st.lists(scalars, min_size=1, max_size=3), scalars, values)
def test_a_longer_list_excludes_less_and_none_of_it_is_the_opposite(listed, more, value):
    """`any` grows with its list; `none` shrinks; of a single value that is there, one of them holds."""
    assert met({"any": [*listed, more]}, value) >= met({"any": listed}, value)
    assert met({"none": [*listed, more]}, value) <= met({"none": listed}, value)
    assert met({"any": listed}, more) != met({"none": listed}, more)
    assert met({"any": [more]}, value) == met({"equals": more}, value)


@given(numbers, numbers, st.one_of(numbers, st.lists(numbers, min_size=1, max_size=4)))
def test_limits_are_monotone(one, other, value):
    """A wider range takes whatever a narrower one takes; a number written as text is the same number."""
    low, high = sorted((one, other))
    assert met({"max": high}, value) >= met({"max": low}, value)
    assert met({"min": low}, value) >= met({"min": high}, value)
    assert met({"min": low, "max": high}, value) == (met({"min": low}, value) and met({"max": high}, value))
    written = [str(v) for v in value] if isinstance(value, list) else str(value)
    assert met({"max": high}, value) == met({"max": high}, written)


@given(words)
def test_text_is_compared_without_regard_to_case_and_surrounding_spaces(word):
    """CS is upper case by PS3.5; people are not."""
    for value in (word, word.upper(), word.lower(), f"  {word} "):
        assert met(word, value) and met({"any": ["other", value]}, word) and met({"contains": word}, f"x {value}x")


# -------------------------------------------------------------------------------------------------------------------- words


@given(addresses)
def test_an_address_is_read_back_from_what_it_writes(ae):
    """TITLE@host:port."""
    assert AE.parse(str(ae)) == ae


@given(st.lists(st.one_of(words, st.integers())))
def test_a_derived_uid_is_a_uid_and_stays_the_same(parts):
    """PS3.5 B.2 and §9.1."""
    uid = derived_uid(*parts)
    assert is_uid(uid) and uid.startswith("2.25.")
    assert derived_uid(*parts) == uid
    assert derived_uid(*parts, "one more") != uid


@given(st.from_regex(r"[0-9.]{1,70}", fullmatch=True))
def test_what_is_a_uid_is_what_its_grammar_says(text):
    """PS3.5 §9.1, said a second time in other words."""
    components = text.split(".")
    expected = len(text) <= 64 and all(c and (c == "0" or c[0] != "0") for c in components)
    assert is_uid(text) == expected


instances = st.lists(
    st.builds(
        lambda number, series, order, thickness: Instance(
            sop_instance_uid=f"1.2.{number}",
            sop_class_uid="1.2.3",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            study_instance_uid="1.2",
            series_instance_uid=f"1.2.{series}",
            path=f"{number}.dcm",
            size_bytes=1,
            digest=str(number),
            calling_ae="CT",
            received_at=0.0,
            header={"InstanceNumber": order, "SliceThickness": thickness, "SeriesNumber": series % 3 or None, "PatientID": "A"},
        ),
        st.integers(0, 10**6),
        st.integers(1, 5),
        st.one_of(st.none(), st.integers(0, 3)),
        st.sampled_from([None, 1.0, 2.0, [1, 2]]),
    ),
    max_size=12,
    unique_by=lambda one: one.sop_instance_uid,
)


@given(instances, st.randoms(use_true_random=False))
def test_a_study_looks_the_same_in_whatever_order_it_came(arrived, random):
    """Its series, their order, their headers, and the name of an analysis of them."""
    one = Study(study_instance_uid="1.2", instances=tuple(arrived))
    other = Study(study_instance_uid="1.2", instances=tuple(random.sample(arrived, len(arrived))))
    assert one.series == other.series
    assert [series.header for series in one.series] == [series.header for series in other.series]
    assert one.patients == other.patients
    assert job_identity({"ct": one.instances}, "1.2.3") == job_identity({"ct": other.instances}, "1.2.3")


# ------------------------------------------------------------------------------------------------------------------------


def toml(value, top=True):
    """Write TOML: sections as inline tables, which it reads alike."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {toml(one, False)}" for key, one in value.items())
        return "\n".join(pairs) if top else f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(one, False) for one in value)}]"
    return json.dumps(value)
