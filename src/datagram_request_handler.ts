import { BaseRequestHandler } from "./base_request_handler.ts";
import type { Datagram } from "./datagram.ts";
import { toBytes } from "./bytes.ts";
import { StreamReader } from "./stream_reader.ts";
import { StreamWriter } from "./stream_writer.ts";

/**
 * The handler for datagram services: `rfile` reads the datagram, and what is written to `wfile` is sent as one reply by `finish()`.
 * A subclass that overrides `setup()` or `finish()` calls `super` there.
 *
 * A handler that writes nothing sends no reply; `socketserver` sends an empty datagram then.
 *
 * @example
 * ```ts
 * import { DatagramRequestHandler } from "@sockets/server";
 *
 * class Upper extends DatagramRequestHandler {
 *   override async handle(): Promise<void> {
 *     for await (const line of this.rfile) await this.wfile.write(line.toUpperCase() + "\n");
 *   }
 * }
 * ```
 */
export class DatagramRequestHandler extends BaseRequestHandler<Datagram> {
  /** Reads the datagram. */
  rfile!: StreamReader;
  /** Collects the reply. */
  wfile!: StreamWriter;
  #written: Uint8Array[] = [];

  /** Makes `rfile` and `wfile`. */
  override setup(): void | Promise<void> {
    let rest: Uint8Array | null = this.request.data.length === 0 ? null : this.request.data;
    this.rfile = new StreamReader({
      read() {
        const chunk = rest;
        rest = null;
        return Promise.resolve(chunk);
      },
    });
    // A copy: what was written may be changed as soon as write() has returned.
    this.wfile = new StreamWriter({ write: (data) => void this.#written.push(toBytes(data).slice()) });
  }

  /** Sends what was written to `wfile` as one datagram, if anything was. */
  override finish(): void | Promise<void> {
    const written = this.#written;
    if (written.length === 0) return;
    if (written.length === 1) return this.request.reply(written[0]!);
    const reply = new Uint8Array(written.reduce((size, bytes) => size + bytes.length, 0));
    let used = 0;
    for (const bytes of written) {
      reply.set(bytes, used);
      used += bytes.length;
    }
    return this.request.reply(reply);
  }
}
