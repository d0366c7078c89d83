import { UnsupportedError } from "../../src/errors.ts";
import type { BindOptions, RawDatagramSocket } from "../../src/runtime.ts";
import { bindSystemSocket, C, ERRNO, type OpenSystemSocket, probeWith, systemError } from "../shared/unix_datagram.ts";

/** The part of `node:ffi` that is used here; the types of Node may be older than the module. */
interface Ffi {
  dlopen(
    library: null,
    functions: Record<string, { arguments: string[]; return: string }>,
  ): { lib: Library; functions: Functions };
  getCurrentEventLoop(): bigint;
  getRawPointer(memory: Uint8Array): bigint;
  getInt32(pointer: bigint): number;
}

interface Library {
  registerCallback(type: { arguments: string[]; return: string }, callback: () => void): bigint;
  unregisterCallback(pointer: bigint): void;
}

interface Functions {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: bigint, length: number): number;
  connect(fd: number, address: bigint, length: number): number;
  recvmsg(fd: number, message: bigint, flags: number): number;
  sendmsg(fd: number, message: bigint, flags: number): number;
  fchmod(fd: number, mode: number): number;
  setsockopt(fd: number, level: number, name: number, value: bigint, size: number): number;
  close(fd: number): number;
  uv_handle_size(type: number): bigint;
  uv_poll_init(loop: bigint, handle: bigint, fd: number): number;
  uv_poll_start(handle: bigint, events: number, callback: bigint): number;
  uv_poll_stop(handle: bigint): number;
  uv_close(handle: bigint, callback: bigint): void;
  uv_ref(handle: bigint): void;
  uv_unref(handle: bigint): void;
  [errnoLocation: string]: (...args: never[]) => unknown;
}

const UV_POLL = 8;
const UV_READABLE = 1;

interface Bindings {
  ffi: Ffi;
  lib: Library;
  libc: Functions;
  errno(): number;
}

let bindings: Bindings | null = null;

/** A `struct msghdr` of one `struct iovec`, as recvmsg(2) and sendmsg(2) take it; the same for Linux and macOS, on 64 bits, little-endian. */
class Message {
  readonly pointer: bigint;
  #ffi: Ffi;
  /** The header's seven words (on macOS it has six), then the iovec's two. */
  #words = new BigUint64Array(9);
  #halves = new Uint32Array(this.#words.buffer);
  /** What the words point to. */
  #name: Uint8Array | null = null;
  #bytes: Uint8Array | null = null;

  constructor(ffi: Ffi) {
    this.#ffi = ffi;
    this.pointer = ffi.getRawPointer(new Uint8Array(this.#words.buffer));
    this.#words[2] = this.pointer + 7n * 8n;
    this.#words[3] = 1n;
  }

  /** Where the address is. */
  set name(name: Uint8Array) {
    if (name !== this.#name) this.#words[0] = this.#ffi.getRawPointer(this.#name = name);
    this.nameLength = name.length;
  }

  get nameLength(): number {
    return this.#halves[2]!;
  }
  set nameLength(length: number) {
    this.#halves[2] = length;
  }

  /** Where the data is. */
  set bytes(bytes: Uint8Array) {
    if (bytes !== this.#bytes) this.#words[7] = this.#ffi.getRawPointer(this.#bytes = bytes);
    this.size = bytes.length;
  }

  set size(size: number) {
    this.#halves[16] = size;
  }
}

/** Loads `node:ffi` the first time that it is needed. */
function load(): Bindings {
  if (bindings !== null) return bindings;
  let ffi: Ffi;
  let opened: ReturnType<Ffi["dlopen"]>;
  try {
    ffi = process.getBuiltinModule("node:ffi") as unknown as Ffi;
    // The C library and libuv are parts of this process.
    opened = ffi.dlopen(null, {
      socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
      bind: { arguments: ["i32", "u64", "u32"], return: "i32" },
      connect: { arguments: ["i32", "u64", "u32"], return: "i32" },
      // Node calls functions of up to three arguments in half the time that recvfrom() and sendto() would take. What they return, a
      // ssize_t, is -1 or a datagram's size: its lower half says as much, and is no BigInt.
      recvmsg: { arguments: ["i32", "u64", "i32"], return: "i32" },
      sendmsg: { arguments: ["i32", "u64", "i32"], return: "i32" },
      fchmod: { arguments: ["i32", "u32"], return: "i32" },
      setsockopt: { arguments: ["i32", "i32", "i32", "u64", "u32"], return: "i32" },
      close: { arguments: ["i32"], return: "i32" },
      [ERRNO]: { arguments: [], return: "u64" },
      uv_handle_size: { arguments: ["i32"], return: "u64" },
      uv_poll_init: { arguments: ["u64", "u64", "i32"], return: "i32" },
      uv_poll_start: { arguments: ["u64", "i32", "u64"], return: "i32" },
      uv_poll_stop: { arguments: ["u64"], return: "i32" },
      uv_close: { arguments: ["u64", "u64"], return: "void" },
      uv_ref: { arguments: ["u64"], return: "void" },
      uv_unref: { arguments: ["u64"], return: "void" },
    });
  } catch (cause) {
    const { message } = cause as Error;
    throw new UnsupportedError(`Unix datagrams can't be had on node here: node:ffi doesn't work: ${message}`, { cause });
  }
  const { lib, functions: libc } = opened;
  const location = libc[ERRNO] as () => bigint;
  return bindings = { ffi, lib, libc, errno: () => ffi.getInt32(location()) };
}

/** Finds out whether somebody has a socket's file open. */
function probe(path: string): Promise<string | null> {
  const { ffi, libc, errno } = load();
  const connect = (fd: number, address: Uint8Array, length: number) => libc.connect(fd, ffi.getRawPointer(address), length);
  return probeWith({ socket: libc.socket, connect, close: libc.close }, errno)(path);
}

/** Binds a Unix datagram socket. */
export function bindUnixDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  return bindSystemSocket(options, openSystemSocket, probe);
}

/** A socket by way of `node:ffi`, polled by Node's own event loop. */
const openSystemSocket: OpenSystemSocket = (buffer, from) => {
  const { ffi, lib, libc, errno } = load();
  const fd = libc.socket(C.AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0);
  if (fd < 0) throw systemError(-errno(), "socket", { transport: "unixgram", path: "" });
  // libuv writes to this memory until its close callback has run, so it must be referenced until then: see `closed` below.
  const handle = new Uint8Array(Number(libc.uv_handle_size(UV_POLL)));
  const handlePointer = ffi.getRawPointer(handle);
  const received = new Message(ffi);
  received.name = from;
  received.bytes = buffer;
  const sent = new Message(ffi);
  // A small array is on JavaScript's heap, and would have to be moved off it before it had an address.
  let outgoing = new Uint8Array(buffer.length);
  const failed = libc.uv_poll_init(ffi.getCurrentEventLoop(), handlePointer, fd);
  if (failed < 0) {
    libc.close(fd);
    throw systemError(failed, "poll", { transport: "unixgram", path: "" });
  }
  let waiting: (() => void) | null = null;
  let polling = false;
  const onEvent = lib.registerCallback({ arguments: ["u64", "i32", "i32"], return: "void" }, () => {
    const callback = waiting;
    waiting = null;
    // Promises make no progress inside of a foreign callback; an immediate comes right after it.
    if (callback !== null) return void setImmediate(callback);
    libc.uv_poll_stop(handlePointer);
    polling = false;
  });
  // An idle poll doesn't keep the process running as an idle listener does.
  const alive = setInterval(() => {}, 2 ** 30);
  return {
    bind(address) {
      return libc.bind(fd, ffi.getRawPointer(address), address.length) < 0 ? -errno() : 0;
    },
    restrict(mode) {
      libc.fchmod(fd, mode);
    },
    setOption(name, value) {
      // A small array is on JavaScript's heap, and has no address of its own.
      const bytes = new Uint8Array(new ArrayBuffer(4));
      bytes.set(new Uint8Array(value.buffer));
      return libc.setsockopt(fd, C.SOL_SOCKET, name, ffi.getRawPointer(bytes), 4) < 0 ? -errno() : 0;
    },
    receive() {
      received.nameLength = from.length;
      const size = libc.recvmsg(fd, received.pointer, C.MSG_DONTWAIT);
      return size < 0 ? -errno() : size;
    },
    fromLength: () => received.nameLength,
    send(bytes, address) {
      if (bytes.length > outgoing.length) outgoing = new Uint8Array(bytes.length);
      outgoing.set(bytes);
      sent.name = address;
      sent.bytes = outgoing;
      sent.size = bytes.length;
      const size = libc.sendmsg(fd, sent.pointer, C.MSG_DONTWAIT);
      return size < 0 ? -errno() : size;
    },
    poll(callback) {
      waiting = callback;
      if (polling) return;
      polling = true;
      libc.uv_poll_start(handlePointer, UV_READABLE, onEvent);
    },
    keepAlive(on) {
      if (on) {
        alive.ref();
        libc.uv_ref(handlePointer);
      } else {
        alive.unref();
        libc.uv_unref(handlePointer);
      }
    },
    close() {
      libc.uv_ref(handlePointer);
      clearInterval(alive);
      waiting = null;
      return new Promise((resolve) => {
        const onClose = lib.registerCallback({ arguments: ["u64"], return: "void" }, () => {
          // Not while it runs.
          setImmediate(() => {
            libc.close(fd);
            lib.unregisterCallback(onEvent);
            lib.unregisterCallback(onClose);
            resolve(void handle.length);
          });
        });
        libc.uv_close(handlePointer, onClose);
      });
    },
  };
};
