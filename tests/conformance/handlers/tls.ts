/** Handlers that the tests of TLS run in threads and processes too. */
import { BaseRequestHandler, type TlsOptions } from "@sockets/server";

/** Tells the peer what the handshake came to, and then echoes. */
export default class TellingHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write(JSON.stringify(this.request.tls) + "\n");
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** Begins TLS when the peer asks for it, with what the server's `data` says, and then echoes. */
export class UpgradingHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.read();
    await this.request.write("go");
    await this.request.startTls(this.server.data as TlsOptions);
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** Echoes. */
export class EchoHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}
