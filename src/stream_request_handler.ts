import { BaseRequestHandler } from "./base_request_handler.ts";
import { type Connection, endedHere } from "./connection.ts";
import { StreamReader } from "./stream_reader.ts";
import { StreamWriter } from "./stream_writer.ts";

/**
 * The handler for stream services: `rfile` reads, `wfile` writes. A subclass that overrides `setup()` or `finish()` calls
 * `super` there.
 *
 * @example
 * ```ts
 * import { StreamRequestHandler } from "@sockets/server";
 *
 * class Greeter extends StreamRequestHandler {
 *   override timeout = 30_000;
 *
 *   override async handle(): Promise<void> {
 *     const name = await this.rfile.readLine({ limit: 200 });
 *     if (name !== null) await this.wfile.write(`hello ${name}\n`);
 *   }
 * }
 * ```
 */
export class StreamRequestHandler extends BaseRequestHandler<Connection> {
  /** Bytes that `wfile` gathers before it sends them; 0, the default, sends every write at once. */
  wbufsize = 0;
  /** Milliseconds that one operation on the connection may wait for the peer; `null`, the default, leaves it as it is. */
  timeout: number | null = null;
  /** Sets or clears TCP_NODELAY on this connection; `null`, the default, leaves what the server's `noDelay` set. */
  disableNagleAlgorithm: boolean | null = null;
  /** Reads from the peer. */
  rfile!: StreamReader;
  /** Writes to the peer. */
  wfile!: StreamWriter;

  /** The connection: `socketserver`'s second name for `request`. */
  get connection(): Connection {
    return this.request;
  }

  /** Makes `rfile` and `wfile`, and applies `timeout` and `disableNagleAlgorithm`. */
  override setup(): void | Promise<void> {
    if (this.timeout !== null) this.request.timeout = this.timeout;
    if (this.disableNagleAlgorithm !== null) this.request.setNoDelay(this.disableNagleAlgorithm);
    this.rfile = new StreamReader(this.request);
    this.wfile = new StreamWriter(this.request, this.wbufsize);
  }

  /** Sends what `wfile` still holds. On a lost connection there is nobody to send it to, and whoever waited has been told. */
  override finish(): void | Promise<void> {
    if (this.wfile !== undefined && this.request.error === null && !endedHere(this.request)) return this.wfile.flush();
  }

  /** What `rfile` has received and nobody has read, once `wfile` has sent what it holds. */
  protected override async unread(): Promise<Uint8Array> {
    const buffered = this.rfile.takeBuffered();
    await this.wfile.flush();
    return buffered;
  }
}
