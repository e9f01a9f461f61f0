"""If it loads, it can run; if it does not, the message names the place, the value and the rule."""

import shutil
from pathlib import Path

import pytest

from dicom_node.config import Manifest, NodeConfig, bundled, load_model, load_site, objections, weights_home
from dicom_node.config.conditions import Condition
from dicom_node.domain import AE, ConfigError, Priority

ROOT = Path(__file__).parents[1]
SITE = """
[node]
ae_title = "NODE"
[remotes]
ct = { ae = "CT@10.0.0.1:104", may = ["send"] }
pacs = { ae = "PACS@10.0.0.2:104", may = ["receive"] }
[models.measures]
folder = "measures"
[[rules]]
name = "CT"
when.Modality = "CT"
when.SliceThickness = { max = 5.0 }
analyse = ["measures"]
deliver = ["pacs"]
priority = "HIGH"
"""
MODEL = """
name = "measures"
version = "1.0"
task = "Measures."
[inputs.ct]
Modality = "CT"
min_slices = 3
[[segments]]
number = 1
label = "Spleen"
category = "SCT.AnatomicalStructure"
type = "SCT.Spleen"
[measurements.volume]
concept = "SCT.Volume"
unit = "mL"
segment = 1
"""


@pytest.fixture
def site(tmp_path):
    """A folder with a site's file and a model; returns what loads the site with some text put in the place of other text."""
    model_of(tmp_path / "measures")

    def load(old="", new="", **overrides):
        assert old in SITE
        (tmp_path / "node.toml").write_text(SITE.replace(old, new) if old else SITE + new)
        return load_site(tmp_path / "node.toml", **overrides)

    return load


def model_of(folder, old="", new=""):
    """Write a model's folder, with some text in the place of other text."""
    assert old in MODEL
    folder.mkdir(exist_ok=True)
    (folder / "model.toml").write_text(MODEL.replace(old, new) if old else MODEL)
    (folder / "analysis.py").write_text('"""Measures."""\n')
    return folder


def test_a_site_is_what_its_file_says(site):
    """Read once, checked whole, frozen."""
    found = site()
    [rule] = found.config.rules
    assert (rule.priority, rule.deliver, rule.derived) == (Priority.HIGH, ("pacs",), False)
    assert found.config.remotes["pacs"].ae == AE("PACS", "10.0.0.2", 104)
    assert found.models["measures"].manifest.inputs["ct"].min_slices == 3
    assert found.keywords == {"Modality", "SliceThickness"}
    with pytest.raises(ValueError, match="frozen"):
        found.config.node.port = 1


# Bundled models that no rule runs before a site asks for it; their cards say why.
OFF = {
    "head-hyperdensity",
    "calcium-score",
    "body-composition",
    "brain-tissue",
    "denoise",
    "enhance",
    "radiomics",
    "radiomics-mr",
    "smart-windows",
    "contrast-window",
    "image-classifier",
    "recognise",
    "white-matter-lesions",
    "lung-texture",
    "lung-nodules",
}


def test_a_site_without_a_file_serves_on_loopback_with_every_bundled_model():
    """`dicom-node serve` runs with no file at all; what is off is named, so that one rule turns it on, and is not run."""
    found = load_site(node={"port": 0})
    assert (found.config.node.on_loopback, found.config.node.storage, found.config.node.port) == (True, Path("data"), 0)
    assert set(found.models) == {path.parent.name.replace("_", "-") for path in bundled("models").glob("*/model.toml")}
    assert {model for rule in found.config.rules for model in rule.analyse} == set(found.models) - OFF
    assert found.config.may("ANYBODY", "send")
    assert not found.config.may("ANYBODY", "query")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda path: path.name)
def test_every_example_loads(path):
    """What is shown works."""
    assert load_site(path).models


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('ae_title = "NODE"', "prot = 5", "node.prot (is 5): there is no such key"),
        ('ae_title = "NODE"', "port = 70000", "node.port (is 70000): Input should be less than or equal to 65535"),
        ('ae_title = "NODE"', 'ae_title = "SEVENTEEN_LETTERS"', "ae_title 'SEVENTEEN_LETTERS' is not an AE title"),
        ('ae_title = "NODE"', "complete_after_s = nan", "node.complete_after_s (is nan)"),
        ('ae_title = "NODE"', "[nodes]", "nodes: there is no such key"),
        ("CT@10.0.0.1:104", "CT@10.0.0.1", "remotes.ct.ae (is 'CT@10.0.0.1'): 'CT@10.0.0.1' is not TITLE@host:port"),
        ('may = ["send"]', 'may = ["sned"]', "remotes.ct.may"),
        ("PACS@10.0.0.2:104", "CT@10.0.0.1:104", "two remotes have the address 'CT@10.0.0.1:104'"),
        ('may = ["receive"]', 'may = ["receive"], retrieve = "move"', "remote 'pacs' is asked to send by C-MOVE but may not send"),
        ('may = ["receive"]', 'may = ["query"]', "rule 'CT' delivers to 'pacs', which may not receive: add \"receive\" to its `may`"),
        ('deliver = ["pacs"]', 'deliver = ["pasc"]', "rule 'CT' delivers to 'pasc', which is not among [remotes]: ct, pacs"),
        ('analyse = ["measures"]', 'analyse = ["measure"]', "rule 'CT' analyses with 'measure', which is not among [models]: measures"),
        ('analyse = ["measures"]', "analyse = []", "rules.0.analyse"),
        ('analyse = ["measures"]', "", "rules.0.analyse: Field required"),
        ("", '[[rules]]\nname = "CT"\nanalyse = ["measures"]\n', "two rules have the name 'CT'"),
        ("", '[complete]\nask = ["pasc"]\n', "complete.ask names 'pasc', which is not among [remotes]: ct, pacs"),
        ("", '[complete]\nask = ["pacs"]\n', "complete.ask names 'pacs', which is not queried: give it `retrieve`"),
        ('may = ["receive"]', 'may = ["receive"], retrieve = "web"', 'retrieve = "web": say where; give this remote `web_url`'),
        ('may = ["receive"]', 'may = ["receive"], web_url = "ftp://x/y"', "'ftp://x/y' is no address of DICOMweb services"),
        (
            'may = ["receive"]',
            'may = ["receive"], web_url = "http://x.example/y", web_token_file = "t"',
            "web_token_file: a token goes over https alone",
        ),
        ('may = ["receive"]', 'may = ["receive"], web_token_file = "t"', "web_token_file: a token is shown to DICOMweb services alone"),
        ('may = ["receive"]', 'may = ["receive"], fetch_notified = true', "fetch_notified: nothing is fetched from this remote; give it `retrieve`"),
        ('priority = "HIGH"', 'late = "never"', "rules.0.late"),
        ('priority = "HIGH"', 'priority = "STAT"', "rules.0.priority (is 'STAT'): 'STAT' is not a priority: HIGH, MEDIUM or LOW"),
        ("when.Modality", "when.Modalty", "rules.0.when: 'Modalty' is not a DICOM keyword; keywords are written like BodyPartExamined"),
        ("{ max = 5.0 }", "{ maximum = 5.0 }", "rules.0.when.SliceThickness.maximum (is 5.0): there is no such key"),
        ("{ max = 5.0 }", "{ min = 6, max = 5.0 }", "rules.0.when.SliceThickness: min 6 is above max 5"),
        ("{ max = 5.0 }", "{ max = nan }", "rules.0.when.SliceThickness.max (is nan): Input should be a finite number"),
        ("{ max = 5.0 }", '{ matches = "(" }', "'(' is not a regular expression"),
        ("{ max = 5.0 }", "{ any = [] }", "rules.0.when.SliceThickness.any"),
        ("{ max = 5.0 }", "{}", "asks for nothing: give a value, or one of any, none, min, max, matches, contains, absent"),
        ('"measures"\n[[', '"measurse"\n[[', "measurse"),
        ('ae_title = "NODE"', "ae_title = NODE", "is not TOML: Invalid value (at line 3"),
    ],
)
def test_a_site_that_cannot_run_is_told_where_and_why(site, old, new, said):
    """The place, the value, the rule; and what to do next."""
    with pytest.raises(ConfigError) as caught:
        site(old, new)
    assert said in str(caught.value)
    assert caught.value.hint


def test_a_model_under_another_name_is_refused(site):
    """Names are in rules, in the ledger and in results: one model has one."""
    with pytest.raises(ConfigError, match=r"\[models.other\] points at .*measures, whose model.toml is named 'measures'"):
        site('[models.measures]\nfolder = "measures"', '[models.other]\nfolder = "measures"\n[models.measures]\nfolder = "measures"')


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    """Missing, or in a language of its own."""
    with pytest.raises(ConfigError, match=r"node.toml cannot be read: No such file"):
        load_site(tmp_path / "node.toml")
    (tmp_path / "node.toml").write_bytes('[node]\nae_title = "Ä"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"node.toml is not UTF-8: byte 20"):
        load_site(tmp_path / "node.toml")
    (tmp_path / "node.toml").write_bytes(b"\xef\xbb\xbf[node]\nport = 0\n")
    assert load_site(tmp_path / "node.toml").config.node.port == 0, "an editor's byte order mark is no error"
    (tmp_path / "node.toml").write_text("node = 5")
    with pytest.raises(ConfigError, match="node"):
        load_site(tmp_path / "node.toml", node={"port": 0})


def test_off_loopback_somebody_must_be_named():
    """Nobody who listens on the network accepts everybody by accident."""
    for host in ("0.0.0.0", "10.0.4.1", "::", "node.example", ""):
        with pytest.raises(ValueError, match="nobody may send"):
            NodeConfig.model_validate({"node": {"host": host}})
        assert NodeConfig.model_validate({"node": {"host": host, "accept_unknown": True}}).may("ANYBODY", "send")
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert NodeConfig.model_validate({"node": {"host": host}}).may("ANYBODY", "send")
    receiving = {"pacs": {"ae": "PACS@h:1", "may": ["receive"]}}
    with pytest.raises(ValueError, match="nobody may send"):
        NodeConfig.model_validate({"node": {"host": "0.0.0.0"}, "remotes": receiving})


def test_work_is_taken_where_it_can_be_asked_for():
    """A token goes over TLS alone, and to a place that is one; a code means one model."""
    told = {"ae": "TASKS@h:1", "tasks": "pull"}
    for more, said in (
        ({"web_url": "tasks.example/dicom-web"}, "no address of DICOMweb"),
        ({"web_url": "https://user:secret@tasks.example"}, "no address of DICOMweb"),
        ({"web_url": "http://tasks.example", "web_token_file": "t"}, "over https alone"),
        ({"web_token_file": "t"}, "shown to DICOMweb services alone"),
    ):
        with pytest.raises(ValueError, match=said):
            NodeConfig.model_validate({"remotes": {"tasks": told | more}})
    NodeConfig.model_validate({"remotes": {"tasks": told | {"web_url": "http://127.0.0.1:8/x", "web_token_file": "t"}}})
    models = {name: {"folder": "f", "workitem_codes": [["A", "99H"]]} for name in ("one", "two")}
    with pytest.raises(ValueError, match="'A' of 99H stands there twice"):
        NodeConfig.model_validate({"models": models})


def test_who_may_do_what_is_by_its_title():
    """Permissions are per remote; once somebody is named, nobody else may."""
    config = NodeConfig.model_validate({"remotes": {"ct": {"ae": "CT@h:1", "may": ["send"]}, "pacs": {"ae": "PACS@h:1", "may": ["query"]}}})
    assert config.may("CT", "send") and config.may(" CT ", "send") and config.may("PACS", "query")
    assert not any([config.may("ct", "send"), config.may("CT", "query"), config.may("PACS", "send"), config.may("OTHER", "send")])


# ---------------------------------------------------------------------------------------------------------------- models


IMAGE = """[images.smooth]
description = "Smoothed"
derivation = ["DCM.Smoothing"]
image_type = "SMOOTHED"
of = "ct"
[[segments]]"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('version = "1.0"', "", "version: Field required"),
        ('name = "measures"', 'name = "Measures It"', "name (is 'Measures It')"),
        ("number = 1", "number = 2", "segments are numbered [2]; number them from 1 without holes"),
        ("segment = 1", "segment = 2", "measurements.volume names segment 2, which is not described"),
        ("segment = 1", "segment = 1\nsegments = [1]", "names more than one of segment, segments and of"),
        ('"SCT.Spleen"', '"SCT.Sploon"', "'SCT.Sploon' is not in pydicom's code dictionary; write it in full: [value, scheme, meaning]"),
        ('"SCT.Spleen"', '["1", "99X", ""]', "segments.0.type.meaning"),
        ("min_slices", "min_slice", "inputs.ct.min_slice (is 3): there is no such key"),
        ('Modality = "CT"', 'Modalty = "CT"', "'Modalty' is not a DICOM keyword"),
        ("min_slices = 3", 'prefer = ["kernel"]', "prefers a kernel but does not name one"),
        ("[inputs.ct]", "[inputs.t1-gd]", "inputs.t1-gd cannot be an argument of `analyse`"),
        ("[inputs.ct]", "[inputs.progress]", "inputs.progress cannot be an argument of `analyse`"),
        ("[[segments]]", "[[weights]]\nfile = '../x'\npackage = 'p==1'\nmember = 'm'\n[[segments]]", "weights.0"),
        ("[[segments]]", IMAGE.replace("SMOOTHED", "Smoothed"), "images.smooth.image_type"),
        ("[[segments]]", IMAGE.replace('"DCM.Smoothing"', ""), "images.smooth.derivation"),
        ("[[segments]]", IMAGE.replace("DCM.Smoothing", "DCM.Smoothness"), "'DCM.Smoothness' is not in pydicom's code dictionary"),
        ("[[segments]]", IMAGE.replace("of =", "at ="), "there is no such key"),
        ("[[segments]]", IMAGE.replace('"ct"', '"pet"'), "images.smooth is of input 'pet', which is not described"),
        ("[[segments]]", IMAGE.replace("Smoothed", "x" * 65), "images.smooth.description"),
        ("[[segments]]", IMAGE.replace("images.smooth", "images.'Smooth images'"), "images.Smooth images"),
    ],
)
def test_a_manifest_that_cannot_run_is_told_where_and_why(tmp_path, old, new, said):
    """The router reads the manifest without importing the code: what is wrong with it is told at the start."""
    with pytest.raises(ConfigError) as caught:
        load_model(model_of(tmp_path / "measures", old, new))
    assert said in str(caught.value)


def test_a_model_may_make_nothing_but_images():
    """They are an output like any other."""
    image = {"description": "Smoothed", "derivation": ["DCM.Smoothing", ["A", "99TEST", "B"]], "image_type": "SMOOTHED"}
    found = Manifest.model_validate({"name": "x", "version": "1", "task": "t", "inputs": {"ct": {}}, "images": {"smooth": image}})
    assert [code.value for code in found.images["smooth"].derivation] == ["113087", "A"]
    assert found.input_of(found.images["smooth"]) == "ct"


def test_a_model_that_says_nothing_is_refused():
    """It would run for no result."""
    with pytest.raises(ValueError, match="has no output"):
        Manifest.model_validate({"name": "a", "version": "1", "task": "Nothing.", "inputs": {"ct": {}}})


def test_a_folder_without_code_is_no_model(tmp_path):
    """A model is a folder with model.toml and analysis.py."""
    folder = model_of(tmp_path / "measures")
    (folder / "analysis.py").unlink()
    with pytest.raises(ConfigError, match="has no analysis.py"):
        load_model(folder)


def test_a_code_is_a_keyword_or_written_in_full(tmp_path):
    """PS3.3 §8: value, scheme, meaning."""
    manifest = load_model(model_of(tmp_path / "measures", '"SCT.Spleen"', '["X1", "99SITE", "Accessory spleen"]')).manifest
    segment = manifest.segments[0]
    assert (segment.type.value, segment.type.scheme, segment.type.meaning, segment.type.private) == ("X1", "99SITE", "Accessory spleen", True)
    assert (segment.category.value, segment.category.scheme, segment.category.private) == ("91723000", "SCT", False)
    unit = manifest.measurements["volume"].unit
    assert (unit.value, unit.scheme, unit.meaning) == ("mL", "UCUM", "milliliter")


def test_a_build_changes_with_anything_that_may_change_a_result(tmp_path):
    """IHE AIR: a new Device UID for each change; documents and what Python leaves behind are none."""
    folder = model_of(tmp_path / "measures")
    first = load_model(folder)
    (folder / "README.md").write_text("card")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "analysis.pyc").write_bytes(b"?")
    (folder / ".DS_Store").write_bytes(b"?")
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_model(tmp_path / "elsewhere").device_uid == load_model(folder).device_uid == first.device_uid
    uids = {first.device_uid}
    for name, data in (("analysis.py", b'"""Measures more."""\n'), ("model.pt2", b"1"), ("model.pt2", b"2"), ("model.toml", MODEL.encode() + b"#")):
        (folder / name).write_bytes(data)
        uids.add(load_model(folder).device_uid)
    assert len(uids) == 5


def test_weights_that_are_not_fetched_are_known(tmp_path, monkeypatch):
    """Never downloaded during an analysis: said before it."""
    monkeypatch.setenv("DICOM_NODE_CACHE", str(tmp_path / "cache"))
    weights = f"[[weights]]\nfile = 'net.pt'\npackage = 'p==1'\npackage_sha256 = '{'0' * 64}'\nmember = 'm'\nsha256 = '{'1' * 64}'\n[[segments]]"
    model = load_model(model_of(tmp_path / "measures", "[[segments]]", weights))
    assert model.weights_folder == weights_home() / "weights" / "measures"
    assert [one.file for one in model.missing_weights] == ["net.pt"]
    model.weights_folder.mkdir(parents=True)
    (model.weights_folder / "net.pt").write_bytes(b"")
    assert model.missing_weights == ()


# ------------------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("condition", "value", "said"),
    [
        ("CT", "ct ", ""),
        ("CT", "MR", "K is MR, not CT"),
        ("CT", None, "K is missing"),
        ("CT", "", "K is missing"),
        ("CT", "  ", "K is missing"),
        ("CT", ["", None], "K is missing"),
        ("AXIAL", ["ORIGINAL", "PRIMARY", "AXIAL"], ""),
        ("LOCALIZER", ["ORIGINAL", "PRIMARY"], "K is ORIGINAL\\PRIMARY, not LOCALIZER"),
        (5, 5.0, ""),
        (5, "5.00", ""),
        (5, "five", "K is five, not 5"),
        ({"any": ["HEAD", "BRAIN"]}, "Brain", ""),
        ({"any": ["HEAD", "BRAIN"]}, "NECK", "K is NECK, none of HEAD, BRAIN"),
        ({"any": ["HEAD"], "absent": True}, None, ""),
        ({"any": ["HEAD"], "absent": True}, "NECK", "K is NECK, none of HEAD"),
        ({"none": ["LOCALIZER"]}, ["ORIGINAL", "LOCALIZER"], "K is ORIGINAL\\LOCALIZER, which is excluded"),
        ({"none": ["LOCALIZER"]}, None, ""),
        ({"none": ["LOCALIZER"], "contains": "A"}, None, "K is missing"),
        ({"min": 1, "max": 3}, 1, ""),
        ({"min": 1, "max": 3}, 3, ""),
        ({"max": 3}, 3.5, "K is 3.5, above 3"),
        ({"min": 1}, [2, 0.5], "K is 2\\0.5, below 1"),
        ({"max": 3}, "thick", "K is thick, not a number"),
        ({"max": 3}, float("nan"), "K is nan, not a number"),
        ({"max": 3}, None, "K is missing"),
        ({"matches": "lung|thorax"}, "CT Thorax", ""),
        ({"matches": "^lung"}, "CT lung", "K is CT lung, does not match '^lung'"),
        ({"contains": "thorax"}, "CT THORAX nativ", ""),
        ({"contains": "thorax"}, "abdomen", "K is abdomen, does not contain 'thorax'"),
        ({"absent": True}, None, ""),
        ({"absent": True}, "IODINE", "K is IODINE, asked to be absent"),
        ({"absent": False}, None, "K is missing"),
        ({"absent": False}, "anything", ""),
    ],
)
def test_a_condition_says_why_a_value_does_not_meet_it(condition, value, said):
    """A missing attribute has a defined meaning."""
    rule = NodeConfig.model_validate(
        {"models": {"m": {"folder": "m"}}, "rules": [{"name": "r", "when": {"BodyPartExamined": condition}, "analyse": ["m"]}]}
    ).rules[0]
    assert rule.when["BodyPartExamined"].objection("K", value) == said


def test_every_condition_that_fails_is_told():
    """`explain` gives every reason, not the first."""
    conditions = {"Modality": Condition(equals="CT"), "SliceThickness": Condition(max=3), "KVP": Condition(min=80)}
    assert objections(conditions, {"Modality": "MR", "KVP": 120}) == ("Modality is MR, not CT", "SliceThickness is missing")
    assert objections({}, {}) == ()


def test_models_that_rules_ask_for_are_named_once_in_their_order():
    """The node keeps libraries at hand for these alone: of the bundled models most are off."""
    site = load_site()
    assert site.config.asked == ("lung-ct", "brain-mr", "measure") and not set(site.config.asked) & OFF
