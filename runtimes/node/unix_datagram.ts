import { UnsupportedError } from "../../src/errors.ts";
import type { BindOptions, RawDatagramSocket } from "../../src/runtime.ts";
import { probeStream } from "../shared/socket_file.ts";
import { bindSystemSocket, C, ERRNO, type OpenSystemSocket, systemError } from "../shared/unix_datagram.ts";

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
  recvfrom(fd: number, buffer: bigint, size: bigint, flags: number, from: bigint, fromLength: bigint): bigint;
  sendto(fd: number, bytes: bigint, size: bigint, flags: number, to: bigint, toLength: number): bigint;
  close(fd: number): number;
  uv_handle_size(type: number): bigint;
  uv_poll_init(loop: bigint, handle: bigint, fd: number): number;
  uv_poll_start(handle: bigint, events: number, callback: bigint): number;
  uv_poll_stop(handle: bigint): number;
  uv_close(handle: bigint, callback: bigint): void;
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
      recvfrom: { arguments: ["i32", "u64", "u64", "i32", "u64", "u64"], return: "i64" },
      sendto: { arguments: ["i32", "u64", "u64", "i32", "u64", "u32"], return: "i64" },
      close: { arguments: ["i32"], return: "i32" },
      [ERRNO]: { arguments: [], return: "u64" },
      uv_handle_size: { arguments: ["i32"], return: "u64" },
      uv_poll_init: { arguments: ["u64", "u64", "i32"], return: "i32" },
      uv_poll_start: { arguments: ["u64", "i32", "u64"], return: "i32" },
      uv_poll_stop: { arguments: ["u64"], return: "i32" },
      uv_close: { arguments: ["u64", "u64"], return: "void" },
    });
  } catch (cause) {
    const { message } = cause as Error;
    throw new UnsupportedError(`Unix datagrams can't be had on node here: node:ffi doesn't work: ${message}`, { cause });
  }
  const { lib, functions: libc } = opened;
  const location = libc[ERRNO] as () => bigint;
  return bindings = { ffi, lib, libc, errno: () => ffi.getInt32(location()) };
}

/** Binds a Unix datagram socket. */
export function bindUnixDatagram(options: BindOptions): Promise<RawDatagramSocket> {
  return bindSystemSocket(options, openSystemSocket, probeStream);
}

/** A socket by way of `node:ffi`, polled by Node's own event loop. */
const openSystemSocket: OpenSystemSocket = (buffer, from) => {
  const { ffi, lib, libc, errno } = load();
  const fd = libc.socket(C.AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0);
  if (fd < 0) throw systemError(-errno(), "socket", { transport: "unixgram", path: "" });
  // libuv writes to this memory until its close callback has run, so it must be referenced until then: see `closed` below.
  const handle = new Uint8Array(Number(libc.uv_handle_size(UV_POLL)));
  const fromLength = new Uint32Array(1);
  const pointers = {
    handle: ffi.getRawPointer(handle),
    buffer: ffi.getRawPointer(buffer),
    from: ffi.getRawPointer(from),
    fromLength: ffi.getRawPointer(new Uint8Array(fromLength.buffer)),
  };
  const size = BigInt(buffer.length);
  const failed = libc.uv_poll_init(ffi.getCurrentEventLoop(), pointers.handle, fd);
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
    libc.uv_poll_stop(pointers.handle);
    polling = false;
  });
  // An idle poll doesn't keep the process running as an idle listener does.
  const alive = setInterval(() => {}, 2 ** 30);
  let to: { bytes: Uint8Array; pointer: bigint } | null = null;
  return {
    bind(address) {
      return libc.bind(fd, ffi.getRawPointer(address), address.length) < 0 ? -errno() : 0;
    },
    receive() {
      fromLength[0] = from.length;
      const received = libc.recvfrom(fd, pointers.buffer, size, C.MSG_DONTWAIT, pointers.from, pointers.fromLength);
      return received < 0n ? -errno() : Number(received);
    },
    fromLength: () => fromLength[0]!,
    send(bytes, address) {
      if (to?.bytes !== address) to = { bytes: address, pointer: ffi.getRawPointer(address) };
      const data = bytes.length === 0 ? pointers.buffer : ffi.getRawPointer(bytes);
      const sent = libc.sendto(fd, data, BigInt(bytes.length), C.MSG_DONTWAIT, to.pointer, address.length);
      return sent < 0n ? -errno() : Number(sent);
    },
    poll(callback) {
      waiting = callback;
      if (polling) return;
      polling = true;
      libc.uv_poll_start(pointers.handle, UV_READABLE, onEvent);
    },
    close() {
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
        libc.uv_close(pointers.handle, onClose);
      });
    },
  };
};
