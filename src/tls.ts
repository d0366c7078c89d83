import type { Address } from "./address.ts";
import { checkTimeout } from "./deadline.ts";
import { type SocketError, UnsupportedError } from "./errors.ts";
import { openInTime } from "./opening_listener.ts";
import { rejected } from "./promises.ts";
import { getRuntime, type RawConnection, type Runtime, type TlsContext, type TlsSettings } from "./runtime.ts";

/** A certificate and its key. */
export interface TlsCertificate {
  /** The certificate, those that it was signed with behind it: PEM text, or the path of a PEM file. */
  cert: string;
  /** The private key, not encrypted: PEM text, or the path of a PEM file. */
  key: string;
}

/** A version of TLS. What is older is broken (RFC 8996) and can't be had. */
export type TlsVersion = "TLSv1.2" | "TLSv1.3";

/**
 * TLS for a server, and for {@linkcode Connection.startTls} in a handler.
 *
 * @example
 * ```ts
 * import { AsyncTCPServer, BaseRequestHandler } from "@sockets/server";
 *
 * class Whoami extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     await this.request.write(`${this.request.tls?.peerCertificate?.commonName ?? "somebody"}\n`);
 *   }
 * }
 *
 * const server = new AsyncTCPServer("tls://0.0.0.0:8443", Whoami, {
 *   tls: { cert: "/etc/ssl/server.pem", key: "/etc/ssl/server.key", ca: "/etc/ssl/users.pem", clientCertificate: "request" },
 * });
 * await server.serverClose();
 * ```
 */
export interface TlsOptions extends TlsCertificate {
  /**
   * Certificates for further host names, which a client asks for by SNI (RFC 6066): `{ "b.example": { cert, key } }`. `"*.b.example"`
   * stands for each name of one label more. Who asks for none of them, or for no name at all, gets `cert`.
   */
  sni?: Readonly<Record<string, TlsCertificate>>;
  /**
   * The application protocols that the server speaks (ALPN, RFC 7301), the preferred one first; none by default. A client that asks for
   * others only is refused; one that asks for none is not.
   */
  alpnProtocols?: readonly string[];
  /**
   * Whether clients are to show a certificate: `"none"` by default. With `"require"` those without one are refused, with `"request"`
   * they are let in. Either way a certificate that no `ca` vouches for is refused: one that a handler sees has been verified.
   */
  clientCertificate?: "none" | "request" | "require";
  /** Who vouches for the clients' certificates: PEM text or the path of a PEM file, or several. Needed for `clientCertificate`. */
  ca?: string | readonly string[];
  /** The oldest version of TLS that is spoken: `"TLSv1.2"` by default. */
  minVersion?: TlsVersion;
  /**
   * Milliseconds that a handshake may take: 5000 by default. A peer that takes longer is cut off. 0 and `Infinity` wait for ever.
   */
  handshakeTimeout?: number;
}

/** TLS for a client: of {@linkcode connect}, and of {@linkcode Connection.startTls} on the connection that it gives. */
export interface TlsConnectOptions {
  /** Who vouches for the server: PEM text or the path of a PEM file, or several. By default those that the runtime trusts. */
  ca?: string | readonly string[];
  /** The client's own certificate, for a server that asks for one: PEM text, or the path of a PEM file. */
  cert?: string;
  /** The key of `cert`. */
  key?: string;
  /** The name that the server's certificate must have, and that is asked for by SNI: by default the host that was connected to. */
  servername?: string;
  /** The application protocols that the client speaks (ALPN), the preferred one first; none by default. */
  alpnProtocols?: readonly string[];
  /** The oldest version of TLS that is spoken: `"TLSv1.2"` by default. */
  minVersion?: TlsVersion;
  /** Milliseconds that the handshake may take: 5000 by default. 0 and `Infinity` wait for ever. */
  handshakeTimeout?: number;
  /** Whether a server that nobody vouches for is refused: `true` by default. Without it anybody can be the server. */
  rejectUnauthorized?: boolean;
}

/** How {@linkcode Connection.startTls} begins. */
export interface StartTlsOptions {
  /**
   * What the bytes are that were received in the clear behind the request for TLS, and that nobody has read: `"refuse"`, by default, ends
   * the connection, as anybody on the line could have put them there (CVE-2011-0411). `"handshake"` takes them for the beginning of the
   * client's handshake: for protocols whose clients don't wait for an answer to their request, such as MySQL's. What is no handshake ends
   * the connection with `EPROTO` all the same, and none of it reaches the handler. For handlers only.
   */
  readAhead?: "refuse" | "handshake";
}

/** What the handshake of a connection has agreed on. */
export interface TlsInfo {
  /** The version: `"TLSv1.2"` or `"TLSv1.3"`. */
  readonly protocol: string;
  /** The cipher suite, as the registry of IANA names it: `"TLS_AES_128_GCM_SHA256"`. */
  readonly cipher: string;
  /** The application protocol, `null` when none was agreed on. */
  readonly alpnProtocol: string | null;
  /** The host name that the client has asked for, `null` when it has asked for none. */
  readonly servername: string | null;
  /** Whether an earlier session was resumed. */
  readonly resumed: boolean;
  /**
   * The peer's certificate, `null` when it has shown none. It has been verified, but by a client that has set
   * `rejectUnauthorized` to `false`.
   */
  readonly peerCertificate: PeerCertificate | null;
}

/** The certificate that a peer has shown. */
export interface PeerCertificate {
  /** The common name of its subject, `null` when it has none. */
  readonly commonName: string | null;
  /** Its subject, one attribute a line: `"CN=client"`. */
  readonly subject: string;
  /** Whoever signed it, likewise. */
  readonly issuer: string;
  /** Its other names: `"DNS:client.example, IP Address:192.0.2.1"`; `null` when it has none. */
  readonly subjectAltName: string | null;
  /** Its serial number in hexadecimal digits. */
  readonly serialNumber: string;
  /** The SHA-256 of it: hexadecimal digits in pairs with colons between them. */
  readonly fingerprint256: string;
  /** From when it is valid: a date that `new Date()` reads. */
  readonly validFrom: string;
  /** Until when. */
  readonly validTo: string;
  /** All of it, as PEM text. */
  readonly pem: string;
}

/** Milliseconds that a handshake may take unless it is told otherwise. */
const HANDSHAKE_TIMEOUT = 5000;

const SERVER_OPTIONS = [
  "cert",
  "key",
  "sni",
  "alpnProtocols",
  "clientCertificate",
  "ca",
  "minVersion",
  "handshakeTimeout",
];
const CLIENT_OPTIONS = [
  "ca",
  "cert",
  "key",
  "servername",
  "alpnProtocols",
  "minVersion",
  "handshakeTimeout",
  "rejectUnauthorized",
];

/** Checks a server's options and fills in what was left out. */
export function serverSettings(options: TlsOptions): TlsSettings {
  checkNames(options, SERVER_OPTIONS);
  const { cert, key, sni = {}, clientCertificate = "none" } = options;
  checkPair("tls", { cert, key });
  if (typeof sni !== "object" || sni === null) throw new TypeError(`tls.sni must be an object, got ${String(sni)}`);
  for (const [name, pair] of Object.entries(sni)) {
    const what = `tls.sni[${JSON.stringify(name)}]`;
    if (!/^(\*\.)?[^*:/\s]+$/.test(name)) throw new TypeError(`${what}: a host name, or "*." and one, is wanted`);
    if (typeof pair !== "object" || pair === null) throw new TypeError(`${what} must be { cert, key }, got ${String(pair)}`);
    checkNames(pair, ["cert", "key"], what);
    checkPair(what, pair);
  }
  if (!["none", "request", "require"].includes(clientCertificate)) {
    throw new TypeError(`tls.clientCertificate must be "none", "request" or "require", got ${JSON.stringify(clientCertificate)}`);
  }
  const settings = common(options);
  if (clientCertificate !== "none" && settings.ca.length === 0) {
    throw new TypeError(`tls.clientCertificate is "${clientCertificate}", which needs tls.ca: who vouches for the certificates`);
  }
  return {
    ...settings,
    isServer: true,
    certificate: { cert, key },
    sni: new Map(Object.entries(sni).map(([name, pair]) => [name.toLowerCase(), pair])),
    clientCertificate,
    servername: null,
    verifyServer: false,
  };
}

/** Checks a client's options and fills in what was left out. */
export function clientSettings(options: TlsConnectOptions, hostname: string | null): TlsSettings {
  checkNames(options, CLIENT_OPTIONS);
  const { cert, key, servername = hostname, rejectUnauthorized = true } = options;
  if (cert !== undefined || key !== undefined) checkPair("tls", { cert, key });
  if (typeof rejectUnauthorized !== "boolean") {
    throw new TypeError(`tls.rejectUnauthorized must be a boolean, got ${String(rejectUnauthorized)}`);
  }
  if (servername === null ? rejectUnauthorized : typeof servername !== "string" || servername === "") {
    throw new TypeError(
      `tls.servername must be the name that the server's certificate has, got ${JSON.stringify(servername)}`,
    );
  }
  return {
    ...common(options),
    isServer: false,
    certificate: cert === undefined ? null : { cert, key: key! },
    sni: new Map(),
    clientCertificate: "none",
    servername,
    verifyServer: rejectUnauthorized,
  };
}

/** Reads the certificates, once for all handshakes. */
export function tlsContext(runtime: Runtime, settings: TlsSettings): Promise<TlsContext> {
  checkTls(runtime);
  return runtime.tls(settings);
}

/** Checks that the runtime has TLS. */
export function checkTls(runtime: Runtime): void {
  const { tls } = runtime.capabilities;
  if (tls !== true) throw new UnsupportedError(`TLS can't be had on ${runtime.name} here: ${tls}`);
}

/**
 * Does the handshake on a connection, which is closed when it fails.
 *
 * @param begun The beginning of the peer's handshake, as far as it was read from the connection before.
 * @throws {SocketError} As the rejection: `EPROTO` when the two don't come to terms, `ETIMEDOUT` after `timeout` milliseconds,
 * `ECONNRESET` when the peer goes away.
 */
export function handshake(
  context: TlsContext,
  raw: RawConnection,
  timeout: number,
  begun: Uint8Array | null = null,
): Promise<RawConnection> {
  return openInTime({ name: "handshake", timeout, open: (raw) => context.secure(raw, begun) }, raw);
}

const serverContexts = new WeakMap<TlsOptions, Promise<TlsContext>>();

/**
 * Prepares TLS in midst of a connection; what it resolves with does the handshake.
 *
 * @param hostname The host that was connected to, `null` for one without a name; on a server `undefined`.
 */
export async function startTls(
  options: TlsOptions | TlsConnectOptions,
  hostname: string | null | undefined,
): Promise<(raw: RawConnection, begun: Uint8Array | null) => Promise<RawConnection>> {
  const context = hostname === undefined
    ? await serverContext(options as TlsOptions)
    : await tlsContext(getRuntime(), clientSettings(options, hostname));
  return (raw, begun) => handshake(context, raw, handshakeTimeout(options), begun);
}

/** Checks the options of `startTls()`: whether what was read ahead is the handshake. */
export function readAheadIsHandshake(how: StartTlsOptions, isServer: boolean): boolean {
  checkNames(how, ["readAhead"], "startTls()");
  const { readAhead = "refuse" } = how;
  if (readAhead !== "refuse" && readAhead !== "handshake") {
    throw new TypeError(`startTls(): readAhead must be "refuse" or "handshake", got ${JSON.stringify(readAhead)}`);
  }
  if (readAhead === "handshake" && !isServer) {
    throw new TypeError('startTls(): readAhead: "handshake" is for the end that answers the handshake');
  }
  return readAhead === "handshake";
}

/** Whether bytes can be the start of a handshake record (RFC 8446, section 5.1). The runtime checks what follows the first two bytes. */
export function beginsHandshake(bytes: Uint8Array): boolean {
  return (bytes.length === 0 || bytes[0] === 22) && (bytes.length < 2 || bytes[1] === 3);
}

/** Reading certificates takes far longer than a handshake, and handlers pass the same options again and again. */
function serverContext(options: TlsOptions): Promise<TlsContext> {
  const settings = serverSettings(options);
  let context = serverContexts.get(options);
  if (context === undefined) {
    serverContexts.set(options, context = tlsContext(getRuntime(), settings));
    context.catch(() => serverContexts.delete(options));
  }
  return context;
}

/** A connection while a handshake is under way, and after one that has failed: it can only be given up. */
export class HandshakingConnection implements RawConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  readonly tls = null;
  onclose = null;
  #raw: RawConnection;

  /** The handshake reads. */
  readonly reading = true;
  /** What the handshake has failed of. */
  error: SocketError | null = null;

  /** @param raw The connection. */
  constructor(raw: RawConnection) {
    this.#raw = raw;
    this.localAddress = raw.localAddress;
    this.remoteAddress = raw.remoteAddress;
  }

  get bytesRead(): number {
    return this.#raw.bytesRead;
  }

  get bytesWritten(): number {
    return this.#raw.bytesWritten;
  }

  get unsent(): number {
    return this.#raw.unsent;
  }

  get readEnded(): boolean {
    return this.#raw.readEnded;
  }

  receive(): never {
    throw this.#refusal();
  }

  write(): Promise<never> {
    return rejected(this.#refusal());
  }

  closeWrite(): Promise<never> {
    return rejected(this.#refusal());
  }

  close(): void {
    this.#raw.abort();
  }

  abort(): void {
    this.#raw.abort();
  }

  beginWith(): void {}

  watch(): void {}

  unref(): void {
    this.#raw.unref();
  }

  ref(): void {
    this.#raw.ref();
  }

  setNoDelay(on: boolean): void {
    this.#raw.setNoDelay(on);
  }

  setKeepAlive(on: boolean | number): void {
    this.#raw.setKeepAlive(on);
  }

  #refusal(): Error {
    return this.error ?? new TypeError("a TLS handshake is under way on this connection; await startTls() before anything else");
  }
}

/** The milliseconds that a handshake may take. */
export function handshakeTimeout(options: { handshakeTimeout?: number }): number {
  return options.handshakeTimeout ?? HANDSHAKE_TIMEOUT;
}

function common(
  options: TlsOptions | TlsConnectOptions,
): Pick<TlsSettings, "ca" | "alpnProtocols" | "minVersion"> {
  const { ca = [], alpnProtocols = [], minVersion = "TLSv1.2" } = options;
  const authorities = typeof ca === "string" ? [ca] : ca;
  if (!Array.isArray(authorities) || !authorities.every((one) => typeof one === "string" && one !== "")) {
    throw new TypeError(`tls.ca must be PEM text, a path, or several of them, got ${String(ca)}`);
  }
  if (!Array.isArray(alpnProtocols) || !alpnProtocols.every(isProtocol)) {
    throw new TypeError(`tls.alpnProtocols must be an array of names of 1 to 255 bytes, got ${JSON.stringify(alpnProtocols)}`);
  }
  if (minVersion !== "TLSv1.2" && minVersion !== "TLSv1.3") {
    throw new RangeError(`tls.minVersion must be "TLSv1.2" or "TLSv1.3", got ${JSON.stringify(minVersion)}`);
  }
  checkTimeout("tls.handshakeTimeout", handshakeTimeout(options));
  return { ca: authorities, alpnProtocols, minVersion };
}

function isProtocol(name: unknown): boolean {
  // ASCII, so that characters are bytes; the names that the registry of IANA has are.
  return typeof name === "string" && /^[\x21-\x7e]{1,255}$/.test(name);
}

function checkPair(what: string, { cert, key }: { cert: unknown; key: unknown }): void {
  for (const [name, value] of [["cert", cert], ["key", key]]) {
    if (typeof value === "string" && value !== "") continue;
    throw new TypeError(`${what}.${name} must be PEM text or the path of a PEM file, got ${JSON.stringify(value)}`);
  }
}

function checkNames(options: object, names: string[], what = "tls"): void {
  if (typeof options !== "object" || options === null) throw new TypeError(`${what} must be an object, got ${String(options)}`);
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) throw new TypeError(`unknown option: ${what}.${name}`);
  }
}
