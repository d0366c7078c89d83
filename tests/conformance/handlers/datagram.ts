/** Handlers for datagrams that the tests run in threads and processes. */
import { BaseRequestHandler, type Datagram, DatagramRequestHandler } from "@sockets/server";

export default class Echo extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    return this.request.reply(this.request.data);
  }
}

export class Lines extends DatagramRequestHandler {
  override async handle(): Promise<void> {
    if (this.request.truncated) await this.wfile.write("cut ");
    for await (const line of this.rfile) await this.wfile.write(`<${line}>`);
  }
}

/** Throws what it is sent, or answers more than a datagram can hold. */
export class Fails extends BaseRequestHandler<Datagram> {
  override async handle(): Promise<void> {
    const text = new TextDecoder().decode(this.request.data);
    if (text === "throw") throw new RangeError("a handler's own");
    await this.request.reply(text === "long" ? new Uint8Array(1 << 20) : text);
  }
}
