import type { X509Certificate } from "node:crypto";
import type * as tls from "node:tls";
import { type Address, ipFamily } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import type { TlsSettings } from "../../src/runtime.ts";
import type { TlsInfo } from "../../src/tls.ts";
import { describe, type SecureContexts } from "../shared/tls_context.ts";
import { VerifiedCertificates } from "../shared/verified_certificates.ts";

/** What Bun's TLS sockets say of their session. */
export interface BunTlsSocket {
  readonly alpnProtocol: string | false | null;
  getServername(): string | undefined;
  getTLSVersion(): string;
  getCipher(): { name: string; standardName?: string } | null;
  isSessionReused(): boolean;
  /** Not in Bun's types. */
  disableRenegotiation(): void;
  /** With its issuers when `abbreviated` is false. */
  getPeerCertificate(abbreviated?: boolean): tls.DetailedPeerCertificate;
  getPeerX509Certificate(): X509Certificate | undefined;
  /** Throws before the handshake is complete. */
  exportKeyingMaterial(length: number, label: string): Uint8Array;
}

/** The options of `upgradeTLS()` that are the same for all handshakes. */
export interface UpgradeOptions {
  isServer: boolean;
  allowHalfOpen: true;
  /** What `tls.createSecureContext()` of `node:tls` has inside. */
  secureContext: object;
  tls: {
    requestCert: boolean;
    rejectUnauthorized: boolean;
    serverName: string;
    ALPNProtocols?: Uint8Array;
  };
}

/** Chooses the certificate for the name that a client asks for; not in Bun's types. */
export type OnServerName = (data: unknown, servername: string) => object;

/** The options for `upgradeTLS()`. */
export function upgradeOptions(settings: TlsSettings, { fallback }: SecureContexts): UpgradeOptions {
  const { isServer, clientCertificate, servername, verifyServer, alpnProtocols } = settings;
  return {
    isServer,
    allowHalfOpen: true,
    secureContext: fallback.context,
    tls: {
      requestCert: isServer ? clientCertificate !== "none" : true,
      rejectUnauthorized: isServer ? clientCertificate === "require" : verifyServer,
      // SNI has names only (RFC 6066, section 3). Without an empty name Bun would send the peer's IP address.
      serverName: servername !== null && ipFamily(servername) === null ? servername : "",
      ...(alpnProtocols.length > 0 ? { ALPNProtocols: wireFormat(alpnProtocols) } : {}),
    },
  };
}

/** What `upgradeTLS()` asks for the certificate of a name. */
export function onServerName({ find, fallback }: SecureContexts): OnServerName {
  return (_data, servername) => (find(servername) ?? fallback).context;
}

/**
 * Whether a client that verifies nothing has completed its handshake. Bun compares the certificate's name whatever `rejectUnauthorized`
 * is, and reports no success when the name differs.
 */
export function isUnverified(socket: BunTlsSocket, { isServer, verifyServer }: TlsSettings): boolean {
  if (isServer || verifyServer) return false;
  try {
    socket.exportKeyingMaterial(1, "EXPORTER-complete");
    return true;
  } catch {
    return false;
  }
}

/** Why the peer is refused although the handshake is done; `null` when it isn't. */
export function peerRefusal(
  socket: BunTlsSocket,
  settings: TlsSettings,
  contexts: SecureContexts,
  verifyError: Error | null,
): string | null {
  const { isServer, clientCertificate, servername, verifyServer } = settings;
  const code = verifyError === null ? null : (verifyError as Error & { code?: string }).code ?? verifyError.message;
  if (isServer) {
    if (clientCertificate === "none") return null;
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) return clientCertificate === "require" ? "the client has shown no certificate" : null;
    const refusal = code ?? VerifiedCertificates.by(contexts.ca).refusal(certificate, {
      isSessionReused: () => socket.isSessionReused(),
      getChain: () => socket.getPeerCertificate(false),
    });
    return refusal === null ? null : `the client's certificate: ${refusal}`;
  }
  if (!verifyServer) return null;
  if (code !== null) return `the server's certificate: ${code}`;
  const { checkServerIdentity } = process.getBuiltinModule("node:tls");
  return checkServerIdentity(servername!, socket.getPeerCertificate())?.message ?? null;
}

/** What the handshake has agreed on. */
export function describeSession(socket: BunTlsSocket): TlsInfo {
  const cipher = socket.getCipher();
  const certificate = socket.getPeerX509Certificate();
  return {
    protocol: socket.getTLSVersion(),
    cipher: cipher?.standardName ?? cipher?.name ?? "",
    alpnProtocol: socket.alpnProtocol || null,
    servername: socket.getServername() ?? null,
    resumed: socket.isSessionReused(),
    peerCertificate: certificate === undefined ? null : describe(certificate),
  };
}

/** A failure of TLS. */
export function tlsError(cause: unknown, syscall: string, address: Address): SocketError {
  const { message, code } = cause as Error & { code?: string };
  if (code === "ECONNRESET") return new SocketError(code, { syscall, address, cause });
  const reason = /OPENSSL_internal:(\w+)/.exec(message)?.[1]?.toLowerCase().replaceAll("_", " ") ?? message ?? code;
  return new SocketError("EPROTO", { syscall, address, cause }, `TLS failed: ${reason}`);
}

/** Names with their lengths before them (RFC 7301, section 3.1). */
function wireFormat(names: readonly string[]): Uint8Array {
  return new Uint8Array(names.flatMap((name) => [name.length, ...new TextEncoder().encode(name)]));
}
