"""Laws of Bayes' rule: probabilities add up to 1, the order of the evidence is nothing, what favours a class never makes it less probable."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.assemble.evidence import header_evidence
from dicom_node.domain import FACETS, HEADER_KEYWORDS, RECOGNITION_KEYWORDS
from dicom_node.methods.recognition import PIXELS, UNKNOWN, Answer, Evidence, prior, recognise, stating

facets = st.sampled_from(sorted(FACETS))
likelihoods = st.floats(1e-6, 1.0)


@st.composite
def evidence_of(draw, facet):
    likelihood = {name: draw(likelihoods) for name in FACETS[facet]}
    return Evidence(facet=facet, source=draw(st.sampled_from(["A", "B", PIXELS])), said="x", likelihood=likelihood)


@st.composite
def answers(draw, at_least=0):
    facet = draw(facets)
    return Answer(facet=facet, evidence=tuple(draw(st.lists(evidence_of(facet), min_size=at_least, max_size=6))))


@given(answers())
def test_the_posterior_adds_up_to_one_and_covers_every_class(answer):
    assert set(answer.posterior) == {*FACETS[answer.facet], UNKNOWN}
    assert math.fsum(answer.posterior.values()) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in answer.posterior.values())


@given(answers(), st.randoms())
def test_the_order_of_the_evidence_changes_nothing(answer, random):
    shuffled = list(answer.evidence)
    random.shuffle(shuffled)
    again = Answer(facet=answer.facet, evidence=tuple(shuffled))
    assert again.posterior == pytest.approx(answer.posterior)


@given(answers(), st.data())
def test_what_favours_a_class_never_makes_it_less_probable(answer, data):
    """Monotone: evidence under which no class is likelier than this one."""
    favoured = data.draw(st.sampled_from(FACETS[answer.facet]))
    high = data.draw(likelihoods)
    likelihood = {name: high if name == favoured else high * data.draw(likelihoods) for name in FACETS[answer.facet]}
    more = Answer(facet=answer.facet, evidence=(*answer.evidence, Evidence(facet=answer.facet, source="C", said="x", likelihood=likelihood)))
    assert more.posterior[favoured] >= answer.posterior[favoured] * (1 - 1e-9)


@given(answers(), likelihoods)
def test_evidence_that_is_as_likely_whatever_it_is_changes_nothing(answer, level):
    flat = Evidence(facet=answer.facet, source="C", said="x", likelihood=dict.fromkeys(FACETS[answer.facet], level))
    assert Answer(facet=answer.facet, evidence=(*answer.evidence, flat)).posterior == pytest.approx(answer.posterior)


@given(answers(at_least=1), st.sampled_from([2, 3]))
def test_bayes_rule_is_the_product_of_its_parts(answer, power):
    """Prior times likelihoods, divided by their sum: computed here in plain numbers."""
    products = {name: p * math.prod(one.of(name) for one in answer.evidence) for name, p in prior(answer.facet).items()}
    total = math.fsum(products.values())
    assert answer.posterior == pytest.approx({name: product / total for name, product in products.items()})


@given(facets)
def test_without_evidence_nothing_is_recognised(facet):
    assert Answer(facet=facet, evidence=()).value is None
    assert math.fsum(prior(facet).values()) == pytest.approx(1)


@given(facets, st.floats(0.5, 0.99), st.data())
def test_a_source_that_states_a_class_is_right_as_often_as_it_is_said_to_be(facet, reliability, data):
    """Of a single class: its likelihoods over what it may state add up to 1, a proper distribution for each truth."""
    truth = data.draw(st.sampled_from(FACETS[facet]))
    stated = [stating(facet, "A", "x", [name], reliability).likelihood[truth] for name in FACETS[facet]]
    assert math.fsum(stated) == pytest.approx(1)


@given(st.data())
def test_stated_classes_that_contradict_each_other_end_in_doubt(data):
    """Two sources, equally reliable, two classes: neither is the answer."""
    facet = data.draw(facets.filter(lambda name: len(set(prior(name).values())) == 2))  # those whose classes are equally frequent
    one, other = data.draw(st.permutations(FACETS[facet]))[:2]
    found = recognise([stating(facet, "A", "x", [one], 0.9), stating(facet, "B", "x", [other], 0.9)])
    assert found.get(facet) is None


values = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.lists(st.one_of(st.text(max_size=16), st.floats(), st.none()), max_size=8),
)


@given(st.dictionaries(st.sampled_from([*HEADER_KEYWORDS, *RECOGNITION_KEYWORDS]), values))
def test_any_header_at_all_gives_an_answer(header):
    """Headers come from anybody: nothing in one makes recognising fail."""
    found = recognise(header_evidence(header.get))
    for answer in found.answers.values():
        assert math.fsum(answer.posterior.values()) == pytest.approx(1)
        assert answer.sentence
