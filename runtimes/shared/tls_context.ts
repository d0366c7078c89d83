import type { KeyObject, X509Certificate } from "node:crypto";
import type * as tls from "node:tls";
import { SocketError, UnsupportedError } from "../../src/errors.ts";
import type { TlsSettings } from "../../src/runtime.ts";
import type { PeerCertificate, TlsCertificate } from "../../src/tls.ts";
import { isRefused, missingPermission } from "./permissions.ts";

/**
 * What is spoken below TLS 1.3: forward secrecy and authenticated encryption only, as Mozilla's "intermediate" recommendation has it, less
 * finite-field Diffie-Hellman. Deno has no others.
 */
const CIPHERS = [
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
].join(":");

/** The certificates of a server or a client, read and checked: what `node:tls` makes of them, by name. */
export interface SecureContexts {
  /** The one for those who ask for no name, or for one that nobody has. */
  readonly fallback: tls.SecureContext;
  /** The one for a name; `null` when that is `fallback`. */
  find(servername: string): tls.SecureContext | null;
  /** The authorities, as PEM text. */
  readonly ca: string;
}

/** Reads and checks what the settings name. */
export async function readContexts(settings: TlsSettings, keyKinds: true | string = true): Promise<SecureContexts> {
  const authorities = await Promise.all(settings.ca.map((one) => readPem(one, "tls.ca")));
  for (const pem of authorities) checkAuthorities(pem);
  const make = async (pair: TlsCertificate | null, what: string) => secureContext(settings, authorities, await read(pair, what));
  const fallback = await make(settings.certificate, "tls");
  const named = new Map<string, tls.SecureContext>();
  for (const [name, pair] of settings.sni) named.set(name, await make(pair, `tls.sni[${JSON.stringify(name)}]`));
  if (keyKinds !== true) await checkKeyKinds(settings, keyKinds);
  return {
    fallback,
    find(servername) {
      const name = servername.toLowerCase();
      return named.get(name) ?? named.get(name.replace(/^[^.]*/, "*")) ?? null;
    },
    ca: authorities.join("\n"),
  };
}

/** The certificate that a peer has shown. */
export function describe(certificate: X509Certificate): PeerCertificate {
  const { subject, issuer, subjectAltName, serialNumber, fingerprint256, validFrom, validTo } = certificate;
  return {
    commonName: /^CN=(.*)$/m.exec(subject)?.[1] ?? null,
    subject,
    issuer,
    subjectAltName: subjectAltName ?? null,
    // Deno leaves out the zero that makes it whole bytes.
    serialNumber: serialNumber.length % 2 === 0 ? serialNumber : `0${serialNumber}`,
    fingerprint256,
    validFrom,
    validTo,
    pem: certificate.toString(),
  };
}

function secureContext(settings: TlsSettings, ca: string[], pair: TlsCertificate | null): tls.SecureContext {
  const { isServer, minVersion } = settings;
  const { constants } = process.getBuiltinModule("node:crypto");
  return process.getBuiltinModule("node:tls").createSecureContext({
    ...pair,
    // Without any, a client trusts whom the runtime trusts.
    ...(ca.length > 0 ? { ca } : {}),
    minVersion,
    ciphers: CIPHERS,
    honorCipherOrder: isServer,
    // Without one, sessions of clients that have shown a certificate could not be resumed.
    ...(isServer ? { sessionIdContext: "@sockets/server" } : { secureOptions: constants.SSL_OP_NO_RENEGOTIATION ?? 0 }),
  });
}

async function read(pair: TlsCertificate | null, what: string): Promise<TlsCertificate | null> {
  if (pair === null) return null;
  const [cert, key] = await Promise.all([readPem(pair.cert, `${what}.cert`), readPem(pair.key, `${what}.key`)]);
  checkPair(what, cert, key);
  return { cert, key };
}

async function readPem(source: string, what: string): Promise<string> {
  if (source.includes("-----BEGIN ")) return source;
  try {
    return await process.getBuiltinModule("node:fs").promises.readFile(source, "utf8");
  } catch (cause) {
    const { code, message } = cause as Error & { code?: string };
    const [known, why] = isRefused(cause) ? ["EACCES", missingPermission(cause)] : [code ?? "EIO", message];
    throw new SocketError(known, { syscall: "open", cause }, `${what} can't be read: ${why}`);
  }
}

/** A pair that doesn't fit would show at the first handshake only, and on each runtime otherwise. */
function checkPair(what: string, cert: string, key: string): void {
  const { createPrivateKey, X509Certificate } = process.getBuiltinModule("node:crypto");
  const certificate = parse(`${what}.cert`, "a certificate", () => new X509Certificate(cert));
  const privateKey: KeyObject = parse(`${what}.key`, "a private key without a passphrase", () => createPrivateKey(key));
  if (!certificate.checkPrivateKey(privateKey)) {
    const { commonName } = describe(certificate);
    throw new TypeError(`${what}.key is not the key of ${what}.cert, whose subject is ${commonName ?? certificate.subject}`);
  }
}

async function checkKeyKinds({ certificate, sni }: TlsSettings, keyKinds: string): Promise<void> {
  const { createPrivateKey } = process.getBuiltinModule("node:crypto");
  const kindOf = async (pair: TlsCertificate) => createPrivateKey(await readPem(pair.key, "tls.key")).asymmetricKeyType;
  for (const [name, pair] of sni) {
    if (await kindOf(pair) === await kindOf(certificate!)) continue;
    throw new UnsupportedError(`the key of tls.sni[${JSON.stringify(name)}] is of another kind than tls.key: ${keyKinds}`);
  }
}

function checkAuthorities(pem: string): void {
  const { X509Certificate } = process.getBuiltinModule("node:crypto");
  const certificates = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (certificates.length === 0) throw new TypeError("tls.ca must hold certificates in PEM text");
  for (const one of certificates) parse("tls.ca", "certificates in PEM text", () => new X509Certificate(one));
}

function parse<T>(what: string, expected: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw new TypeError(`${what} must be ${expected}: ${(cause as Error).message}`, { cause });
  }
}
