import { type Address, formatAddress } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import type { BindOptions, RawDatagram, RawDatagramSocket } from "../../src/runtime.ts";
import { ArrivalQueue } from "../../src/arrival_queue.ts";
import { rejected } from "../../src/promises.ts";
import { closedError } from "../shared/translate.ts";

/** UDP's largest datagram over IPv4: 65,535 bytes less the headers of IP and UDP. */
const LARGEST_UDP = 65_507;
/** A Unix datagram is bounded by the sender's buffer, 208 KiB on Linux. */
const LARGEST_UNIX = 212_992;

const sockets = new Map<string, MemoryDatagramSocket>();

/** Binds an address that is free; the caller has chosen the port or the name. */
export function bindInMemory(address: Address, options: BindOptions): RawDatagramSocket {
  const key = formatAddress(address);
  if (sockets.has(key)) throw new SocketError("EADDRINUSE", { syscall: "bind", address });
  const socket = new MemoryDatagramSocket(address, options);
  sockets.set(key, socket);
  return socket;
}

class MemoryDatagramSocket implements RawDatagramSocket {
  readonly address: Address;
  #queue: ArrivalQueue<RawDatagram>;
  #maxPacketSize: number;
  #closed = false;

  constructor(address: Address, { requestQueueSize, maxPacketSize }: BindOptions) {
    this.address = address;
    this.#queue = new ArrivalQueue(requestQueueSize);
    this.#maxPacketSize = maxPacketSize;
  }

  get dropped(): number {
    return this.#queue.overflowed;
  }

  get queued(): number {
    return this.#queue.length;
  }

  receive<T>(as: (datagram: RawDatagram | null) => T): T | Promise<T> {
    return this.#queue.take(as);
  }

  interrupt(): void {
    this.#queue.interrupt();
  }

  send(bytes: Uint8Array, to: Address): void | Promise<void> {
    if (this.#closed) return rejected(closedError(to));
    const unix = "path" in to;
    if (bytes.length > (unix ? LARGEST_UNIX : LARGEST_UDP)) {
      return rejected(new SocketError("EMSGSIZE", { syscall: "send", address: to }));
    }
    const peer = sockets.get(formatAddress(to));
    if (peer !== undefined) return peer.#arrive(bytes, this.address, unix);
    // What UDP sends to nobody is lost.
    if (unix) return rejected(new SocketError("ENOENT", { syscall: "send", address: to }));
  }

  setMembership(): Promise<void> {
    return Promise.reject(new SocketError("EADDRNOTAVAIL", { syscall: "setsockopt", address: this.address }));
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      sockets.delete(formatAddress(this.address));
      this.#queue.close();
    }
    return Promise.resolve();
  }

  unref(): void {}

  ref(): void {}

  #arrive(bytes: Uint8Array, from: Address, unix: boolean): void | Promise<void> {
    if (unix && this.#queue.full) return rejected(new SocketError("EAGAIN", { syscall: "send", address: this.address }));
    // A copy, as through a kernel.
    this.#queue.offer({
      data: bytes.slice(0, this.#maxPacketSize),
      address: from,
      truncated: bytes.length > this.#maxPacketSize,
    });
  }
}
