import { type Address, formatAddress, ipFamily } from "./address.ts";
import { SocketError, UnsupportedError } from "./errors.ts";
import { encodePath, isEscaped } from "./path_bytes.ts";
import type { BindOptions, ListenOptions, Runtime, SocketOptions } from "./runtime.ts";

/** Checks what a listener is asked for, before anything is bound. */
export function checkListenOptions(runtime: Runtime, options: ListenOptions): void {
  checkSocketOptions(runtime, options);
  const { address, fd, keepAlive, allowReuseAddress } = options;
  if (fd !== null) checkInteger("fd", fd, 0, 2 ** 31 - 1);
  if (typeof keepAlive !== "boolean") {
    if (!(keepAlive >= 1000)) {
      throw new RangeError(`keepAlive must be a boolean or a number of milliseconds, 1000 or more, got ${String(keepAlive)}`);
    }
    need(runtime, "a keepAlive delay", runtime.capabilities.keepAliveDelay);
  }
  if (!allowReuseAddress && address.transport === "tcp") {
    throw new UnsupportedError(
      `allowReuseAddress can't be switched off: ${runtime.name} always sets SO_REUSEADDR on a listener`,
    );
  }
}

/** Checks what a datagram socket is asked for, before anything is bound. */
export function checkBindOptions(runtime: Runtime, options: BindOptions): void {
  checkSocketOptions(runtime, options);
  // 65,535 is the most that UDP's length field can say; a Unix datagram is bounded by the kernel's buffers.
  checkInteger("maxPacketSize", options.maxPacketSize, 1, options.address.transport === "udp" ? 65_535 : 1 << 24);
  for (const name of ["receiveBufferSize", "sendBufferSize"] as const) {
    const size = options[name];
    if (size === null) continue;
    checkInteger(name, size, 1, 2 ** 31 - 1);
    need(runtime, name, runtime.capabilities.bufferSizes);
  }
  if (options.address.transport === "unixgram") need(runtime, "a Unix datagram socket", runtime.capabilities.unixDatagram);
}

/** Checks the path of a Unix socket: longer than the system allows, it would be cut, or refused with a code that says little. */
export function checkPath(runtime: Runtime, address: Address): void {
  if (!("path" in address)) return;
  const { path } = address;
  const { abstractNames, socketPathLength } = runtime.capabilities;
  if (path.startsWith("\0")) need(runtime, "an abstract name", abstractNames);
  else if (path.includes("\0")) throw new TypeError(`path must not contain a NUL, got ${JSON.stringify(path)}`);
  if (address.transport === "unix" && isEscaped(path)) {
    throw new UnsupportedError(
      `a stream socket with a path that is no UTF-8 can't be had on ${runtime.name} here: its sockets take text alone; ` +
        "use a path in UTF-8, or a Unix datagram socket",
    );
  }
  const size = encodePath(path).length;
  if (size > socketPathLength) {
    const detail = `the path of a Unix socket has at most ${socketPathLength} bytes here, this one has ${size}; ` +
      "change to its directory and use a relative path, or choose a shorter one";
    throw new SocketError("ENAMETOOLONG", { syscall: "bind", address }, detail);
  }
}

function checkSocketOptions(runtime: Runtime, options: SocketOptions): void {
  const { address, addressFamily, mode } = options;
  checkPath(runtime, address);
  checkInteger("requestQueueSize", options.requestQueueSize, 1, 2 ** 31 - 1);
  if (addressFamily !== null && addressFamily !== "IPv4" && addressFamily !== "IPv6") {
    throw new TypeError(`addressFamily must be "IPv4", "IPv6" or null, got ${String(addressFamily)}`);
  }
  if ("hostname" in address) {
    const family = ipFamily(address.hostname);
    if (addressFamily !== null && family !== null && family !== addressFamily) {
      throw new TypeError(`addressFamily is ${addressFamily}, but ${address.hostname} is an ${family} address`);
    }
    if (options.allowReusePort) need(runtime, "allowReusePort", runtime.capabilities.reusePort);
    if (options.ipv6Only) need(runtime, "ipv6Only", runtime.capabilities.ipv6Only);
  } else {
    if (options.allowReusePort) throw new UnsupportedError(`allowReusePort: ${formatAddress(address)} has no port`);
    checkInteger("mode", mode, 0, 0o777);
  }
}

function checkInteger(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new RangeError(`${name} must be an integer from ${min} to ${max}, got ${String(value)}`);
}

function need(runtime: Runtime, what: string, capability: true | string): void {
  if (capability !== true) throw new UnsupportedError(`${what} can't be had on ${runtime.name} here: ${capability}`);
}
