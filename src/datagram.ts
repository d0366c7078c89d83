import type { Address } from "./address.ts";
import type { DatagramSocket } from "./datagram_socket.ts";
import type { RawDatagram } from "./runtime.ts";

/**
 * A datagram that was received: the `request` of a datagram handler, and what a {@linkcode DatagramSocket} gives its reader.
 *
 * @example Echo
 * ```ts
 * import { serve } from "@sockets/server";
 *
 * const server = await serve("udp://127.0.0.1:0", (datagram) => datagram.reply(datagram.data));
 * await server.serverClose();
 * ```
 */
export class Datagram {
  /** What was sent. It is the receiver's to keep or change. */
  readonly data: Uint8Array;
  /** Who sent it; `null` when the sender, a Unix socket, has no name. */
  readonly address: Address | null;
  /** Whether it was longer than `maxPacketSize` and cut there. */
  readonly truncated: boolean;
  /** The socket that received it. */
  readonly socket: DatagramSocket;

  /**
   * Made by the socket.
   *
   * @param received What the adapter received.
   * @param socket The socket that received it.
   */
  constructor(received: RawDatagram, socket: DatagramSocket) {
    this.data = received.data;
    this.address = received.address;
    this.truncated = received.truncated;
    this.socket = socket;
  }

  /**
   * Sends a datagram to the sender, from the server's own socket.
   *
   * @param data What to send; text is sent as UTF-8.
   * @returns Nothing when the kernel has taken it, else a promise. A promise that nobody awaits never becomes an unhandled rejection.
   * @throws {SocketError} As the promise's rejection: `EDESTADDRREQ` when the sender has no name or, on UDP, port 0, `EMSGSIZE` when the data is too
   * long for the transport; on Unix sockets `ENOENT` or `ECONNREFUSED` when the sender is gone, `EAGAIN` or `ENOBUFS` when it has
   * not taken what was sent before.
   */
  reply(data: Uint8Array | string): void | Promise<void> {
    return this.socket.reply(this, data);
  }
}
