import type { X509Certificate } from "node:crypto";
import type { DetailedPeerCertificate } from "node:tls";

/** Certificates kept per set of authorities. Beyond, the oldest is dropped, and its session can't be resumed. */
const MAX_CERTIFICATES = 100_000;
/** Certificates looked at in a chain; runtimes verify no longer chain. */
const MAX_CHAIN_LENGTH = 16;

const byAuthorities = new Map<string, VerifiedCertificates>();

/** A server's socket whose handshake the runtime has accepted. */
export interface VerifiedSocket {
  isSessionReused(): boolean;
  /** The client's certificate; the issuers follow as `issuerCertificate`. Node 22 leaves out intermediate certificates. */
  getChain(): DetailedPeerCertificate;
}

/**
 * The certificates that full handshakes have verified, per set of authorities, each with its expiry. A resumed session has no certificate
 * message, so no runtime verifies anything: Node and Bun repeat the verdict of the first handshake, even for a certificate that has expired
 * since. Deno keeps no verdict, and resumes a session on any server of the process.
 */
export class VerifiedCertificates {
  /** Milliseconds since 1970 at which the first certificate of the chain expires, by fingerprint of the client's; oldest entry first. */
  #expiries = new Map<string, number>();

  /** The certificates verified against these authorities (PEM text). */
  static by(authorities: string): VerifiedCertificates {
    let verified = byAuthorities.get(authorities);
    if (verified === undefined) byAuthorities.set(authorities, verified = new VerifiedCertificates());
    return verified;
  }

  /** Why a client is refused whose certificate the runtime has accepted; `null` to admit the client. */
  refusal({ fingerprint256 }: X509Certificate, socket: VerifiedSocket): string | null {
    const expiries = this.#expiries;
    if (socket.isSessionReused()) {
      const expiry = expiries.get(fingerprint256);
      if (expiry === undefined) return "it was not verified in the session that is resumed";
      return Date.now() < expiry ? null : "it has expired since the session that is resumed was begun";
    }
    expiries.delete(fingerprint256);
    expiries.set(fingerprint256, expiryOf(socket.getChain()));
    if (expiries.size > MAX_CERTIFICATES) expiries.delete(expiries.keys().next().value!);
    return null;
  }
}

function expiryOf(chain: DetailedPeerCertificate): number {
  let expiry = Infinity;
  let certificate: DetailedPeerCertificate | undefined = chain;
  for (let i = 0; certificate !== undefined && i < MAX_CHAIN_LENGTH; i++) {
    expiry = Math.min(expiry, Date.parse(certificate.valid_to));
    // A root is its own issuer.
    certificate = certificate.issuerCertificate === certificate ? undefined : certificate.issuerCertificate;
  }
  return expiry;
}
