"""A node as a site runs it: it says that it is not ready, tells whoever has to know, and stops when it is asked to."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.orthanc import free_ports
from tests.told import web_server
from tests.walks.node import ROOT, wait_for


def fetched(url: str) -> tuple[int, str]:
    """Return status and text of an answer; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_disk_below_its_reserve_is_told_by_health_metrics_and_a_post(tmp_path: Path) -> None:
    """Three ways to know of the same, by HTTP, from the processes that `serve` starts."""
    dicom, http = free_ports(2)
    with web_server() as hook:
        (tmp_path / "node.toml").write_text(
            f"[node]\nport = {dicom}\nstorage = {json.dumps(str(tmp_path / 'data'))}\ndisk_reserve_mb = {1 << 40}\n"
            f'[work]\nstart = false\n[web]\nport = {http}\n[deliver]\npoll_s = 0.05\n[[notify]]\nname = "ops"\nto = "{hook.url}"\n'
        )
        with (tmp_path / "log").open("wb") as log:
            node = subprocess.Popen([sys.executable, "-m", "dicom_node", "serve", "--config", str(tmp_path / "node.toml")], cwd=ROOT, stderr=log)
        try:
            ready = f"http://127.0.0.1:{http}/health/ready"
            code, told = wait_for(lambda: (found := fetched(ready))[0] and found, says=(tmp_path / "log").read_text)
            wait_for(lambda: hook.posts, says=(tmp_path / "log").read_text)
            _, text = fetched(f"http://127.0.0.1:{http}/metrics")
        finally:
            node.terminate()
            ended = node.wait(60)
    assert (code, [one["what"] for one in json.loads(told)["checks"] if not one["ok"]]) == (503, ["disk"])
    assert [(one["about"], one["what"]) for one in hook.said] == [("disk", "began")]
    values = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert values["dicom_node_disk_free_bytes"] < values["dicom_node_disk_reserve_bytes"]
    assert ended == 0, (tmp_path / "log").read_text()[-2000:]
