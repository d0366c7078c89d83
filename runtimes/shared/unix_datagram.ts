import type { UnixAddress } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import type { BindOptions, RawDatagram, RawDatagramSocket } from "../../src/runtime.ts";
import { decodePath, encodePath } from "../../src/path_bytes.ts";
import { rejected } from "../../src/promises.ts";
import { bindPath, ephemeral, type SocketFile } from "./socket_file.ts";
import type { Probe } from "./stale_file.ts";
import { closedError } from "./translate.ts";

const MACOS = process.platform === "darwin";
/** sun_path comes after a family of two bytes on Linux, after a length and a family of one byte each on macOS: both are two. */
const PATH_OFFSET = 2;
/** `struct sockaddr_un` has 110 bytes on Linux and 106 on macOS. */
const ADDRESS_SIZE = 110;
const AF_UNIX = 1;
const EINTR = 4;
const EAGAIN = MACOS ? 35 : 11;
/** Datagrams that are received without giving the event loop a turn. */
const BUDGET = 64;

/** The numbers of the C headers, which differ between the systems. */
export const C = {
  AF_UNIX,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  /** On Linux it is closed in child processes (SOCK_CLOEXEC); macOS has no such flag. */
  SOCK_CLOEXEC: MACOS ? 0 : 0o2000000,
  MSG_DONTWAIT: MACOS ? 0x80 : 0x40,
  SHUT_RDWR: 2,
  SOL_SOCKET: MACOS ? 0xffff : 1,
  SO_TYPE: MACOS ? 0x1008 : 3,
  SO_SNDBUF: MACOS ? 0x1001 : 7,
  SO_RCVBUF: MACOS ? 0x1002 : 8,
};

/** The names under which the C library's functions can be found, to be tried in this order. */
export const LIBRARIES = MACOS
  ? ["libSystem.B.dylib"]
  : ["libc.so.6", `libc.musl-${{ x64: "x86_64", arm64: "aarch64" }[process.arch as "x64"]}.so.1`];

/** Where the C library keeps `errno`. */
export const ERRNO = MACOS ? "__error" : "__errno_location";

/** A datagram socket of the operating system as foreign functions reach it. Results below 0 are errors: the negated errno. */
export interface SystemSocket {
  bind(address: Uint8Array): number;
  /** Sets the permissions that the file gets from bind(), where the system lets it: on Linux, less those of the umask. */
  restrict(mode: number): void;
  /** Sets an option of the level SOL_SOCKET. */
  setOption(name: number, value: Int32Array): number;
  /** Receives into the buffer and the sender's address into `from`, without waiting. */
  receive(): number;
  /** The length of the address that `receive()` has filled in. */
  fromLength(): number;
  /** Sends without waiting. */
  send(bytes: Uint8Array, to: Uint8Array): number;
  /** Calls back once, as soon as there is something to receive; not before this returns. */
  poll(callback: () => void): void;
  /** Whether waiting for something to receive keeps the process running; it does from the beginning. */
  keepAlive(on: boolean): void;
  /** Frees the descriptor and whatever polls it. */
  close(): Promise<void>;
}

/** Opens one; throws a SocketError when the system won't. `buffer` and `from` are what `receive()` fills. */
export type OpenSystemSocket = (buffer: Uint8Array, from: Uint8Array) => SystemSocket;

/** Binds a Unix datagram socket by way of foreign functions. */
export async function bindSystemSocket(options: BindOptions, open: OpenSystemSocket, probe: Probe): Promise<RawDatagramSocket> {
  const address = ephemeral(options.address as UnixAddress);
  const buffer = new Uint8Array(options.maxPacketSize + 1);
  const from = new Uint8Array(ADDRESS_SIZE);
  const system = open(buffer, from);
  try {
    for (const [name, size] of [[C.SO_RCVBUF, options.receiveBufferSize], [C.SO_SNDBUF, options.sendBufferSize]] as const) {
      if (size === null) continue;
      const result = system.setOption(name, new Int32Array([size]));
      if (result < 0) throw systemError(result, "setsockopt", address);
    }
    const { file } = await bindPath({ ...options, address }, {
      syscall: "bind",
      probe,
      // Its path is where peers reply to, so it is bound there and nowhere else.
      unlinks: false,
      restrict: (mode) => system.restrict(mode),
      bind(path) {
        const result = system.bind(encodeAddress(path));
        if (result < 0) throw systemError(result, "bind", address);
      },
      // Closed below.
      unbind() {},
    });
    return new UnixDatagramSocket(system, address, file, buffer, from);
  } catch (error) {
    await system.close();
    throw error;
  }
}

/** The part of the C library that it takes to look for a peer. */
interface ProbeFunctions {
  socket(domain: number, type: number, protocol: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  close(fd: number): number;
}

/**
 * A probe that nobody notices: a datagram socket connects without a word to its peer, and is told EPROTOTYPE where a socket of another type
 * is, ECONNREFUSED where none is.
 */
export function probeWith(libc: ProbeFunctions, errno: () => number): Probe {
  return (path) => {
    const address: UnixAddress = { transport: "unixgram", path };
    const fd = libc.socket(C.AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0);
    if (fd < 0) return Promise.reject(systemError(-errno(), "socket", address));
    const bytes = encodeAddress(path);
    const code = libc.connect(fd, bytes, bytes.length) < 0 ? systemError(-errno(), "connect", address).code : null;
    libc.close(fd);
    return Promise.resolve(code);
  };
}

class UnixDatagramSocket implements RawDatagramSocket {
  readonly address: UnixAddress;
  /** The kernel keeps what nobody has asked for yet, and makes the sender wait. */
  readonly dropped = 0;
  readonly queued = 0;
  #system: SystemSocket;
  #file: SocketFile | null;
  #buffer: Uint8Array;
  #from: Uint8Array;
  #waiter: PromiseWithResolvers<RawDatagram | null> | null = null;
  #polling = false;
  #turn = 0;
  #closed: Promise<void> | null = null;
  /** The last sender and the last receiver: mostly the next one too. */
  #sender: { bytes: Uint8Array; address: UnixAddress } | null = null;
  #receiver: { path: string; bytes: Uint8Array } | null = null;

  constructor(system: SystemSocket, address: UnixAddress, file: SocketFile | null, buffer: Uint8Array, from: Uint8Array) {
    this.#system = system;
    this.address = address;
    this.#file = file;
    this.#buffer = buffer;
    this.#from = from;
  }

  receive<T>(as: (datagram: RawDatagram | null) => T): T | Promise<T> {
    if (this.#closed !== null) return as(null);
    if (this.#waiter !== null) {
      return Promise.reject(new TypeError("somebody is waiting here already; await that before the next"));
    }
    if (this.#turn++ < BUDGET) {
      try {
        const datagram = this.#take();
        if (datagram !== null) return as(datagram);
      } catch (error) {
        return Promise.reject(error);
      }
    }
    this.#turn = 0;
    this.#waiter = Promise.withResolvers();
    this.#poll();
    return this.#waiter.promise.then(as);
  }

  interrupt(): void {
    this.#waiter?.resolve(null);
    this.#waiter = null;
  }

  send(bytes: Uint8Array, to: UnixAddress): void | Promise<void> {
    if (this.#closed !== null) return rejected(closedError(to));
    if (this.#receiver?.path !== to.path) this.#receiver = { path: to.path, bytes: encodeAddress(to.path) };
    const sent = this.#system.send(bytes, this.#receiver.bytes);
    if (sent < 0) return rejected(systemError(sent, "send", to));
  }

  setMembership(): Promise<void> {
    return Promise.reject(new TypeError("Unix sockets have no multicast groups"));
  }

  close(): Promise<void> {
    if (this.#closed !== null) return this.#closed;
    // First, while the socket is open.
    this.#file?.remove();
    this.#closed = this.#system.close();
    this.interrupt();
    return this.#closed;
  }

  unref(): void {
    if (this.#closed === null) this.#system.keepAlive(false);
  }

  ref(): void {
    if (this.#closed === null) this.#system.keepAlive(true);
  }

  #poll(): void {
    if (this.#polling) return;
    this.#polling = true;
    this.#system.poll(this.#readable);
  }

  #readable = (): void => {
    this.#polling = false;
    const waiter = this.#waiter;
    // Interrupted or closed meanwhile: the datagram stays in the kernel.
    if (waiter === null) return;
    try {
      const datagram = this.#take();
      if (datagram === null) return this.#poll();
      this.#waiter = null;
      waiter.resolve(datagram);
    } catch (error) {
      this.#waiter = null;
      waiter.reject(error);
    }
  };

  #take(): RawDatagram | null {
    const size = this.#system.receive();
    if (size < 0) {
      if (-size === EAGAIN || -size === EINTR) return null;
      throw systemError(size, "recv", this.address);
    }
    const kept = this.#buffer.length - 1;
    return { data: this.#buffer.slice(0, Math.min(size, kept)), address: this.#senderAddress(), truncated: size > kept };
  }

  #senderAddress(): UnixAddress | null {
    const length = this.#system.fromLength();
    if (length <= PATH_OFFSET) return null;
    const from = this.#from;
    const last = this.#sender;
    if (last !== null && last.bytes.length === length && startsWith(from, last.bytes)) return last.address;
    const path = decodeAddress(from.subarray(0, length));
    if (path === "") return null;
    this.#sender = { bytes: from.slice(0, length), address: { transport: "unixgram", path } };
    return this.#sender.address;
  }
}

/** Not `every()`: a function called for each byte is noticed. */
function startsWith(bytes: Uint8Array, start: Uint8Array): boolean {
  for (let i = 0; i < start.length; i++) if (bytes[i] !== start[i]) return false;
  return true;
}

/** A path as `struct sockaddr_un`. */
export function encodeAddress(path: string): Uint8Array {
  const name = encodePath(path);
  // The file's path ends with a NUL; an abstract name is as long as it is (unix(7)).
  const bytes = new Uint8Array(PATH_OFFSET + name.length + (path.startsWith("\0") ? 0 : 1));
  if (MACOS) bytes.set([bytes.length, AF_UNIX]);
  else new Uint16Array(bytes.buffer, 0, 1)[0] = AF_UNIX;
  bytes.set(name, PATH_OFFSET);
  return bytes;
}

function decodeAddress(address: Uint8Array): string {
  const name = address.subarray(PATH_OFFSET);
  const end = name[0] === 0 && !MACOS ? name.length : name.indexOf(0);
  return decodePath(end === -1 ? name : name.subarray(0, end));
}

/** The negated errno that a system call ended with. */
export function systemError(result: number, syscall: string, address: UnixAddress): SocketError {
  return new SocketError(process.getBuiltinModule("node:util").getSystemErrorName(result), { syscall, address });
}
