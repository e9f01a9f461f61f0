"""What files are called below the storage folder: by day, study and a random number; no name comes from a peer."""

import time
from functools import lru_cache
from hashlib import sha256


def instance_name(waiting: str, study_instance_uid: str, received_at: float) -> str:
    """Return the name of an instance whose file is called `waiting` while it lies in `incoming`."""
    return f"{day('instances', received_at)}/{_folder(study_instance_uid)}/{waiting}"


def waiting_name(name: str) -> str:
    """Return what an instance's file is called while it lies in `incoming`."""
    return name.rpartition("/")[2]


def day(kind: str, at: float) -> str:
    """Return the folder of what came on a day (UTC)."""
    return f"{kind}/{_date(int(at // 86400))}"


@lru_cache(256)
def _folder(study_instance_uid: str) -> str:
    return sha256(study_instance_uid.encode()).hexdigest()[:16]


@lru_cache(4)
def _date(days: int) -> str:
    return time.strftime("%Y/%m/%d", time.gmtime(days * 86400))
