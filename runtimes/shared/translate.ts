import { type Address, type AddressFamily, ipFamily } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import { isRefused, missingPermission } from "./permissions.ts";

/** A runtime's own error as a {@linkcode SocketError}: with its POSIX code where it has one, else with `fallback`. */
export function toSocketError(cause: unknown, syscall: string, address: Address, fallback = "EIO"): SocketError {
  if (cause instanceof SocketError) return cause;
  if (isRefused(cause)) return new SocketError("EACCES", { syscall, address, cause }, missingPermission(cause, syscall, address));
  const { code, syscall: own } = cause as { code?: unknown; syscall?: unknown };
  return new SocketError(typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? code : fallback, {
    syscall: typeof own === "string" ? own : syscall,
    address,
    cause,
  });
}

/** What a runtime's permissions refuse, where its own error doesn't say what they lack. */
export function refused(flag: string, syscall: string, address: Address, cause: unknown): SocketError {
  return new SocketError("EACCES", { syscall, address, cause }, `not permitted: start Deno with ${flag}`);
}

/** What listening on a descriptor gets that is a socket of another kind. */
export function wrongSocket(fd: number | null, address: Address): SocketError {
  return new SocketError("EPROTOTYPE", { syscall: "listen", address }, `descriptor ${fd} is no ${address.transport} socket`);
}

/** The IP address of a host in the family asked for; without one, and for an IP address, the host as it is. */
export async function resolveHost(address: Address, family: AddressFamily | null): Promise<string> {
  if (!("hostname" in address)) throw new TypeError("not an internet address");
  const { hostname } = address;
  if (family === null || ipFamily(hostname) !== null) return hostname;
  return await lookUp(address, hostname, family === "IPv4" ? 4 : 6);
}

/** Asks the system's resolver, which all runtimes offer under this name. */
export async function lookUp(address: Address, hostname: string, family: 0 | 4 | 6): Promise<string> {
  const { lookup } = process.getBuiltinModule("node:dns").promises;
  try {
    return (await lookup(hostname, { family })).address;
  } catch (cause) {
    // Of the resolvers, Deno's alone knows this one.
    if ((cause as { code?: unknown }).code === "EPERM") throw refused(`--allow-net=${hostname}`, "getaddrinfo", address, cause);
    throw toSocketError(cause, "getaddrinfo", address, "ENOTFOUND");
  }
}

/**
 * This side's address of the connections that a listener accepts; `null` when it listens at every address, and each has its own. Asking a
 * socket costs a system call.
 */
export function localOf(bound: Address): Address | null {
  return "hostname" in bound && (bound.hostname === "0.0.0.0" || bound.hostname === "::") ? null : bound;
}

/** An IP address as a socket of the other family wants it: an IPv6 socket reaches IPv4 by mapped addresses (RFC 4291, section 2.5.5.2). */
export function mapped(hostname: string, ipv6: boolean): string {
  return ipv6 && ipFamily(hostname) === "IPv4" ? `::ffff:${hostname}` : hostname;
}

/**
 * The IP address of a host that a datagram goes to, as a socket of this family wants it. What the system's resolver puts first may be
 * an IPv6 address, which an IPv4 socket can't send to.
 */
export async function lookUpPeer(to: Address, ipv6: boolean): Promise<string> {
  const { hostname } = to as { hostname: string };
  try {
    return await lookUp(to, hostname, ipv6 ? 6 : 4);
  } catch (error) {
    const other = await lookUp(to, hostname, ipv6 ? 4 : 6).catch(() => {
      throw error;
    });
    if (ipv6) return mapped(other, true);
    throw wrongFamily(to, `${hostname} has an IPv6 address alone`, error);
  }
}

/** What the sending of a datagram to an IP address fails of. The systems and runtimes have several codes for the wrong family. */
export function sendError(cause: unknown, to: Address, ip: string, ipv6: boolean): SocketError {
  if (!ipv6 && ipFamily(ip) === "IPv6") return wrongFamily(to, `${ip} is an IPv6 address`, cause);
  return toSocketError(cause, "send", to);
}

function wrongFamily(address: Address, what: string, cause: unknown): SocketError {
  const detail = `${what}, which the socket's own IPv4 address can't send to; bind the socket to an IPv6 address`;
  return new SocketError("EAFNOSUPPORT", { syscall: "send", address, cause }, detail);
}

/** What sending on a socket that was closed here gets. */
export function closedError(address: Address): SocketError {
  return new SocketError("ECONNABORTED", { syscall: "send", address });
}

/** How often a datagram is tried, as each failure may be an earlier one's. */
export const SEND_ATTEMPTS = 4;

/**
 * Whether an error of sending a UDP datagram may be what ICMP has said of an earlier one. Where a socket has IP_RECVERR, as in Bun, the
 * next call gets that error, whomever it sends to (ip(7)), and the datagram is not sent.
 */
export function isEarlier(cause: unknown): boolean {
  const { code } = cause as { code?: unknown };
  return code === "ECONNREFUSED" || code === "EHOSTUNREACH" || code === "ENETUNREACH";
}
