/**
 * The PROXY protocol, versions 1 and 2: what a load balancer says of the client before it passes on the client's bytes.
 *
 * The specification is HAProxy's {@link https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt | proxy-protocol.txt}; the sections
 * that are named here are its own.
 *
 * @module
 */
import { type Address, inetAddress } from "./address.ts";
import { formatIp, parseIp } from "./networks.ts";

/** What a load balancer says of a connection that it passes on. */
export interface ProxyHeader {
  /** The version of the protocol. */
  readonly version: 1 | 2;
  /** `"PROXY"` for a connection that was passed on, `"LOCAL"` for one of the balancer's own, such as a health check. */
  readonly command: "PROXY" | "LOCAL";
  /** The client; `null` when the header doesn't say, as with `LOCAL` and `UNKNOWN`, or says that it sends datagrams. */
  readonly source: Address | null;
  /** Where the client had connected to; `null` when `source` is. */
  readonly destination: Address | null;
  /** What else it says; nothing in version 1 and with `LOCAL`. */
  readonly tlvs: ProxyTlvs;
  /** The header as it came. */
  readonly bytes: Uint8Array;
}

/** The further fields of a version 2 header (section 2.2). Its checksum is not among them: a header with a wrong one is refused. */
export interface ProxyTlvs {
  /** The protocol agreed on by ALPN (RFC 7301), such as `h2`. */
  readonly alpn?: string;
  /** The host name that the client asked for, as SNI has it (RFC 6066). */
  readonly authority?: string;
  /** What identifies the connection to the balancer, 128 bytes at most. */
  readonly uniqueId?: Uint8Array;
  /** What the balancer knows of the client's TLS. */
  readonly ssl?: ProxySsl;
  /** The network namespace that the connection came from. */
  readonly netns?: string;
  /** The others by their type, such as those of the cloud's own balancers (0xE0 to 0xEF). */
  readonly other: ReadonlyMap<number, Uint8Array>;
}

/** What a load balancer knows of the client's TLS (section 2.2.5). */
export interface ProxySsl {
  /** Whether the client connected over TLS. */
  readonly secure: boolean;
  /** Whether it gave a certificate on this connection. */
  readonly certificate: boolean;
  /** Whether it gave one on this connection or another of the same TLS session. */
  readonly sessionCertificate: boolean;
  /** Whether the certificate was verified. */
  readonly verified: boolean;
  /** The version, such as `TLSv1.3`. */
  readonly version?: string;
  /** The cipher, such as `ECDHE-RSA-AES128-GCM-SHA256`. */
  readonly cipher?: string;
  /** The common name in the client's certificate. */
  readonly commonName?: string;
  /** How the balancer's certificate was signed, such as `SHA256`. */
  readonly signatureAlgorithm?: string;
  /** The key of the balancer's certificate, such as `RSA2048`. */
  readonly keyAlgorithm?: string;
}

/** A header that is missing or none. */
export class ProxyHeaderError extends Error {
  /** The class's name. */
  override name = "ProxyHeaderError";
}

/** Section 2.1: "a 108-byte buffer is always enough to store all the line and a trailing zero". */
const MAX_V1 = 107;
/** Bytes that may follow the fixed part of a version 2 header. The protocol has room for 65,535; what is in use takes a few hundred. */
const MAX_V2_LENGTH = 4096;
const V2_FIXED = 16;
/** Transport protocols of version 2. */
const STREAM = 1;
const DGRAM = 2;
const V1_PREFIX = new TextEncoder().encode("PROXY ");
const V2_SIGNATURE = new Uint8Array([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);
const V1_LINE = /^PROXY TCP([46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})$/;
const CR = 0x0d;
const LF = 0x0a;
const NO_TLVS: ProxyTlvs = { other: new Map() };
const decoder = new TextDecoder();

/**
 * Reads the header at the beginning of a connection.
 *
 * @param bytes What has come so far.
 * @returns The header, or `null` when it goes on beyond these bytes.
 * @throws {ProxyHeaderError} When the connection doesn't begin with one; as soon as that is certain.
 */
export function parseProxyHeader(bytes: Uint8Array): ProxyHeader | null {
  if (bytes.length === 0) return null;
  return bytes[0] === CR ? parseV2(bytes) : parseV1(bytes);
}

function parseV1(bytes: Uint8Array): ProxyHeader | null {
  checkBeginning(bytes, V1_PREFIX);
  const end = bytes.subarray(0, MAX_V1).indexOf(LF);
  if (end === -1) {
    if (bytes.length >= MAX_V1) throw new ProxyHeaderError(`the line is longer than ${MAX_V1} bytes`);
    return null;
  }
  const line = String.fromCharCode(...bytes.subarray(0, end - 1));
  const common = { version: 1, command: "PROXY", tlvs: NO_TLVS, bytes: bytes.slice(0, end + 1) } as const;
  if (bytes[end - 1] === CR) {
    // "The receiver must ignore anything presented before the CRLF".
    if (line === "PROXY UNKNOWN" || line.startsWith("PROXY UNKNOWN ")) return { ...common, source: null, destination: null };
    const [, family = "", from = "", to = "", fromPort, toPort] = V1_LINE.exec(line) ?? [];
    const source = v1Address(from, fromPort);
    const destination = v1Address(to, toPort);
    if (source !== null && destination !== null) {
      // "The advertised protocol family dictates what format to use", for both. HAProxy refuses a mixed line too.
      if (isOf(family, from) && isOf(family, to)) return { ...common, source, destination };
      throw new ProxyHeaderError(`${from} and ${to} are not both addresses of TCP${family}`);
    }
  }
  throw new ProxyHeaderError(`not a line of the PROXY protocol: ${JSON.stringify(line)}`);
}

function v1Address(text: string, port = ""): Address | null {
  const ip = /^[0-9a-f.:]+$/i.test(text) ? parseIp(text) : null;
  return ip === null || Number(port) > 65_535 ? null : inetAddress("tcp", formatIp(ip), Number(port));
}

function isOf(family: string, text: string): boolean {
  return text.includes(":") === (family === "6");
}

function parseV2(bytes: Uint8Array): ProxyHeader | null {
  checkBeginning(bytes, V2_SIGNATURE);
  if (bytes.length < V2_FIXED) return null;
  const [versionAndCommand, family] = [bytes[12]!, bytes[13]!];
  const length = uint16(bytes, 14);
  if (versionAndCommand !== 0x20 && versionAndCommand !== 0x21) {
    throw new ProxyHeaderError(`version and command are ${hex(versionAndCommand)}, neither 0x20 (LOCAL) nor 0x21 (PROXY)`);
  }
  if (length > MAX_V2_LENGTH) throw new ProxyHeaderError(`the header has ${length} bytes, of ${MAX_V2_LENGTH} at most`);
  if (bytes.length < V2_FIXED + length) return null;
  const header = bytes.slice(0, V2_FIXED + length);
  const block = header.subarray(V2_FIXED);
  // LOCAL: "the receiver … must discard the protocol block including the family which is ignored".
  if (versionAndCommand === 0x20) {
    return { version: 2, command: "LOCAL", source: null, destination: null, tlvs: NO_TLVS, bytes: header };
  }
  const [size, source, destination] = v2Addresses(family, block);
  return { version: 2, command: "PROXY", source, destination, tlvs: parseTlvs(header, V2_FIXED + size), bytes: header };
}

/** The addresses, and how many bytes they take. */
function v2Addresses(family: number, block: Uint8Array): [size: number, source: Address | null, destination: Address | null] {
  const size = family === 0 ? 0 : [0, 12, 36, 216][family >> 4];
  const protocol = family & 0xf;
  if (size === undefined || (family !== 0 && (size === 0 || (protocol !== STREAM && protocol !== DGRAM)))) {
    throw new ProxyHeaderError(`${hex(family)} is no address family and protocol`);
  }
  if (block.length < size) throw new ProxyHeaderError(`the header ends within its addresses`);
  // A stream is no datagrams: "it automatically falls back to the UNSPEC mode for the valid combinations above that it does not support".
  if (size === 0 || protocol === DGRAM) return [size, null, null];
  if (size === 216) {
    const [source, destination] = [0, 108].map((at): Address => ({
      transport: "unix",
      path: unixPath(block.subarray(at, at + 108)),
    }));
    return [size, source!, destination!];
  }
  const width = size === 12 ? 4 : 16;
  const [source, destination] = [0, 1].map((i) =>
    ipAddress(block.subarray(i * width, (i + 1) * width), uint16(block, 2 * width + 2 * i))
  );
  return [size, source!, destination!];
}

function ipAddress(bytes: Uint8Array, port: number): Address {
  let value = 0n;
  for (const byte of bytes) value = value << 8n | BigInt(byte);
  return inetAddress("tcp", formatIp({ bits: bytes.length === 4 ? 32 : 128, value }), port);
}

/** The path in a `sun_path`: up to the NUL, but for an abstract name, which begins with one; how long that is nothing tells. */
function unixPath(bytes: Uint8Array): string {
  const text = decoder.decode(bytes);
  return text.startsWith("\0") ? text.replace(/\0+$/, "") : text.replace(/\0[^]*$/, "");
}

function parseTlvs(header: Uint8Array, from: number): ProxyTlvs {
  if (from === header.length) return NO_TLVS;
  const other = new Map<number, Uint8Array>();
  const tlvs: { -readonly [Name in keyof ProxyTlvs]: ProxyTlvs[Name] } = { other };
  for (const [type, value, at] of eachTlv(header, from)) {
    switch (type) {
      case 0x01:
        tlvs.alpn = decoder.decode(value);
        break;
      case 0x02:
        tlvs.authority = decoder.decode(value);
        break;
      case 0x03:
        checkCrc32c(header, value, at);
        break;
      case 0x04: // PP2_TYPE_NOOP, for padding
        break;
      case 0x05:
        if (value.length > 128) throw new ProxyHeaderError(`the unique id has ${value.length} bytes, of 128 at most`);
        tlvs.uniqueId = value;
        break;
      case 0x20:
        tlvs.ssl = parseSsl(value);
        break;
      case 0x30:
        tlvs.netns = decoder.decode(value);
        break;
      default:
        other.set(type, value);
    }
  }
  return tlvs;
}

function parseSsl(value: Uint8Array): ProxySsl {
  if (value.length < 5) throw new ProxyHeaderError("the header ends within what it says of TLS");
  const client = value[0]!;
  const ssl: { -readonly [Name in keyof ProxySsl]: ProxySsl[Name] } = {
    secure: (client & 1) !== 0,
    certificate: (client & 2) !== 0,
    sessionCertificate: (client & 4) !== 0,
    // "zero if the client presented a certificate and it was successfully verified, and non-zero otherwise"
    verified: (client & 6) !== 0 && value.subarray(1, 5).every((byte) => byte === 0),
  };
  const names = {
    0x21: "version",
    0x22: "commonName",
    0x23: "cipher",
    0x24: "signatureAlgorithm",
    0x25: "keyAlgorithm",
  } as const;
  for (const [type, text] of eachTlv(value, 5)) {
    const name = names[type as keyof typeof names];
    if (name !== undefined) ssl[name] = decoder.decode(text);
  }
  return ssl;
}

/** The fields from an offset to the end: type, value, and where the value begins. */
function* eachTlv(bytes: Uint8Array, from: number): Generator<[type: number, value: Uint8Array, at: number]> {
  while (from < bytes.length) {
    const at = from + 3;
    const end = at + (at > bytes.length ? 0 : uint16(bytes, from + 1));
    if (end > bytes.length) throw new ProxyHeaderError("the header ends within a TLV");
    yield [bytes[from]!, bytes.subarray(at, end), at];
    from = end;
  }
}

/** Section 2.2.3: the checksum over the whole header, in which its own place holds zeros. */
function checkCrc32c(header: Uint8Array, value: Uint8Array, at: number): void {
  if (value.length !== 4) throw new ProxyHeaderError(`the checksum has ${value.length} bytes, not 4`);
  const zeroed = header.slice();
  zeroed.fill(0, at, at + 4);
  if (crc32c(zeroed) !== (uint16(value, 0) << 16 | uint16(value, 2)) >>> 0) throw new ProxyHeaderError("the checksum is wrong");
}

/** CRC-32C (RFC 4960, appendix B). Bit by bit: a header is short, and one with a checksum is rare. */
export function crc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc >>> 1 ^ (0x82f63b78 & -(crc & 1));
  }
  return ~crc >>> 0;
}

function checkBeginning(bytes: Uint8Array, expected: Uint8Array): void {
  for (let i = 0; i < expected.length && i < bytes.length; i++) {
    if (bytes[i] !== expected[i]) throw new ProxyHeaderError("the connection doesn't begin with a header of the PROXY protocol");
  }
}

function uint16(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
