import type { X509Certificate } from "node:crypto";

/** More than any server has clients; beyond, the oldest are forgotten, and their next session is a full handshake's. */
const MOST = 100_000;

const byAuthorities = new Map<string, VerifiedCertificates>();

/**
 * The certificates that full handshakes have verified, for each set of authorities: in a session that is resumed they are not shown, and
 * not every runtime keeps what became of their verification. Deno doesn't, and lets a session be resumed on any server of the process.
 */
export class VerifiedCertificates {
  #fingerprints = new Set<string>();

  /** Those that these authorities, as PEM text, vouch for. */
  static by(authorities: string): VerifiedCertificates {
    let verified = byAuthorities.get(authorities);
    if (verified === undefined) byAuthorities.set(authorities, verified = new VerifiedCertificates());
    return verified;
  }

  /** A full handshake has verified it. */
  add({ fingerprint256 }: X509Certificate): void {
    // The newest last.
    this.#fingerprints.delete(fingerprint256);
    this.#fingerprints.add(fingerprint256);
    if (this.#fingerprints.size > MOST) this.#fingerprints.delete(this.#fingerprints.keys().next().value!);
  }

  /** Whether one has, and the certificate is still valid. */
  has({ fingerprint256, validTo }: X509Certificate): boolean {
    return this.#fingerprints.has(fingerprint256) && Date.now() < Date.parse(validTo);
  }
}
