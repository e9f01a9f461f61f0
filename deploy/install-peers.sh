#!/bin/sh
# Installs the real programs that the tests talk to: DICOM peers, validators, a database server, a labelled brain, a browser, a proxy, a maker of certificates.
# Where this user may not install, the tests that need them say so loudly (and fail in CI).
set -eu

missing=
for package in chromium dcmtk dicom3tools odil orthanc orthanc-dicomweb pixelmed-apps default-jre-headless postgresql mricron-data nginx-light openssl; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    echo "not installed, for lack of apt-get or of root:$missing" >&2
    echo "the tests that need them are skipped; install them yourself:  sudo apt-get install$missing" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 — a list of words
apt-get install -qq -y --no-install-recommends $missing >/dev/null
