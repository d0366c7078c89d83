import type { UnixAddress } from "../../src/address.ts";
import { UnsupportedError } from "../../src/errors.ts";
import type { BindOptions, RawDatagramSocket } from "../../src/runtime.ts";
import { bindSystemSocket, C, ERRNO, LIBRARIES, type OpenSystemSocket, probeWith, systemError } from "../shared/unix_datagram.ts";
import { fsPath } from "../shared/socket_path.ts";
import { explain } from "./errors.ts";

/** The part of Deno's API that is used here. */
interface DenoApi {
  readonly internal: symbol;
  dlopen(library: string, functions: Record<string, Signature>): { symbols: unknown };
  UnsafePointerView: new (pointer: object) => { getInt32(): number };
}

interface Signature {
  parameters: string[];
  result: string;
  nonblocking?: boolean;
}

interface Functions {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  recvfrom(fd: number, buffer: Uint8Array, size: bigint, flags: number, from: Uint8Array, fromLength: Uint32Array): bigint;
  sendto(fd: number, bytes: Uint8Array, size: bigint, flags: number, to: Uint8Array, toLength: number): bigint;
  fchmod(fd: number, mode: number): number;
  setsockopt(fd: number, level: number, name: number, value: Int32Array, size: number): number;
  shutdown(fd: number, how: number): number;
  close(fd: number): number;
  clock_gettime(clock: number, time: BigInt64Array): number;
  /** In a thread of Deno's pool. */
  poll(fds: Int32Array, count: bigint, timeout: number): Promise<number>;
  [errnoLocation: string]: (...args: never[]) => unknown;
}

/** What keeps the process running is an operation; only Deno's own code can tell of one that it must not. */
interface DenoCore {
  refOpPromise(operation: Promise<unknown>): void;
  unrefOpPromise(operation: Promise<unknown>): void;
}

/** Says whether an operation keeps the process running. None of it is public, so it may be gone one day. */
function keepAlive(operation: Promise<unknown>, on: boolean): void {
  const { internal } = deno();
  const core = (deno() as unknown as Record<symbol, { core?: DenoCore } | undefined>)[internal]?.core;
  if (core?.refOpPromise === undefined || core.unrefOpPromise === undefined) {
    throw new UnsupportedError("unref() of a Unix datagram socket needs Deno's internals, which this version doesn't show");
  }
  if (on) core.refOpPromise(operation);
  else core.unrefOpPromise(operation);
}

const POLLIN = 1;
const deno = () => (globalThis as unknown as { Deno: DenoApi }).Deno;

let loaded: { libc: Functions; errno(): number } | null = null;

/** Opens the C library the first time that it is needed. */
function load(): { libc: Functions; errno(): number } {
  if (loaded !== null) return loaded;
  const functions = {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "isize" },
    sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
    fchmod: { parameters: ["i32", "u32"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    shutdown: { parameters: ["i32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
    poll: { parameters: ["buffer", "usize", "i32"], result: "i32", nonblocking: true },
    [ERRNO]: { parameters: [], result: "pointer" },
  };
  let failure: unknown;
  for (const library of LIBRARIES) {
    try {
      const libc = deno().dlopen(library, functions).symbols as Functions;
      const location = libc[ERRNO] as () => object;
      const { UnsafePointerView } = deno();
      return loaded = { libc, errno: () => new UnsafePointerView(location()).getInt32() };
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/** Finds out whether somebody has a socket's file open. */
export function probe(path: string): Promise<string | null> {
  const { libc, errno } = load();
  return probeWith(libc, errno)(path);
}

/**
 * Binds a Unix datagram socket. Deno's own (`Deno.listenDatagram`) are of no use to a server: they can't send while they receive, and a
 * peer that takes nothing makes them deaf.
 */
export async function bindUnixDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  const { path } = options.address as UnixAddress;
  // Says so where it can't be done. An abstract name is bytes alone.
  if (!path.startsWith("\0")) fsPath(path);
  try {
    return await bindSystemSocket(options, openSystemSocket, probe);
  } catch (cause) {
    throw explain(cause, "bind", options.address);
  }
}

/** A socket by way of `Deno.dlopen`, polled by a thread of Deno's pool, which sleeps in poll(2) while there is nothing to receive. */
const openSystemSocket: OpenSystemSocket = (buffer, from) => {
  const { libc, errno } = load();
  const fd = libc.socket(C.AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0);
  if (fd < 0) throw systemError(-errno(), "socket", { transport: "unixgram", path: "" });
  const size = BigInt(buffer.length);
  const fromLength = new Uint32Array(1);
  // struct pollfd: the descriptor, and two 16-bit masks, wanted and found.
  const pollfd = new Int32Array([fd, 0]);
  new Int16Array(pollfd.buffer)[2] = POLLIN;
  let polling: Promise<unknown> = Promise.resolve();
  let current: Promise<unknown> = polling;
  let keepsAlive = true;
  return {
    bind(address) {
      return libc.bind(fd, address, address.length) < 0 ? -errno() : 0;
    },
    restrict(mode) {
      libc.fchmod(fd, mode);
    },
    setOption(name, value) {
      return libc.setsockopt(fd, C.SOL_SOCKET, name, value, value.byteLength) < 0 ? -errno() : 0;
    },
    receive() {
      fromLength[0] = from.length;
      const received = Number(libc.recvfrom(fd, buffer, size, C.MSG_DONTWAIT, from, fromLength));
      return received < 0 ? -errno() : received;
    },
    fromLength: () => fromLength[0]!,
    send(bytes, to) {
      const sent = Number(libc.sendto(fd, bytes, BigInt(bytes.length), C.MSG_DONTWAIT, to, to.length));
      return sent < 0 ? -errno() : sent;
    },
    poll(callback) {
      const poll = libc.poll(pollfd, 1n, -1);
      if (!keepsAlive) keepAlive(poll, false);
      current = poll;
      polling = poll.then(callback);
    },
    keepAlive(on) {
      keepsAlive = on;
      keepAlive(current, on);
    },
    async close() {
      if (!keepsAlive) keepAlive(current, true);
      // What makes poll(2) return.
      libc.shutdown(fd, C.SHUT_RDWR);
      await polling;
      libc.close(fd);
    },
  };
};

/** CLOCK_MONOTONIC of clock_gettime(2), on Linux. */
const CLOCK_MONOTONIC = 1;

/** Microseconds of the system's monotonic clock. Deno's own clocks begin with the process. */
export function monotonicMicroseconds(): number {
  const time = new BigInt64Array(2);
  load().libc.clock_gettime(CLOCK_MONOTONIC, time);
  return Number(time[0]! * 1_000_000n + time[1]! / 1000n);
}
