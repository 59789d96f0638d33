"""Compass' own tutorial, in a shell with openssl and curl, against the emulator."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from compass_emulator import Emulator, EmulatorOptions

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not (shutil.which("openssl") and shutil.which("curl")), reason="needs openssl and curl"
    ),
]

PREPARE = r"""
set -euo pipefail
post() { curl -sS --fail --cacert "$CA" -H 'Content-Type: application/json' "$@"; }
text() { sed -E "s/.*\"$1\":\"([^\"]*)\".*/\1/"; }
sign() { printf '{"query":"mutation { result: signCertificateSigningRequest(csr: \\"%s\\")' "$1"
         printf ' { certificateChain caCertificate clientCertificate } }"}'; }
"""

ESTABLISH = r"""
printf '{"query":"query { result: configuration { token { token }' > query.json
printf ' certificateSigningRequestInfo { subject keyAlgorithm }' >> query.json
printf ' managementPlaneInfo { certificateSecuredConnectorURL } } }"}' >> query.json
configuration=$(post -H "Connector-Token: $TOKEN" -d @query.json "$TOKEN_URL")
subject=$(printf '%s' "$configuration" | text subject)
next=$(printf '%s' "$configuration" | sed -E 's/.*"token":\{"token":"([^"]*)".*/\1/')
url=$(printf '%s' "$configuration" | text certificateSecuredConnectorURL)

openssl genrsa -out generated.key 2048 2>/dev/null
openssl req -new -sha256 -out generated.csr -key generated.key -subj "/$(printf '%s' "$subject" | tr ',' '/')"
sign "$(openssl base64 -A -in generated.csr)" > body.json
post -H "Connector-Token: $next" -d @body.json "$TOKEN_URL" > signed.json
text certificateChain < signed.json | base64 -d > chain.pem
text clientCertificate < signed.json | base64 -d > client.pem

openssl verify -CAfile "$CLIENT_CA" client.pem
post --cert chain.pem --key generated.key -d @query.json "$url"
"""

FROM_RAW_ENCODED = r"""
printf '%s' "$RAW_ENCODED" | base64 -d > raw.json
TOKEN=$(text token < raw.json)
TOKEN_URL=$(text connectorURL < raw.json)
"""

DIRECT = r"""
echo
query='{"query":"{ viewer { type } applications { totalCount } }"}'
post --cert chain.pem --key generated.key -D headers -d "$query" "$DIRECTOR_URL"
openssl x509 -in client.pem -outform DER | sha256sum | cut -c1-64 > fingerprint
grep -qi "^compass-emulator-fingerprint: $(cat fingerprint)" headers
"""

RENEW = r"""
subject=$(openssl x509 -in "$CERT" -noout -subject -nameopt RFC2253 | sed 's/^subject=//')
openssl req -new -sha256 -out renewed.csr -newkey rsa:2048 -nodes -keyout renewed.key \
  -subj "/$(printf '%s' "$subject" | tr ',' '/')" 2>/dev/null
sign "$(openssl base64 -A -in renewed.csr)" > body.json
post --cert "$CERT" --key "$KEY" -d @body.json "$URL" > signed.json
text certificateChain < signed.json | base64 -d > renewed.pem
openssl verify -CAfile "$CLIENT_CA" renewed.pem

renewed() { post --cert renewed.pem --key renewed.key "$@"; }
renewed -d '{"query":"mutation { result: revokeCertificate }"}' "$URL"
renewed -d '{"query":"query { __typename }"}' -o /dev/null -w ' %{http_code}' "$URL" || true
"""


async def shell(script: str, emulator: Emulator, folder: Path) -> str:
    """The script's output; fails with its errors."""
    at = emulator.endpoints
    folder.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "CA": at.ca_file,
        "CLIENT_CA": str(Path(at.ca_file).with_name("client-ca.crt")),
        "TOKEN": at.token,
        "TOKEN_URL": at.token_connector_url,
        "RAW_ENCODED": emulator.token().raw_encoded,
        "DIRECTOR_URL": at.director_url,
        "URL": at.connector_url,
        "CERT": at.client_certificate_file,
        "KEY": at.client_key_file,
    }
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        PREPARE + script,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode() + output.decode()
    return output.decode()


async def test_a_connection_is_established_with_openssl_and_curl(emulator: Emulator, tmp_path: Path) -> None:
    output = await shell(ESTABLISH, emulator, tmp_path / "shell")
    assert output.startswith("client.pem: OK\n")
    assert '"keyAlgorithm":"rsa2048"' in output
    assert emulator.counters["tokens_consumed"] == 2
    assert emulator.counters["signatures"] == 1


async def test_a_connection_begins_with_the_directors_raw_token_and_its_certificate_calls_the_director(
    emulator: Emulator, tmp_path: Path
) -> None:
    output = await shell(FROM_RAW_ENCODED + ESTABLISH + DIRECT, emulator, tmp_path / "shell")
    assert output.splitlines()[-1] == (
        '{"data":{"viewer":{"type":"APPLICATION"},"applications":{"totalCount":1}}}'
    )
    assert emulator.counters["calls"]["director"] == 1


@pytest.mark.parametrize("chain", [2, 3])
async def test_a_certificate_is_renewed_and_revoked_with_openssl_and_curl(
    folder: Path, tmp_path: Path, chain: int
) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, chain=chain)) as emulator:
        output = await shell(RENEW, emulator, tmp_path / "shell")
    assert output == 'renewed.pem: OK\n{"data":{"result":true}} 400'
