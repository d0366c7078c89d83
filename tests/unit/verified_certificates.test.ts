/** Which clients' certificates are good in a session that is resumed. */
import { assertEquals } from "@std/assert";
import type { X509Certificate } from "node:crypto";
import { test } from "node:test";
import type { DetailedPeerCertificate } from "node:tls";
import { VerifiedCertificates } from "../../runtimes/shared/verified_certificates.ts";

const HOUR = 3_600_000;
const certificate = (fingerprint256: string) => ({ fingerprint256 }) as X509Certificate;

/** A chain whose certificates expire in so many milliseconds, the client's own first; the last vouches for itself. */
function chain(...expiries: number[]): DetailedPeerCertificate {
  const certificates = expiries.map((ms) => ({ valid_to: new Date(Date.now() + ms).toUTCString() }) as DetailedPeerCertificate);
  for (const [i, one] of certificates.entries()) one.issuerCertificate = certificates[i + 1] ?? one;
  return certificates[0]!;
}

const first = (...expiries: number[]) => ({ isSessionReused: () => false, getChain: () => chain(...expiries) });
const resumed = {
  isSessionReused: () => true,
  getChain: () => {
    throw new Error("nothing is shown in a session that is resumed");
  },
};

test("verified certificates: a session is resumed until the first of the chain expires", () => {
  const verified = new VerifiedCertificates();
  for (
    const [name, ...expiries] of [["alone", HOUR], ["with an authority", HOUR, 2 * HOUR], ["deep", 2 * HOUR, HOUR, HOUR]] as const
  ) {
    assertEquals(verified.refusal(certificate(name), first(...expiries)), null);
    assertEquals(verified.refusal(certificate(name), resumed), null);
  }
  for (
    const [name, ...expiries] of [["itself", -HOUR, HOUR], ["between", HOUR, -HOUR, HOUR], [
      "the root",
      HOUR,
      HOUR,
      -HOUR,
    ]] as const
  ) {
    // The runtime has found it good at the time.
    assertEquals(verified.refusal(certificate(name), first(...expiries)), null);
    assertEquals(verified.refusal(certificate(name), resumed), "it has expired since the session that is resumed was begun");
  }
});

test("verified certificates: what no full handshake has verified is refused, whoever else has", () => {
  const [here, elsewhere] = [VerifiedCertificates.by("here"), VerifiedCertificates.by("elsewhere")];
  assertEquals(elsewhere.refusal(certificate("x"), first(HOUR)), null);
  assertEquals(here.refusal(certificate("x"), resumed), "it was not verified in the session that is resumed");
  assertEquals(VerifiedCertificates.by("elsewhere").refusal(certificate("x"), resumed), null);
});

test("verified certificates: a chain without an end is none", () => {
  const loop = chain(HOUR, HOUR);
  loop.issuerCertificate.issuerCertificate = loop;
  assertEquals(
    new VerifiedCertificates().refusal(certificate("x"), { isSessionReused: () => false, getChain: () => loop }),
    null,
  );
});
