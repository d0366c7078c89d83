import { SocketError, UnsupportedError } from "../../src/errors.ts";
import { parseIp } from "../../src/networks.ts";
import type { BindOptions } from "../../src/runtime.ts";
import { C, ERRNO, LIBRARIES } from "../shared/unix_datagram.ts";

/** The part of Deno's API that is used here. */
interface DenoApi {
  dlopen(library: string, functions: Record<string, { parameters: string[]; result: string }>): { symbols: unknown };
  UnsafePointerView: new (pointer: object) => { getInt32(): number };
}

interface Functions {
  socket(domain: number, type: number, protocol: number): number;
  getsockname(fd: number, address: Uint8Array, length: Uint32Array): number;
  getsockopt(fd: number, level: number, name: number, value: Int32Array, size: Uint32Array): number;
  setsockopt(fd: number, level: number, name: number, value: Int32Array, size: number): number;
  close(fd: number): number;
  [errnoLocation: string]: (...args: never[]) => unknown;
}

/** Descriptors beyond the lowest free one that are searched, as other threads may have taken that one meanwhile. */
const SEARCHED = 1024;

let loaded: { libc: Functions; errno(): number } | null = null;

/** Opens the C library the first time that it is needed. */
function load(): { libc: Functions; errno(): number } {
  if (loaded !== null) return loaded;
  const { dlopen, UnsafePointerView } = (globalThis as unknown as { Deno: DenoApi }).Deno;
  const functions = {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    [ERRNO]: { parameters: [], result: "pointer" },
  };
  let failure: unknown;
  for (const library of LIBRARIES) {
    try {
      const libc = dlopen(library, functions).symbols as Functions;
      const location = libc[ERRNO] as () => object;
      return loaded = { libc, errno: () => new UnsafePointerView(location()).getInt32() };
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/**
 * Opens a UDP socket and sets the kernel's buffers of it. Deno has no way to set them and shows no descriptor, so that the socket's is
 * looked for: from the lowest that was free before, the first UDP socket with the same address.
 *
 * @param open Opens the socket, in this turn.
 */
export function withBufferSizes<S extends { readonly addr: { hostname: string; port: number }; close(): void }>(
  { address, receiveBufferSize, sendBufferSize }: BindOptions,
  open: () => S,
): S {
  const { libc, errno } = load();
  const failed = (syscall: string) => {
    const code = process.getBuiltinModule("node:util").getSystemErrorName(-errno());
    return new SocketError(code, { syscall, address });
  };
  const lowest = libc.socket(C.AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0);
  if (lowest < 0) throw failed("socket");
  libc.close(lowest);
  const socket = open();
  try {
    const fd = find(libc, lowest, socket.addr);
    const set = (name: number, size: number | null) => {
      if (size === null) return;
      if (libc.setsockopt(fd, C.SOL_SOCKET, name, new Int32Array([size]), 4) < 0) throw failed("setsockopt");
    };
    set(C.SO_RCVBUF, receiveBufferSize);
    set(C.SO_SNDBUF, sendBufferSize);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

function find(libc: Functions, lowest: number, wanted: { hostname: string; port: number }): number {
  const value = new Int32Array(1);
  const size = new Uint32Array(1);
  // struct sockaddr_in6, the longest that a UDP socket has, and room.
  const name = new Uint8Array(64);
  for (let fd = lowest; fd <= lowest + SEARCHED; fd++) {
    size[0] = 4;
    if (libc.getsockopt(fd, C.SOL_SOCKET, C.SO_TYPE, value, size) < 0 || value[0] !== C.SOCK_DGRAM) continue;
    size[0] = name.length;
    if (libc.getsockname(fd, name, size) === 0 && isSame(name, size[0]!, wanted)) return fd;
  }
  throw new UnsupportedError(
    "receiveBufferSize and sendBufferSize: the socket's descriptor can't be found on this version of Deno",
  );
}

/** Whether a `struct sockaddr` has this address. Its port and address lie at the same places on Linux and macOS (ip(7), ipv6(7)). */
function isSame(name: Uint8Array, length: number, { hostname, port }: { hostname: string; port: number }): boolean {
  const ipv6 = hostname.includes(":");
  if (length !== (ipv6 ? 28 : 16) || (name[2]! << 8 | name[3]!) !== port) return false;
  const bytes = ipv6 ? name.subarray(8, 24) : name.subarray(4, 8);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const { bits, value } = parseIp(hostname)!;
  return BigInt.asUintN(bits, BigInt(`0x${hex}`)) === value;
}
