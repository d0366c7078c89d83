import { type Address, formatAddress, toAddress } from "./address.ts";
import { toBytes } from "./bytes.ts";
import { Datagram } from "./datagram.ts";
import { checkTimeout, Deadline } from "./deadline.ts";
import { SocketError, type SocketErrorOptions } from "./errors.ts";
import { handled, ignore, rejected } from "./promises.ts";
import type { RawDatagram, RawDatagramSocket } from "./runtime.ts";

/**
 * A socket that sends and receives datagrams: what `bind()` gives a client, and what a datagram server works on. A promise of its methods
 * that nobody awaits never becomes an unhandled rejection.
 *
 * @example Ask, and wait a second for the answer
 * ```ts
 * import { bind, serve } from "@sockets/server";
 *
 * const server = await serve("udp://127.0.0.1:0", (datagram) => datagram.reply("pong"));
 * const socket = await bind("udp://127.0.0.1:0");
 * socket.timeout = 1000;
 * await socket.send("ping", server.serverAddress);
 * const answer = await socket.receive();
 * console.log(new TextDecoder().decode(answer?.data)); // pong
 * await socket.close();
 * await server.serverClose();
 * ```
 */
export class DatagramSocket implements AsyncIterable<Datagram>, AsyncDisposable {
  #raw: RawDatagramSocket;
  #timeout = 0;
  #deadline: Deadline | undefined;
  #unreferenced = false;
  #datagramsSent = 0;
  #bytesSent = 0;
  // Made once: it is needed for every datagram.
  #wrap = (received: RawDatagram | null): Datagram | null => received === null ? null : new Datagram(received, this);

  /**
   * Wraps an adapter's socket. Servers and `bind()` do this; programs don't.
   *
   * @param raw The adapter's socket.
   */
  constructor(raw: RawDatagramSocket) {
    this.#raw = raw;
  }

  /** The address it is bound to, with the real port. */
  get address(): Address {
    return this.#raw.address;
  }

  /**
   * Datagrams that were dropped because nobody received them and the queue was full. Where the runtime leaves them in the kernel's
   * buffer, the kernel drops them instead and doesn't say so.
   */
  get dropped(): number {
    return this.#raw.dropped;
  }

  /** Datagrams that were given to the system to send. */
  get datagramsSent(): number {
    return this.#datagramsSent;
  }

  /** The bytes of these. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  /**
   * Milliseconds that `receive()` waits before it fails with `ETIMEDOUT`; 0, the default, waits for ever. A UDP reply can be lost.
   */
  get timeout(): number {
    return this.#timeout;
  }
  set timeout(ms: number) {
    checkTimeout("timeout", ms);
    this.#timeout = ms === Infinity ? 0 : ms;
  }

  /**
   * Receives the next datagram.
   *
   * @returns The datagram, without a promise when one was waiting; `null` when the socket was closed.
   * @throws {SocketError} As the promise's rejection: `ETIMEDOUT`, and what the system reports of an earlier send, as `ECONNREFUSED`
   * when nobody has the port (ICMP; RFC 1122, section 4.1.3.3).
   * @throws {TypeError} As the promise's rejection, when another `receive` is waiting.
   */
  receive(): Datagram | null | Promise<Datagram | null> {
    const received = this.#raw.receive(this.#wrap);
    if (!(received instanceof Promise)) return received;
    return this.#timeout > 0 ? this.#within(received) : handled(received);
  }

  /**
   * Sends a datagram.
   *
   * @param data What to send; text is sent as UTF-8.
   * @param to Whom to send it to: an IP address and port, or the path of a Unix socket.
   * @returns Nothing when the kernel has taken it, else a promise. A promise that nobody awaits never becomes an unhandled rejection.
   * @throws {TypeError} When the address is none, or of another transport than the socket's.
   * @throws {SocketError} As the promise's rejection, see {@linkcode Datagram.reply}.
   */
  send(data: Uint8Array | string, to: string | Address): void | Promise<void> {
    const address = toAddress(to);
    if (address.transport !== this.address.transport) {
      throw new TypeError(`a ${this.address.transport} socket can't send to ${formatAddress(address)}`);
    }
    return this.#send(toBytes(data), address);
  }

  /**
   * Sends a datagram to whoever sent another.
   *
   * @param datagram The one to answer.
   * @param data What to send; text is sent as UTF-8.
   * @returns As `send()`.
   * @throws {SocketError} As the promise's rejection, see {@linkcode Datagram.reply}.
   */
  reply(datagram: Datagram, data: Uint8Array | string): void | Promise<void> {
    const { address } = datagram;
    if (address !== null) return this.#send(toBytes(data), address);
    return nobody({ syscall: "send" }, "the sender has no name, so there is nobody to reply to");
  }

  /**
   * Joins a multicast group: what is sent to it at this socket's port arrives here (RFC 1112 and RFC 2710).
   *
   * @param group The group's address, such as `239.1.2.3` or `ff15::1`.
   * @param interfaceAddress The network interface: by its address for IPv4; the system's choice by default,
   * and always for IPv6.
   * @throws {TypeError} When the socket is no UDP socket.
   * @throws {SocketError} When the group is none or the interface doesn't exist.
   */
  joinMulticast(group: string, interfaceAddress?: string): Promise<void> {
    return handled(this.#setMembership(true, group, interfaceAddress));
  }

  /**
   * Leaves a multicast group. Closing the socket leaves all.
   *
   * @param group The group's address.
   * @param interfaceAddress The same as when it was joined.
   * @throws {SocketError} When the socket is not in the group.
   */
  leaveMulticast(group: string, interfaceAddress?: string): Promise<void> {
    return handled(this.#setMembership(false, group, interfaceAddress));
  }

  /** Closes the socket; a waiting `receive()` gets `null`. Does nothing the second time. */
  close(): Promise<void> {
    this.#deadline?.clear();
    return handled(this.#raw.close());
  }

  /**
   * Leaves the process free to exit while the socket is open, whoever waits for a datagram and whatever its `timeout`; else an open socket
   * keeps the process running. `ref()` takes it back.
   *
   * @throws {UnsupportedError} When the runtime can't.
   */
  unref(): void {
    this.#raw.unref();
    this.#unreferenced = true;
    this.#deadline?.keepAlive(false);
  }

  /** Keeps the process running while the socket is open, as it does from the beginning. */
  ref(): void {
    this.#raw.ref();
    this.#unreferenced = false;
    this.#deadline?.keepAlive(true);
  }

  /** Receives one datagram after the other until the socket is closed. */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<Datagram> {
    for (let datagram; (datagram = await this.receive()) !== null;) yield datagram;
  }

  /** The same as {@linkcode DatagramSocket.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #send(bytes: Uint8Array, to: Address): void | Promise<void> {
    // The systems and runtimes have several codes for it, and some send it nowhere without a word.
    if ((to as { port?: number }).port === 0) {
      return nobody({ syscall: "send", address: to }, "nobody has port 0, so there is nobody to send to");
    }
    this.#datagramsSent++;
    this.#bytesSent += bytes.length;
    return this.#raw.send(bytes, to);
  }

  #within(received: Promise<Datagram | null>): Promise<Datagram | null> {
    const { promise, resolve, reject } = Promise.withResolvers<Datagram | null>();
    const deadline = this.#deadline ??= new Deadline();
    if (this.#unreferenced) deadline.keepAlive(false);
    const failed = (error: unknown): void => {
      deadline.clear();
      promise.catch(ignore);
      reject(error);
    };
    let timedOut = false;
    deadline.start(this.#timeout, () => {
      timedOut = true;
      this.#raw.interrupt();
    });
    received.then((datagram) => {
      if (datagram === null && timedOut) return failed(new SocketError("ETIMEDOUT", { syscall: "recv", address: this.address }));
      deadline.clear();
      resolve(datagram);
    }, failed);
    return promise;
  }

  async #setMembership(join: boolean, group: string, interfaceAddress: string | undefined): Promise<void> {
    if (this.address.transport !== "udp") throw new TypeError(`a ${this.address.transport} socket has no multicast groups`);
    if (typeof group !== "string") throw new TypeError(`group must be an IP address, got ${String(group)}`);
    await this.#raw.setMembership(join, group, interfaceAddress);
  }
}

function nobody(where: SocketErrorOptions, detail: string): Promise<never> {
  return rejected(new SocketError("EDESTADDRREQ", where, detail));
}
