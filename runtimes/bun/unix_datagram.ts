import type { BindOptions, RawDatagramSocket } from "../../src/runtime.ts";
import { bindSystemSocket, C, ERRNO, LIBRARIES, type OpenSystemSocket, probeWith, systemError } from "../shared/unix_datagram.ts";

/** The part of `bun:ffi` that is used here. */
interface Ffi {
  dlopen(library: string, functions: Record<string, { args: string[]; returns: string }>): { symbols: unknown };
  read: { i32(pointer: number, offset: number): number };
}

interface Functions {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  recvfrom(
    fd: number,
    buffer: Uint8Array,
    size: number,
    flags: number,
    from: Uint8Array,
    fromLength: Uint32Array,
  ): number | bigint;
  sendto(fd: number, bytes: Uint8Array, size: number, flags: number, to: Uint8Array, toLength: number): number | bigint;
  fchmod(fd: number, mode: number): number;
  setsockopt(fd: number, level: number, name: number, value: Int32Array, size: number): number;
  shutdown(fd: number, how: number): number;
  close(fd: number): number;
  clock_gettime(clock: number, time: BigInt64Array): number;
  poll(fds: Int32Array, count: number, timeout: number): number;
  [errnoLocation: string]: (...args: never[]) => unknown;
}

/** What the main thread and the thread that polls tell each other, in shared memory. */
export const STATE = { ARMED: 0, READY: 1, CLOSING: 2, LENGTH: 3 };

let loaded: { libc: Functions; errno(): number } | null = null;

/** Loads `bun:ffi` the first time that it is needed. */
export function load(): { libc: Functions; errno(): number } {
  if (loaded !== null) return loaded;
  const ffi = process.getBuiltinModule("bun:ffi") as unknown as Ffi;
  const functions = {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
    connect: { args: ["i32", "ptr", "u32"], returns: "i32" },
    recvfrom: { args: ["i32", "ptr", "u64", "i32", "ptr", "ptr"], returns: "i64_fast" },
    sendto: { args: ["i32", "ptr", "u64", "i32", "ptr", "u32"], returns: "i64_fast" },
    fchmod: { args: ["i32", "u32"], returns: "i32" },
    setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
    shutdown: { args: ["i32", "i32"], returns: "i32" },
    close: { args: ["i32"], returns: "i32" },
    clock_gettime: { args: ["i32", "ptr"], returns: "i32" },
    poll: { args: ["ptr", "u64", "i32"], returns: "i32" },
    [ERRNO]: { args: [], returns: "ptr" },
  };
  let failure: unknown;
  for (const library of LIBRARIES) {
    try {
      const libc = ffi.dlopen(library, functions).symbols as Functions;
      const location = libc[ERRNO] as () => number;
      return loaded = { libc, errno: () => ffi.read.i32(location(), 0) };
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

/** Binds a Unix datagram socket. */
export function bindUnixDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  return bindSystemSocket(options, openSystemSocket, probe);
}

/** What Bun's workers have beside what browsers' have. */
interface BunWorker extends Worker {
  ref(): void;
  unref(): void;
}

/** A socket by way of `bun:ffi`, polled by a thread of its own, which sleeps in poll(2) while there is nothing to receive. */
const openSystemSocket: OpenSystemSocket = (buffer, from) => {
  const { libc, errno } = load();
  const fd = libc.socket(C.AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0);
  if (fd < 0) throw systemError(-errno(), "socket", { transport: "unixgram", path: "" });
  const fromLength = new Uint32Array(1);
  const state = new Int32Array(new SharedArrayBuffer(4 * STATE.LENGTH));
  const worker = new Worker(new URL("./poll_worker.ts", import.meta.url), { type: "module" }) as BunWorker;
  worker.postMessage({ fd, state });
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
      const received = Number(libc.recvfrom(fd, buffer, buffer.length, C.MSG_DONTWAIT, from, fromLength));
      return received < 0 ? -errno() : received;
    },
    fromLength: () => fromLength[0]!,
    send(bytes, to) {
      // Bun has no pointer to an empty array.
      const data = bytes.length === 0 ? buffer : bytes;
      const sent = Number(libc.sendto(fd, data, bytes.length, C.MSG_DONTWAIT, to, to.length));
      return sent < 0 ? -errno() : sent;
    },
    poll(callback) {
      Atomics.store(state, STATE.READY, 0);
      Atomics.store(state, STATE.ARMED, 1);
      Atomics.notify(state, STATE.ARMED);
      const ready = Atomics.waitAsync(state, STATE.READY, 0);
      if (ready.async) ready.value.then(callback);
      else setImmediate(callback);
    },
    keepAlive(on) {
      if (on) worker.ref();
      else worker.unref();
    },
    close() {
      worker.ref();
      return new Promise((resolve) => {
        worker.addEventListener("message", () => {
          worker.terminate();
          libc.close(fd);
          resolve();
        });
        Atomics.store(state, STATE.CLOSING, 1);
        Atomics.store(state, STATE.ARMED, 1);
        Atomics.notify(state, STATE.ARMED);
        // What makes poll(2) return.
        libc.shutdown(fd, C.SHUT_RDWR);
        // A reader that nobody will wake any more.
        Atomics.store(state, STATE.READY, 1);
        Atomics.notify(state, STATE.READY);
      });
    },
  };
};

/** CLOCK_MONOTONIC of clock_gettime(2), on Linux. */
const CLOCK_MONOTONIC = 1;

/** Microseconds of the system's monotonic clock. Bun's own clocks begin with the process. */
export function monotonicMicroseconds(): number {
  const time = new BigInt64Array(2);
  load().libc.clock_gettime(CLOCK_MONOTONIC, time);
  return Number(time[0]! * 1_000_000n + time[1]! / 1000n);
}
