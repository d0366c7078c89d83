import { isUnpaired } from "./path_bytes.ts";
import { escapeText, printable, unescapeText } from "./printable.ts";

/** An internet address: a host and a port. */
export interface InetAddress {
  /** The transport that the address belongs to. */
  readonly transport: "tcp" | "udp";
  /** An IP address or a host name; IPv6 without brackets. */
  readonly hostname: string;
  /** A port from 0 to 65535; 0 asks for a free one. */
  readonly port: number;
  /** Whether TLS is spoken there: the address is written `tls://host:port`. TCP only. */
  readonly tls?: true;
}

/** A Unix-domain address: a path in the file system, or on Linux an abstract name, which begins with a NUL. */
export interface UnixAddress {
  /** The transport that the address belongs to. */
  readonly transport: "unix" | "unixgram";
  /**
   * The path of the socket's file, or an abstract name; empty for a peer that has bound none. A byte that is no UTF-8 stands there as a
   * lone surrogate, U+DC80 for 0x80 to U+DCFF for 0xFF, as in Python; given back, it is that byte again. Unix datagrams alone can have
   * such paths.
   */
  readonly path: string;
}

/** The address of a socket. */
export type Address = InetAddress | UnixAddress;

/** What a socket speaks: TCP, UDP, Unix stream or Unix datagram. */
export type Transport = Address["transport"];

const INET = /^(tcp|tls|udp):\/\/(?:\[([^[\]]*)\]|([^:]*)):([^:]*)$/;
const UNIX = /^(unix|unixgram):([^]*)$/;
const GRAMMAR = "tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix:PATH or unixgram:PATH (an IPv6 host in brackets)";

/**
 * Reads an address as a person types it: `tcp://host:port`, `tls://host:port`, `udp://host:port`, `unix:/path` or `unixgram:/path`.
 *
 * @param text The address. An IPv6 host stands in brackets, as in a URL (RFC 3986, section 3.2.2). An abstract name (unix(7), Linux) is
 * written `unix:\0name`, with a backslash and a zero, as nobody can type a NUL. What {@linkcode formatAddress} has escaped is read as what
 * it was.
 * @returns The address as an object.
 * @throws {TypeError} When the text is no address.
 * @throws {RangeError} When the port is no integer from 0 to 65535.
 *
 * @example
 * ```ts
 * import { parseAddress } from "@sockets/server";
 *
 * console.log(parseAddress("tcp://[::1]:9000")); // { transport: "tcp", hostname: "::1", port: 9000 }
 * ```
 */
export function parseAddress(text: string): Address {
  const inet = INET.exec(text);
  if (inet !== null) {
    const port = inet[4]!;
    return checkAddress({
      transport: inet[1] === "udp" ? "udp" : "tcp",
      hostname: inet[2] ?? inet[3]!,
      port: /^[0-9]+$/.test(port) ? Number(port) : port as unknown as number,
      ...(inet[1] === "tls" ? { tls: true } : {}),
    });
  }
  const unix = UNIX.exec(text);
  if (unix !== null) {
    return checkAddress({ transport: unix[1] as UnixAddress["transport"], path: unescapeText(unix[2]!.replace(/^\\0/, "\0")) });
  }
  throw new TypeError(`not an address: ${JSON.stringify(text)}; write ${GRAMMAR}`);
}

/**
 * Writes an address as {@linkcode parseAddress} reads it, on one line that is safe to print: a path is often the peer's to choose, and
 * could forge lines of a log or command a terminal. Control characters, separators of lines and marks that change the direction of writing
 * are written `\xHH` or `\uHHHH`, bytes that are no UTF-8 `\xHH`, and a backslash that would be read as one of these `\x5c`.
 *
 * @param address The address.
 * @returns The text.
 *
 * @example
 * ```ts
 * import { formatAddress } from "@sockets/server";
 *
 * console.log(formatAddress({ transport: "tcp", hostname: "::1", port: 9000 })); // tcp://[::1]:9000
 * ```
 */
export function formatAddress(address: Address): string {
  const unnamed = unnamedPeers.get(address);
  if (unnamed !== undefined) return `an unnamed peer of ${formatAddress(unnamed)}`;
  if ("path" in address) return `${address.transport}:${formatPath(address.path)}`;
  const { transport, hostname, port, tls } = address;
  const host = printable(hostname);
  return `${tls ? "tls" : transport}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function formatPath(path: string): string {
  if (path.startsWith("\0")) return `\\0${escapeText(path.slice(1))}`;
  // A path that begins like that is no abstract name.
  return path.startsWith("\\0") ? `\\x5c${escapeText(path.slice(1))}` : escapeText(path);
}

/** The peers of Unix sockets that have bound no name, each with the address of the socket that they have connected to. */
const unnamedPeers = new WeakMap<Address, Address>();

/**
 * The address of peers that have bound no name: `{ transport: "unix", path: "" }`, which is written as a peer of `of`. One object does for
 * all peers of a listener.
 */
export function unnamedPeer(of: Address): UnixAddress {
  const address: UnixAddress = { transport: "unix", path: "" };
  unnamedPeers.set(address, of);
  return address;
}

/** Whether `formatAddress()` says nothing of an address. */
export function isUnnamed(address: Address): boolean {
  return "path" in address && address.path === "" && !unnamedPeers.has(address);
}

/** Whether two addresses are the same by what they hold: one that has come from a worker is a copy. */
export function isSameAddress(a: Address, b: Address): boolean {
  if (a.transport !== b.transport) return false;
  if ("path" in a || "path" in b) return (a as UnixAddress).path === (b as UnixAddress).path;
  return a.hostname === b.hostname && a.port === b.port;
}

/** Takes an address in either form and checks it; the servers' and `connect`'s first step, before anything is bound. */
export function toAddress(address: string | Address): Address {
  if (typeof address === "string") return parseAddress(address);
  if (typeof address !== "object" || address === null) {
    throw new TypeError(`address must be a string or an object, got ${String(address)}; write ${GRAMMAR}`);
  }
  return checkAddress(address);
}

function checkAddress(address: Address): Address {
  switch (address.transport) {
    case "tcp":
    case "udp": {
      const { transport, hostname, port, tls } = address;
      // A space or a control character is never part of a host name; a "/", "?", "#" or "@" is a URL mistaken for an address.
      // deno-lint-ignore no-control-regex
      if (typeof hostname !== "string" || hostname === "" || /[\x00-\x20/?#@[\]\x7f]/.test(hostname)) {
        throw new TypeError(
          `hostname must be a host name or an IP address ("0.0.0.0" or "::" for every one of this machine's), got ${
            JSON.stringify(hostname)
          }`,
        );
      }
      if (!Number.isInteger(port) || port < 0 || port > 65535) {
        throw new RangeError(`port must be an integer from 0 to 65535, got ${String(port)}`);
      }
      if (tls === undefined || (tls as boolean) === false) return { transport, hostname, port };
      if (tls !== true || transport === "udp") {
        throw new TypeError(`tls must be true, on a TCP address, got ${String(tls)} on ${transport}`);
      }
      return { transport, hostname, port, tls };
    }
    case "unix":
    case "unixgram": {
      const { transport, path } = address;
      if (typeof path !== "string" || path === "") {
        throw new TypeError(`path must be the path of a socket, got ${JSON.stringify(path)}`);
      }
      if (isUnpaired(path)) throw new TypeError(`path must be well-formed text, got ${JSON.stringify(path)}`);
      return { transport, path };
    }
    default:
      throw new TypeError(
        `transport must be "tcp", "udp", "unix" or "unixgram", got ${
          JSON.stringify((address as { transport: unknown }).transport)
        }`,
      );
  }
}

/**
 * The address of one end of an internet socket as adapters report it.
 *
 * An IPv4 peer of a dual-stack listener is shown as the IPv4 address it is (`::ffff:192.0.2.1` as `192.0.2.1`,
 * RFC 4291, section 2.5.5.2), as Go's `net` does, so that one rule about an address holds on every listener. A peer that is gone
 * before it could be asked for its address has the unspecified one.
 */
export function inetAddress(transport: InetAddress["transport"], hostname = "0.0.0.0", port = 0): InetAddress {
  const mapped = hostname.startsWith("::") ? /^::ffff:(\d+(?:\.\d+){3})$/i.exec(hostname) : null;
  return { transport, hostname: mapped === null ? hostname : mapped[1]!, port };
}

/** Whether `hostname` is an IP address rather than a name, and of which family. */
export function ipFamily(hostname: string): AddressFamily | null {
  if (hostname.includes(":")) return "IPv6";
  return /^\d+(\.\d+){3}$/.test(hostname) ? "IPv4" : null;
}

/** A version of the internet protocol. */
export type AddressFamily = "IPv4" | "IPv6";
