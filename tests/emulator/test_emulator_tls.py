"""TLS at the listeners: genuine alerts of OpenSSL, and a server certificate that strict clients accept."""

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from compass_emulator import Emulator, EmulatorOptions
from tests.emulator.talking import (
    PROBE,
    SIGN,
    Credential,
    ask,
    client_context,
    exchange,
    fields,
    first_client_id,
    make_csr,
    obtain,
    own_credential,
    refusal,
    save,
)

pytestmark = pytest.mark.anyio


async def test_no_certificate_is_alert_116_and_in_tls_1_2_alert_40(emulator: Emulator) -> None:
    context = client_context(emulator)
    assert await refusal(emulator, context) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await refusal(emulator, context) == "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert emulator.counters["handshakes_failed"] == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_expired_certificate_is_alert_45(
    emulator: Emulator, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    emulator.set_clock_offset(timedelta(days=-2))
    emulator.set_lifetime(timedelta(hours=1))
    context = client_context(emulator, await obtain(emulator, tmp_path / "expired"))
    context.maximum_version = version
    assert await refusal(emulator, context) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    assert "certificate has expired" in emulator.requests[-1]["outcome"]


async def test_a_certificate_before_its_time_is_alert_42(emulator: Emulator, tmp_path: Path) -> None:
    emulator.set_clock_offset(timedelta(hours=1))
    context = client_context(emulator, await obtain(emulator, tmp_path / "early"))
    assert await refusal(emulator, context) == "SSLV3_ALERT_BAD_CERTIFICATE"


async def test_a_certificate_of_another_ca_is_alert_48(emulator: Emulator, tmp_path: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=tmp_path / "other")) as other:
        context = client_context(emulator, own_credential(other))
        assert await refusal(emulator, context) == "TLSV1_ALERT_UNKNOWN_CA"


async def test_after_a_replacement_of_the_ca_old_certificates_are_alert_48(
    emulator: Emulator, folder: Path
) -> None:
    old = client_context(emulator, own_credential(emulator))
    await emulator.replace_client_ca()
    assert await refusal(emulator, old) == "TLSV1_ALERT_UNKNOWN_CA"


async def test_a_restart_after_a_replacement_comes_with_a_good_credential(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder)) as emulator:
        await emulator.replace_client_ca()
    async with Emulator.start(EmulatorOptions(dir=folder)) as emulator:
        assert (await ask(emulator, PROBE)).status_code == 200


async def test_a_certificate_for_servers_is_refused(emulator: Emulator, tmp_path: Path) -> None:
    emulator.fault("server-auth-eku*1")
    context = client_context(emulator, await obtain(emulator, tmp_path / "server"))
    assert await refusal(emulator, context) == "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"


async def test_a_leaf_without_its_intermediate_is_alert_48(tmp_path: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=tmp_path / "three", chain=3)) as emulator:
        answer = await ask(emulator, SIGN, {"csr": make_csr(first_client_id(emulator))})
        context = client_context(emulator, save(tmp_path / "bare", fields(answer)["clientCertificate"]))
        assert await refusal(emulator, context) == "TLSV1_ALERT_UNKNOWN_CA"


async def test_httpx_meets_the_alert_whole_and_not_a_bare_reset(emulator: Emulator) -> None:
    async with httpx.AsyncClient(verify=client_context(emulator), trust_env=False) as client:
        with pytest.raises((httpx.TransportError, ssl.SSLError), match=r"(?i)certificate.required"):
            await client.post(emulator.endpoints.connector_url, json={"query": PROBE})


async def test_the_server_certificate_passes_strict_checks_under_each_name(folder: Path) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, server_names=("connector.test",))) as emulator:
        context = client_context(emulator, own_credential(emulator))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        assert (await exchange(emulator, context, request=b"X\r\n\r\n")).startswith(b"HTTP/1.1 400")
        pem = await asyncio.to_thread(ssl.get_server_certificate, address(emulator))
    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert set(names.value.get_values_for_type(x509.DNSName)) == {"connector.test", "localhost"}
    addresses = {str(one) for one in names.value.get_values_for_type(x509.IPAddress)}
    assert addresses == {"127.0.0.1", "::1"}


def address(emulator: Emulator) -> tuple[str, int]:
    url = httpx.URL(emulator.endpoints.token_connector_url)
    return url.host, url.port or 0


async def test_the_client_ca_does_not_vouch_for_the_server(emulator: Emulator, folder: Path) -> None:
    context = ssl.create_default_context(cafile=folder / "client-ca.crt")
    assert await refusal(emulator, context) == "CERTIFICATE_VERIFY_FAILED"


@pytest.mark.parametrize(("maximum", "spoken"), [("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")])
async def test_the_newest_tls_version_is_chosen(folder: Path, maximum: str, spoken: str) -> None:
    async with Emulator.start(EmulatorOptions(dir=folder, tls_max=maximum)) as emulator:  # type: ignore[arg-type]
        host, port = address(emulator)
        context = client_context(emulator)
        _, writer = await asyncio.open_connection(host, port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == spoken
        writer.close()
        await writer.wait_closed()


async def test_a_credential_is_a_key_and_a_chain_that_openssl_loads(emulator: Emulator) -> None:
    credential: Credential = own_credential(emulator)
    assert credential.key.stat().st_mode & 0o777 == 0o600
    assert credential.certificate.read_bytes().count(b"BEGIN CERTIFICATE") == 2
